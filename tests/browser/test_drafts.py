"""Nothing is lost: drafts survive a reload, another browser, a failed submit; a double click makes one annotation."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.stage import Stage, annotations, judged
from tests.browser.walk import ask, at, begin, to_judge

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

_DRAFTS_HERE = "Object.keys(localStorage).filter((key) => key.startsWith('draft:')).length"


def test_a_draft_is_on_the_server_within_a_second(visit: Callable[..., Page], played: Stage) -> None:
    page = visit()
    begin(played, page)
    with page.expect_response("**/annotate/drafts/*", timeout=1_000) as sent:
        page.locator("[name=prompt]").press_sequentially("How do I make t", delay=20)
    assert sent.value.status == 204
    page.locator("[name=prompt]").press_sequentially("ea?", delay=20)
    expect(page.locator("[data-saved]")).to_have_text("Saved")
    page.wait_for_timeout(500)
    assert page.evaluate(_DRAFTS_HERE) == 0
    page.reload()
    expect(page.locator("[name=prompt]")).to_have_value("How do I make tea?")

    another = visit()
    begin(played, another)
    expect(another.locator("[name=prompt]")).to_have_value("How do I make tea?")


def test_what_was_just_typed_survives_leaving_the_page(visit: Callable[..., Page], played: Stage) -> None:
    page = visit()
    begin(played, page)
    page.locator("[name=prompt]").fill("Typed, and gone at once")
    page.goto(f"{played.url}/annotate/day")
    begin(played, page)
    expect(page.locator("[name=prompt]")).to_have_value("Typed, and gone at once")


def test_a_judgement_survives_a_reload_and_another_browser(visit: Callable[..., Page], played: Stage) -> None:
    page = visit()
    to_judge(played, page)
    page.keyboard.press("7")
    page.keyboard.press("y")
    page.keyboard.type("B is honest.")
    expect(page.locator("[data-saved]").first).to_have_text("Saved")
    page.reload()
    expect(page.get_by_role("radio", name="B better", exact=True)).to_be_checked()

    another = visit()
    at(another, "judge")
    expect(another.get_by_role("radio", name="B better", exact=True)).to_be_checked()
    expect(another.locator("[name=rationale]")).to_have_value("B is honest.")


def test_without_a_connection_nothing_is_lost(
    visit: Callable[..., Page],
    played: Stage,
    request: pytest.FixtureRequest,
) -> None:
    page = visit()
    to_judge(played, page)

    def refuse(route: Route) -> None:
        # As a server in between does while the app restarts: a page of its own, and not ours.
        route.fulfill(status=502, body="<html><body>Bad gateway</body></html>", content_type="text/html")

    page.route("**/annotate/drafts/*", refuse)
    page.route("**/annotation", refuse)
    page.keyboard.press("3")
    expect(page.locator("[data-saved]").first).to_have_text("Not saved yet")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("alert")).to_contain_text("Nothing is lost")
    expect(page.get_by_role("radio", name="A slightly better")).to_be_checked()
    assert page.evaluate(_DRAFTS_HERE) == 1
    # The copy in the browser was never sent, so it wins after a reload, and then goes to the server.
    page.reload()
    expect(page.get_by_role("radio", name="A slightly better")).to_be_checked()
    page.unroute_all()
    expect(page.locator("[data-saved]").first).to_have_text("Saved", timeout=10_000)
    assert page.evaluate(_DRAFTS_HERE) == 0
    page.get_by_role("button", name="Submit").click()
    at(page, "continue")
    assert len(annotations(played, request.node.name)) == 1


def test_a_double_click_makes_one_annotation(
    visit: Callable[..., Page],
    played: Stage,
    request: pytest.FixtureRequest,
) -> None:
    page = visit()
    to_judge(played, page)
    page.keyboard.press("1")
    page.get_by_role("button", name="Submit").dblclick()
    at(page, "continue")
    page.locator("[name=prompt]").fill("Go on.")
    page.get_by_role("button", name="Send").dblclick()
    at(page, "waiting")
    (annotation,) = annotations(played, request.node.name)
    assert annotation.revision == 1
    assert judged(played, annotation)[0] == "Tea?"
    expect(page.locator("#tray [data-state]")).to_have_count(1)


def test_nothing_stays_in_the_browser_after_signing_out(visit: Callable[..., Page], played: Stage) -> None:
    page = visit()
    begin(played, page)
    ask(page, "One?")
    at(page, "waiting")
    begin(played, page)
    page.locator("[name=prompt]").fill("My secret prompt")
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/sign-in")
    assert "secret" not in page.evaluate("JSON.stringify(localStorage)")
    page.context.clear_cookies()
    another = visit()
    begin(played, another)
    expect(another.locator("[name=prompt]")).to_have_value("My secret prompt")


def test_an_ended_session_leads_back_to_the_work(visit: Callable[..., Page], played: Stage) -> None:
    page = visit()
    to_judge(played, page)
    page.context.clear_cookies()
    page.keyboard.press("6")
    page.keyboard.press("Enter")
    page.wait_for_url("**/sign-in?next=/annotate")
