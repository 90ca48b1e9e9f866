"""The calendar and the schedule in a browser, without JavaScript: a week is skipped, a batch extended; WCAG 2.2 AA."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from app.models import PersonRole
from tests.app.test_schedule import make_plan, set_up
from tests.browser.conftest import free_port
from tests.browser.stage import Stage, stage
from tests.browser.test_accessibility import Checker

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

PHONE = {"width": 390, "height": 844}


@pytest.fixture
def planned(tmp_path: Path) -> Iterator[Stage]:
    """An installation with a schedule, and the week that runs by it."""
    with stage(tmp_path, free_port()) as played:
        set_up(played.database, make_plan())
        yield played


def open_calendar(planned: Stage, page: Page) -> None:
    planned.enter(page, "Ada", PersonRole.ADMIN)
    page.goto(f"{planned.url}/admin/batches")


def test_a_week_is_skipped_and_a_batch_extended_without_script(chromium: Browser, planned: Stage) -> None:
    page = chromium.new_context(viewport=PHONE, java_script_enabled=False).new_page()  # type: ignore[arg-type]
    open_calendar(planned, page)
    weeks = page.get_by_role("listitem")
    expect(weeks.nth(1)).to_contain_text("Batch 2 planned")
    weeks.nth(1).get_by_role("button", name="Skip").click()
    expect(weeks.nth(1)).to_contain_text("No batch skipped by Ada")
    weeks.nth(1).get_by_role("button", name="Do not skip").click()
    expect(weeks.nth(1)).to_contain_text("Batch 2 planned")
    page.get_by_role("link", name="Batch 1").click()
    page.get_by_role("link", name="Extend it").click()
    page.get_by_role("button", name="Extend the batch").click()
    expect(page.get_by_role("listitem").first).to_contain_text("Ada extended it")


def test_the_pages_hold_wcag_2_2_aa(chromium: Browser, planned: Stage) -> None:
    page = chromium.new_context(viewport=PHONE).new_page()  # type: ignore[arg-type]
    open_calendar(planned, page)
    page.get_by_role("button", name="Skip").first.click()
    expect(page.get_by_role("button", name="Do not skip")).to_be_visible()
    checker = Checker(page)
    for path in ("batches", "batches/schedule", "batches/1", "batches/1/extend"):
        page.goto(f"{planned.url}/admin/{path}")
        checker.check(path)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert checker.problems == []
