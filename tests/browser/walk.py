"""Every state of the workspace, in the order in which an annotator meets them: for pictures and for axe."""

from collections.abc import Callable

from playwright.sync_api import Page, expect

from app.models import BatchState, RationaleMode, ResponseDisplay
from contract.vocabulary import Objective
from tests.browser import texts
from tests.browser.stage import Stage

Take = Callable[[str], None]


def ask(page: Page, prompt: str) -> None:
    """Write a prompt and send it."""
    page.locator("[name=prompt]").fill(prompt)
    for name, value in (("risk_category", "unqualified_advice"), ("attack_vector", "logic")):
        if page.locator(f"select[name={name}]").count():
            page.locator(f"select[name={name}]").select_option(value)
    with page.expect_response(lambda answer: answer.request.method == "POST" and "/conversations" in answer.url):
        page.get_by_role("button", name="Send").click()


def at(page: Page, screen: str) -> None:
    """Wait for a screen."""
    page.locator(f"[data-screen={screen}]").wait_for()


def begin(stage: Stage, page: Page, objective: str = "helpfulness") -> None:
    """Go to the form for a new conversation."""
    page.goto(f"{stage.url}/annotate/new?objective={objective}")
    # Keys that are pressed before a page has its script go nowhere, in any browser.
    expect(page.locator("textarea:focus")).to_be_visible()


def to_judge(stage: Stage, page: Page, pair: tuple[str, str] = ("Boil water.", "No idea.")) -> None:
    """Ask something, and have both responses at once."""
    begin(stage, page)
    ask(page, "Tea?")
    stage.make_ready(pair)
    at(page, "judge")


def walk(stage: Stage, page: Page, name: str, take: Take) -> None:
    """Meet every state, signed in as somebody who has done nothing yet."""
    stage.set_batch(state=BatchState.SCHEDULED, curriculum=texts.CURRICULUM)
    stage.enter(page, name, has_read=False)
    take("closed")
    stage.set_batch(state=BatchState.OPEN)
    _write_and_wait(stage, page, take)
    _judge(stage, page, take)
    _feedback_of_all_kinds(stage, page, take)
    _safety(stage, page, take)
    _long_code(stage, page, take)
    _busy_tray(stage, page, take)
    _pool_and_day(stage, page, name, take)


def _write_and_wait(stage: Stage, page: Page, take: Take) -> None:
    begin(stage, page)
    take("write-first-time")
    page.get_by_role("button", name="I have read it").click()
    ask(page, texts.CODE_PROMPT)
    at(page, "waiting")
    take("waiting")
    stage.set_batch(response_display=ResponseDisplay.AS_MADE)
    stage.grow(texts.CODE_PAIR[0][:400], texts.CODE_PAIR[1][:300])
    page.locator("[data-growing=a]").wait_for()
    take("waiting-as-made")
    stage.set_batch(response_display=ResponseDisplay.TOGETHER)
    stage.make_ready(texts.CODE_PAIR)


def _judge(stage: Stage, page: Page, take: Take) -> None:
    at(page, "judge")
    take("judge")
    page.keyboard.press("2")
    take("judge-chosen")
    for key, state in (("?", "keys"), ("s", "skip"), ("f", "flag"), ("y", "reason")):
        page.keyboard.press(key)
        page.locator(".dialog:popover-open").wait_for()
        take(state)
        page.keyboard.press("Escape")
    page.keyboard.press("p")
    take("plain")
    page.keyboard.press("d")
    page.locator(".response .difference:visible").first.wait_for()
    take("difference")
    page.keyboard.press("Enter")
    at(page, "continue")
    take("continue")
    ask(page, texts.FOLLOW_UP)
    at(page, "waiting")
    stage.fail()
    at(page, "failed")
    take("failed")
    page.get_by_role("button", name="Finish this conversation").click()


