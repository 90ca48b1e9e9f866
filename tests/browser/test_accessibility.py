"""WCAG 2.2 AA by axe-core in every state of the workspace; nothing scrolls sideways, and the console stays empty."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from app.paths import ROOT
from tests.browser.conftest import note
from tests.browser.stage import WIDE, Stage
from tests.browser.walk import walk

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

AXE = (ROOT / "tests" / "vendor" / "axe-core@4.14.1" / "axe.min.js").read_text("utf-8")
NARROW = {"width": 390, "height": 844}
_RUN = """async () => {
    const { violations } = await axe.run(document, {
        runOnly: { type: "tag", values: ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"] },
        resultTypes: ["violations"],
    });
    const words = (id, { html, failureSummary }) => `${id}: ${html} ${failureSummary}`;
    return violations.flatMap(({ id, nodes }) => nodes.map((node) => words(id, node)));
}"""
_OVERFLOW = "document.scrollingElement.scrollWidth - document.scrollingElement.clientWidth"


class Checker:
    """Looks at a page wide and narrow, light and dark, and notes what is wrong with it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.problems: list[str] = []
        self.states: list[str] = []

    def check(self, state: str) -> None:
        """Look at what is on the screen now."""
        self.states.append(state)
        for size in (WIDE, NARROW):
            self.page.set_viewport_size(size)  # type: ignore[arg-type]
            if (overflow := self.page.evaluate(_OVERFLOW)) > 0:
                self.problems.append(f"{state}: {overflow} px wider than {size['width']}")
            for scheme in ("light", "dark"):
                # Without transitions: axe must not measure a colour that is on its way to another.
                self.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
                # Into the page's world without a script element, which our own policy would refuse.
                if self.page.evaluate("typeof axe") == "undefined":
                    self.page.evaluate(AXE)
                self.problems += [f"{state}, {size['width']} px, {scheme}: {one}" for one in self.page.evaluate(_RUN)]
        self.page.set_viewport_size(WIDE)  # type: ignore[arg-type]


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    context = chromium.new_context(viewport=WIDE)  # type: ignore[arg-type]
    context.set_default_timeout(10_000)
    yield context.new_page()
    context.close()


def test_axe_finds_what_is_wrong(page: Page, played: Stage) -> None:
    page.goto(f"{played.url}/sign-in")
    page.locator("label").first.evaluate("label => label.replaceWith(label.querySelector('input'))")
    checker = Checker(page)
    checker.check("broken")
    assert any("label" in problem for problem in checker.problems)


def test_every_state_holds_wcag_2_2_aa(page: Page, played: Stage) -> None:
    said: list[str] = []
    page.on("console", lambda message: note(said, message))
    page.on("pageerror", lambda error: said.append(str(error)))
    checker = Checker(page)
    page.goto(f"{played.url}/sign-in")
    checker.check("sign-in")
    walk(played, page, "Axel", checker.check)
    assert checker.problems == []
    assert len(checker.states) > 25
    # The last state is a page that does not exist.
    assert [line for line in said if "nothing-here" not in line] == []
