"""Takes pictures of every state of the workspace, to look at: ``python -m tests.browser.look FOLDER``.

Not a test: the pictures show what no assertion does. Light and dark, 1366 x 768 and a phone.
"""

import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from alembic import command
from playwright.sync_api import Browser, Page, sync_playwright
from sqlalchemy import select

from app.accounts import service as accounts
from app.database import Database, alembic_config, connect
from app.main import create_app
from app.models import Comparison, ComparisonState, Person, PersonRole
from app.settings import Settings
from tests import factories
from tests.browser import texts

PORT = 8765
CHROMIUM = {
    "executable_path": "/usr/bin/chromium",
    "args": ["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
}
SIZES = {"wide": (1366, 768), "phone": (390, 844)}


@contextmanager
def running_app(folder: Path) -> Iterator[Database]:
    """The app with an open batch, served on a port of this machine."""
    settings = Settings(data_dir=folder, public_url=f"http://127.0.0.1:{PORT}", reconcile_every_s=0)
    command.upgrade(alembic_config(settings.database_url), "head")
    server = uvicorn.Server(uvicorn.Config(create_app(settings), port=PORT, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    database = connect(settings.database_url)
    yield database
    server.should_exit = True
    thread.join()


def make_ready(database: Database, pair: tuple[str, str]) -> None:
    """Let both responses arrive."""
    with database.write() as session:
        comparison = session.scalars(select(Comparison).where(Comparison.state == ComparisonState.SAMPLING)).one()
        factories.make_ready(session, comparison, pair)


def fail(database: Database) -> None:
    """Let sampling come to nothing."""
    with database.write() as session:
        comparison = session.scalars(select(Comparison).where(Comparison.state == ComparisonState.SAMPLING)).one()
        comparison.state = ComparisonState.EQUAL_RESPONSES


def ask(page: Page, prompt: str) -> None:
    page.get_by_label("prompt").fill(prompt)
    page.get_by_role("button", name="Send").click()
    page.wait_for_selector('[data-screen="waiting"]')


def choose(page: Page, key: str, safety: str = "") -> None:
    page.keyboard.press(key)
    if safety:
        page.keyboard.press(safety)


class Camera:
    """Takes the same page in every size and scheme."""

    def __init__(self, page: Page, folder: Path) -> None:
        self.page = page
        self.folder = folder

    def take(self, name: str) -> None:
        """Keep what is on the screen now under a name."""
        self.page.mouse.move(0, 0)
        for size, (width, height) in SIZES.items():
            self.page.set_viewport_size({"width": width, "height": height})
            for scheme in ("light", "dark"):
                self.page.emulate_media(color_scheme=scheme)
                self.page.wait_for_timeout(200)
                self.page.screenshot(path=self.folder / f"{name}-{size}-{scheme}.png")
        self.page.set_viewport_size(dict(zip(("width", "height"), SIZES["wide"], strict=True)))


def sign_in(browser: Browser, database: Database, role: PersonRole) -> Page:
    with database.write() as session:
        person: Person = accounts.get_or_create_person(session, f"Mira {role}", role)
        token = accounts.issue_sign_in_link(session, person, hours=1)
    page = browser.new_page(viewport={"width": 1366, "height": 768})
    page.goto(f"http://127.0.0.1:{PORT}/sign-in/{token}")
    page.get_by_role("button", name="Sign in").click()
    return page


def walk_through(page: Page, database: Database, camera: Camera) -> None:
    """Every state of the workspace, in the order in which an annotator meets them."""
    camera.take("closed")
    with database.write() as session:
        factories.make_open_batch(session, curriculum=texts.CURRICULUM)
    page.goto(f"http://127.0.0.1:{PORT}/annotate?objective=helpfulness")
    camera.take("write")
    ask(page, texts.CODE_PROMPT)
    camera.take("waiting")
    make_ready(database, texts.CODE_PAIR)
    page.wait_for_selector('[data-screen="judge"]')
    camera.take("judge")
    choose(page, "2")
    camera.take("judge-chosen")
    page.keyboard.press("?")
    camera.take("keys")
    page.keyboard.press("Escape")
    page.keyboard.press("s")
    camera.take("skip")
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    page.wait_for_selector('[data-screen="continue"]')
    camera.take("continue")
    ask(page, texts.FOLLOW_UP)
    make_ready(database, texts.LONG_PAIR)
    page.wait_for_selector('[data-screen="judge"]')
    page.keyboard.press("g")
    camera.take("judge-second-turn")
    page.keyboard.press("g")
    choose(page, "6")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Finish").click()
    page.wait_for_selector('[data-screen="write"]')
    page.goto(f"http://127.0.0.1:{PORT}/annotate?objective=safety")
    ask(page, texts.ARABIC_PROMPT)
    make_ready(database, texts.ARABIC_PAIR)
    page.wait_for_selector('[data-screen="judge"]')
    choose(page, "3", "e")
    camera.take("safety")
    choose(page, "3", "w")
    page.keyboard.press("Enter")
    page.wait_for_selector('[data-screen="continue"]')
    ask(page, texts.FOLLOW_UP)
    fail(database)
    page.wait_for_selector('[data-screen="failed"]')
    camera.take("failed")


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as data,
        running_app(Path(data)) as database,
        sync_playwright() as playwright,
        playwright.chromium.launch(**CHROMIUM) as browser,
    ):
        guest = browser.new_page()
        guest.goto(f"http://127.0.0.1:{PORT}/sign-in")
        Camera(guest, folder).take("sign-in")
        page = sign_in(browser, database, PersonRole.ANNOTATOR)
        walk_through(page, database, Camera(page, folder))
        admin = sign_in(browser, database, PersonRole.ADMIN)
        for name in ("people", "tokens", "audit"):
            admin.goto(f"http://127.0.0.1:{PORT}/admin/{name}")
            Camera(admin, folder).take(f"admin-{name}")


if __name__ == "__main__":
    main()
