"""The admin's pages of workers and checkpoints in a browser: they follow the workers, and hold WCAG 2.2 AA."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import select

from app.models import Batch, PersonRole, Worker, now
from tests import factories
from tests.app.queue_rows import make_failed, make_waiting, make_worker
from tests.browser.conftest import free_port, note
from tests.browser.stage import WIDE, Stage, stage
from tests.browser.test_accessibility import Checker

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

# Two looks of the page at its workers.
SOON_MS = 12_000


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Stage]:
    """An installation of its own, with workers in every state, pairs that nobody can sample, and failed ones."""
    with stage(tmp_path, free_port()) as busy:
        busy.open_batch()
        with busy.database.write() as session:
            batch, ann = session.scalars(select(Batch)).one(), factories.make_person(session)
            for _ in range(30):
                make_failed(session, batch, ann, error="The worker was lost. It was tried 3 times.")
            make_failed(session, batch, ann, error=None)
            make_waiting(session, batch, ann)
            newest = factories.make_checkpoint(session, "chat-2")
            at = now() + timedelta(hours=1)
            worker = make_worker(session, "gpu-1", staging=newest.digest, last_seen_at=at)
            worker.available = {newest.digest: newest.name}
            worker.refused = {"week-13": "model.safetensors is missing."}
            worker.last_error, worker.last_error_at = "The app answered 503.", now()
            make_worker(session, "gpu-silent", last_seen_at=now() - timedelta(minutes=5))
            make_worker(session, "gpu-stopped", stopped_at=now())
        yield busy


@pytest.fixture
def admin(chromium: Browser, busy: Stage) -> Iterator[Page]:
    """An admin's window, whose console must stay empty."""
    said: list[str] = []
    context = chromium.new_context(viewport=WIDE)  # type: ignore[arg-type]
    context.set_default_timeout(10_000)
    page = context.new_page()
    page.on("console", lambda message: note(said, message))
    page.on("pageerror", lambda error: said.append(str(error)))
    busy.enter(page, "Ada", PersonRole.ADMIN)
    yield page
    context.close()
    assert said == []


def serve(busy: Stage) -> None:
    """Let the worker take up what it stages."""
    with busy.database.write() as session:
        worker = session.scalars(select(Worker).where(Worker.name == "gpu-1")).one()
        worker.checkpoints, worker.staging = dict(worker.available), None


def test_the_pages_hold_wcag_2_2_aa(busy: Stage, admin: Page) -> None:
    checker = Checker(admin)
    for path in ("workers", "workers?page=2&retried=3", "checkpoints"):
        admin.goto(f"{busy.url}/admin/{path}")
        checker.check(path)
    assert checker.problems == []


def test_the_pages_follow_a_promotion_and_keep_what_was_ticked(busy: Stage, admin: Page) -> None:
    admin.goto(f"{busy.url}/admin/checkpoints")
    row = admin.locator("tr", has_text="chat-2").first
    expect(row).to_contain_text("gpu-1 is staging it")
    row.get_by_role("checkbox").check()
    row.get_by_role("button", name="Promote").focus()
    serve(busy)
    expect(row).to_contain_text("gpu-1 serves it", timeout=SOON_MS)
    # It goes on looking after the first time.
    with busy.database.write() as session:
        session.scalars(select(Worker).where(Worker.name == "gpu-1")).one().stopped_at = now()
    expect(row).not_to_contain_text("gpu-1", timeout=SOON_MS)
    assert row.get_by_role("checkbox").is_checked()
    assert row.get_by_role("button", name="Promote").evaluate("button => button === document.activeElement")


def test_what_failed_is_tried_again(busy: Stage, admin: Page) -> None:
    admin.goto(f"{busy.url}/admin/workers")
    expect(admin.locator("main")).to_contain_text("31 in batches that are not frozen")
    admin.get_by_role("link", name="Older").click()
    expect(admin.locator("#failed tbody tr")).to_have_count(6)
    admin.locator("#failed").get_by_role("button", name="Try again").first.click()
    expect(admin.locator("#messages")).to_have_text("1 pair is sampled again.")
    expect(admin.locator("#failed tbody tr")).to_have_count(5)
    # The fragment that came by itself has working forms, too.
    with admin.expect_response(lambda answer: "/admin/workers" in answer.url, timeout=SOON_MS):
        pass
    admin.get_by_role("button", name="Try all 30 again").click()
    expect(admin.locator("#messages")).to_have_text("30 pairs are sampled again.")
    expect(admin.locator("main")).to_contain_text("None, in batches that are not frozen.")
