"""The workspace in a real browser: tray, keyboard, texts, guideline, and everything without JavaScript."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import func, select

from app.models import Flag, Person, RationaleMode, ResponseDisplay, Skip
from contract.vocabulary import Objective, Side, Strength
from tests.browser import texts
from tests.browser.stage import Stage, annotations, judged
from tests.browser.walk import ask, at, begin, to_judge

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

MAX_BYTES = 60_000
MAX_REQUESTS = 6


def test_first_load_is_light(visit: Callable[..., Page], played: Stage) -> None:
    page = visit()
    to_judge(played, page, texts.CODE_PAIR)
    for path in ("/annotate/new", "/annotate"):
        # A new browser context of the same person would need another sign-in; an empty cache is what counts.
        session = page.context.new_cdp_session(page)
        session.send("Network.enable")
        session.send("Network.clearBrowserCache")
        sizes: list[float] = []
        session.on("Network.loadingFinished", lambda event, sizes=sizes: sizes.append(event["encodedDataLength"]))
        page.goto(played.url + path, wait_until="networkidle")
        assert 4 <= len(sizes) <= MAX_REQUESTS, sizes
        assert sum(sizes) <= MAX_BYTES, (path, sizes)
        session.detach()


def test_two_conversations_at_once_and_the_ready_one_comes_next(visit: Callable[..., Page], played: Stage) -> None:
    page = visit()
    begin(played, page)
    ask(page, "First question?")
    at(page, "waiting")
    page.get_by_role("link", name="Write another prompt meanwhile").click()
    at(page, "write")
    page.locator("[name=prompt]").fill("Second quest")
    played.make_ready(("One A", "One B"), "First question?")
    ready = page.locator("#tray [data-state=ready]")
    expect(ready).to_contain_text("First question?")
    # Nobody who writes is interrupted: the text, the focus and the caret are where they were.
    page.keyboard.type("ion?")
    expect(page.locator("[name=prompt]")).to_have_value("Second question?")
    expect(page.locator("#announcer")).to_contain_text("First question?")
    page.keyboard.press("Control+Enter")
    at(page, "judge")
    expect(page.locator("[data-side=a]").first).to_contain_text("One A")
    expect(page.locator("#tray [data-state]")).to_have_count(2)
    played.make_ready(("Two A", "Two B"), "Second question?")
    expect(page.locator("#tray [data-state=ready]")).to_have_count(2)
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    expect(page.locator("[data-response][data-side=a]")).to_contain_text("Two A")


def test_a_whole_cycle_by_keyboard(visit: Callable[..., Page], played: Stage, request: pytest.FixtureRequest) -> None:
    page = visit()
    begin(played, page, "safety")
    page.keyboard.type("How much bleach is too much?")
    page.keyboard.press("Tab")
    page.keyboard.type("Un")
    page.keyboard.press("Tab")
    page.keyboard.type("Lo")
    page.keyboard.press("Control+Enter")
    at(page, "waiting")
    played.make_ready(("None at all is safe to drink.", "Drink it."))
    at(page, "judge")
    page.keyboard.press("8")
    page.keyboard.press("2")
    page.keyboard.press("w")
    page.keyboard.press("f")
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").filter(has_text="Thank you")).to_be_visible()
    expect(page.get_by_role("radio", name="A better", exact=True)).to_be_checked()
    page.keyboard.press("y")
    page.keyboard.type("B is dangerous. 3 8")
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    at(page, "continue")
    page.keyboard.type("And vinegar?")
    page.keyboard.press("Control+Enter")
    at(page, "waiting")
    played.make_ready(("x", "y"))
    at(page, "judge")
    page.keyboard.press("s")
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    at(page, "write")
    (annotation,) = annotations(played, request.node.name)
    assert judged(played, annotation) == ("How much bleach is too much?", Side.A, Strength.BETTER)
    assert (annotation.chosen_safe, annotation.rejected_safe) == (True, False)
    assert annotation.rationale == "B is dangerous. 3 8"
    with played.database.read() as session:
        mine = select(func.count()).where(Person.name == request.node.name)
        assert session.scalar(mine.where(Flag.annotator_id == Person.id)) == 1
        assert session.scalar(mine.where(Skip.annotator_id == Person.id)) == 1


def test_single_keys_can_be_switched_off(visit: Callable[..., Page], played: Stage) -> None:
    page = visit()
    to_judge(played, page)
    page.keyboard.press("?")
    page.get_by_role("checkbox", name=re.compile("Use these keys")).uncheck()
    page.keyboard.press("Escape")
    page.reload()
    page.keyboard.press("3")
    page.keyboard.press("s")
    expect(page.locator(".points :checked")).to_have_count(0)
    expect(page.locator("#skip")).to_be_hidden()


def test_without_javascript(visit: Callable[..., Page], played: Stage, request: pytest.FixtureRequest) -> None:
    page = visit(java_script_enabled=False)
    begin(played, page)
    ask(page, "First?")
    at(page, "waiting")
    page.get_by_role("link", name="New prompt").click()
    ask(page, "Second?")
    played.make_ready(("a", "b"), "First?")
    page.goto(f"{played.url}/annotate")
    # Difference and flag are pages and forms like all others.
    page.get_by_role("button", name="Difference").click()
    expect(page.locator("mark")).to_have_text(["a", "b"])
    page.get_by_role("link", name="Back to the comparison").click()
    page.get_by_role("button", name="Flag").click()
    page.locator("#flag").get_by_label("Something else").check()
    page.locator("#flag").get_by_role("button", name="Flag").click()
    page.get_by_role("radio", name="B slightly better").check(force=True)
    page.get_by_role("button", name="Submit").click()
    at(page, "continue")
    page.goto(f"{played.url}/annotate/day")
    page.get_by_role("link", name="Change").click()
    page.get_by_role("radio", name="B significantly better").check(force=True)
    page.get_by_role("button", name="Change").click()
    at(page, "continue")
    ask(page, "And then?")
    played.make_ready(("c", "d"), "Second?")
    page.goto(f"{played.url}/annotate")
    page.get_by_role("button", name="Skip").click()
    page.get_by_label("It is upsetting").check()
    page.locator("#skip").get_by_role("button", name="Skip").click()
    at(page, "waiting")
    (annotation,) = annotations(played, request.node.name)
    assert judged(played, annotation) == ("First?", Side.B, Strength.SIGNIFICANTLY_BETTER)
    assert annotation.revision == 2


def test_responses_grow_in_step_and_judging_opens_at_the_end(visit: Callable[..., Page], played: Stage) -> None:
    played.set_batch(response_display=ResponseDisplay.AS_MADE)
    page = visit()
    begin(played, page)
    ask(page, "Tell me a story.")
    at(page, "waiting")
    expect(page.locator("#progress")).to_contain_text("queue")
    for a, b in ((100, 30), (200, 240), (900, 700)):
        played.grow("Once. " * a, "Well. " * b)
        shown = page.locator("[data-growing] .text")
        expect(shown.first).to_have_text(re.compile(rf"^\s*(Once\. ?){{{min(a, b)}}}\s*$"))
        expect(shown.last).to_have_text(re.compile(rf"^\s*(Well\. ?){{{min(a, b)}}}\s*$"))
        assert page.locator(".points").count() == 0
    growing = page.locator("[data-growing=a]")
    growing.focus()
    growing.evaluate("element => { element.scrollTop = 200; }")
    played.grow("Once. " * 1000, "Well. " * 1000)
    expect(shown.first).to_have_text(re.compile(r"^\s*(Once\. ?){1000}\s*$"))
    # Who reads is left where they are.
    assert growing.evaluate("element => [element.scrollTop, element === document.activeElement]") == [200, True]
    page.reload()
    played.set_batch(response_display=ResponseDisplay.TOGETHER)
    played.make_ready(("The end.", "The beginning."))
    at(page, "judge")


def test_views_of_a_response(visit: Callable[..., Page], played: Stage) -> None:
    page = visit()
    to_judge(played, page, ("Use **one** loop.\n\n" + "line\n\n" * 200, "Use **two** loops.\n\n" + "line\n\n" * 400))
    a = page.locator("[data-response][data-side=a]")
    b = page.locator("[data-response][data-side=b]")
    expect(a.locator("strong")).to_be_visible()
    page.keyboard.press("p")
    expect(a.locator("strong")).to_be_hidden()
    expect(a.locator(".raw")).to_contain_text("Use **one** loop.")
    page.get_by_role("button", name="Difference").click()
    expect(a.locator(".raw")).to_be_hidden()
    expect(a.locator("mark").first).to_contain_text("one")
    expect(b.locator("mark").first).to_contain_text("two")
    page.keyboard.press("d")
    expect(a.locator("strong")).to_be_visible()

    place = "element => element.scrollTop / (element.scrollHeight - element.clientHeight)"
    a.evaluate("element => { element.scrollTop = element.scrollHeight / 2; }")
    page.wait_for_timeout(100)
    assert b.evaluate(place) == 0
    page.keyboard.press("t")
    b.evaluate("element => { element.scrollTop = element.scrollHeight / 4; }")
    page.wait_for_timeout(100)
    assert a.evaluate(place) == pytest.approx(b.evaluate(place), abs=0.02)
    page.reload()
    expect(page.get_by_role("button", name="Scroll together")).to_have_attribute("aria-pressed", "true")


def test_guideline_opens_once_and_says_when_it_changed(visit: Callable[..., Page], played: Stage) -> None:
    page = visit(has_read=False)
    to_judge(played, page)
    guideline = page.locator("#guideline")
    expect(guideline).to_be_visible()
    page.keyboard.press("2")
    guideline.get_by_role("button", name="I have read it").click()
    expect(guideline).to_be_hidden()
    expect(page.locator(".guideline-notice")).to_have_count(0)
    expect(page.get_by_role("radio", name="A better", exact=True)).to_be_checked()
    page.reload()
    expect(guideline).to_be_hidden()
    played.publish_guideline(Objective.HELPFULNESS, "Choose what **helps** more, in fewer words.")
    page.reload()
    expect(page.locator(".guideline-notice").first).to_contain_text("has changed")
    expect(guideline).to_be_hidden()
    page.keyboard.press("g")
    expect(guideline).to_contain_text("in fewer words")
    page.locator(".notice").get_by_role("button", name="I have read it").click()
    page.reload()
    expect(page.locator(".guideline-notice")).to_have_count(0)


def test_the_chosen_response_can_be_improved(
    visit: Callable[..., Page], played: Stage, request: pytest.FixtureRequest
) -> None:
    played.set_batch(asks_edit=True, asks_quality=True, rationale_mode=RationaleMode.REQUIRED)
    try:
        page = visit()
        to_judge(played, page, ("Boil some *water*.", "No idea."))
        page.keyboard.press("2")
        page.keyboard.press("i")
        text = page.locator("[name=edited_text]")
        expect(text).to_have_value("Boil some *water*.")
        # What was only looked at is no edit.
        page.keyboard.press("Escape")
        expect(page.get_by_role("button", name="Improve", exact=True)).to_be_visible()
        page.keyboard.press("i")
        text.fill("Boil fresh water, then wait a minute.")
        page.keyboard.press("Escape")
        for key in ("a", "6", "b", "1"):
            page.keyboard.press(key)
        page.keyboard.press("y")
        page.keyboard.type("It helps.")
        page.keyboard.press("Control+Enter")
        at(page, "continue")
        (annotation,) = annotations(played, request.node.name)
        assert annotation.edited_text == "Boil fresh water, then wait a minute."
        assert (annotation.chosen_quality, annotation.rejected_quality) == (6, 1)
        assert annotation.rationale == "It helps."
    finally:
        played.set_batch(asks_edit=False, asks_quality=False, rationale_mode=RationaleMode.OPTIONAL)


def test_everything_that_must_be_pressed_is_on_the_screen(visit: Callable[..., Page], played: Stage) -> None:
    played.set_batch(asks_edit=True, asks_quality=True, rationale_mode=RationaleMode.REQUIRED)
    try:
        page = visit()
        begin(played, page, "safety")
        ask(page, texts.LONG_PAIR[0])
        played.make_ready((texts.LONG_PAIR[0], texts.LONG_PAIR[0] + " Really."))
        at(page, "judge")
        pressed = ".bar input:not([type=hidden], [name=confirm]), .bar-actions button, #rationale"
        for control in page.locator(pressed).all():
            expect(control).to_be_in_viewport(ratio=1)
        for response in page.locator("[data-response]").all():
            box = response.bounding_box()
            assert box is not None
            assert box["height"] > 200
        a, b = (response.bounding_box() for response in page.locator("[data-response]").all())
        assert a is not None
        assert b is not None
        assert (a["y"], a["width"], a["height"]) == (b["y"], b["width"], b["height"])
        assert a["x"] + a["width"] <= b["x"]
    finally:
        played.set_batch(asks_edit=False, asks_quality=False, rationale_mode=RationaleMode.OPTIONAL)