def _feedback_of_all_kinds(stage: Stage, page: Page, take: Take) -> None:
    stage.set_batch(rationale_mode=RationaleMode.REQUIRED, asks_edit=True, asks_quality=True)
    stage.publish_guideline(Objective.HELPFULNESS, "Choose what helps **more**. New: a wrong answer is never better.")
    begin(stage, page)
    ask(page, texts.FOLLOW_UP)
    stage.make_ready(texts.LONG_PAIR)
    at(page, "judge")
    take("guideline-changed")
    page.keyboard.press("g")
    page.wait_for_timeout(200)
    take("guideline-open")
    page.locator("#guideline").get_by_role("button", name="I have read it").click()
    page.keyboard.press("6")
    page.keyboard.press("i")
    take("edit")
    page.keyboard.press("Escape")
    page.keyboard.press("a")
    page.keyboard.press("5")
    take("all-feedback")
    page.keyboard.press("b")
    page.keyboard.press("2")
    page.locator("#rationale").fill("Shorter, and as right as the other.")
    page.get_by_role("button", name="Submit").click()
    at(page, "continue")
    page.get_by_role("button", name="Finish this conversation").click()
    at(page, "write")


def _safety(stage: Stage, page: Page, take: Take) -> None:
    begin(stage, page, "safety")
    page.get_by_role("button", name="I have read it").click()
    take("safety-write")
    ask(page, texts.ARABIC_PROMPT)
    stage.make_ready(texts.ARABIC_PAIR)
    at(page, "judge")
    take("right-to-left")
    page.keyboard.press("3")
    page.keyboard.press("e")
    take("safety-unsafe-choice")
    page.locator("#rationale").fill("B would hurt somebody.")
    page.locator("h1").click()
    for key in ("w", "a", "6", "b", "1"):
        page.keyboard.press(key)
    stage.set_batch(rationale_mode=RationaleMode.OPTIONAL, asks_edit=False, asks_quality=False)
    page.get_by_role("button", name="Submit").click()
    at(page, "continue")
    take("safety-continue")
    page.get_by_role("button", name="Finish this conversation").click()
    at(page, "write")


def _long_code(stage: Stage, page: Page, take: Take) -> None:
    begin(stage, page)
    ask(page, "Show me a table, a formula and very long lines of code.")
    stage.make_ready(texts.WIDE_PAIR)
    at(page, "judge")
    take("long-code")
    page.keyboard.press("s")
    page.get_by_label("I cannot judge this").check()
    page.locator("#skip").get_by_role("button", name="Skip").click()
    at(page, "write")


def _busy_tray(stage: Stage, page: Page, take: Take) -> None:
    for prompt in texts.SHORT_PROMPTS:
        begin(stage, page)
        ask(page, prompt)
        at(page, "waiting")
    stage.make_ready(("Yes.", "No."), texts.SHORT_PROMPTS[0])
    begin(stage, page)
    page.locator("#tray [data-state=ready]").wait_for()
    take("tray")
    for prompt in texts.SHORT_PROMPTS:
        if prompt != texts.SHORT_PROMPTS[0]:
            stage.make_ready(("Yes.", "No."), prompt)
        page.goto(f"{stage.url}/annotate")
        at(page, "judge")
        page.keyboard.press("8")
        page.keyboard.press("Enter")
        page.locator("[data-screen=continue], [data-screen=write]").wait_for()
    while page.goto(f"{stage.url}/annotate") and page.locator("[data-screen=continue]").count():
        page.get_by_role("button", name="Finish this conversation").click()
        page.wait_for_load_state()


def _pool_and_day(stage: Stage, page: Page, name: str, take: Take) -> None:
    stage.review(name, "Please look at the code again: the second answer reads the last line twice.")
    page.goto(f"{stage.url}/annotate/day")
    take("day")
    page.get_by_role("link", name="Change").first.click()
    at(page, "judge")
    take("change")
    page.get_by_role("link", name="Keep it").click()
    stage.set_batch(pool_share=1.0)
    page.goto(f"{stage.url}/annotate")
    at(page, "preparing")
    take("preparing")
    stage.set_batch(pool_share=0.0)
    page.goto(f"{stage.url}/annotate/nothing-here")
    take("no-such-page")
