"""Takes pictures of every state of the workspace, to look at: ``python -m tests.browser.look FOLDER``.

Not a test: the pictures show what no assertion does. Light and dark, 1366 x 768, a phone, and 4K for some.
"""

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from app.models import PersonRole
from tests.browser.conftest import CHROMIUM, CHROMIUM_OPTIONS, free_port
from tests.browser.stage import stage
from tests.browser.walk import walk

SIZES = {"wide": (1366, 768), "phone": (390, 844)}
LARGE = {"judge-chosen", "write-first-time", "long-code", "day"}


class Camera:
    """Takes the same page in every size and scheme."""

    def __init__(self, page: Page, folder: Path) -> None:
        self.page = page
        self.folder = folder

    def take(self, name: str) -> None:
        """Keep what is on the screen now under a name."""
        self.page.mouse.move(0, 0)
        for size, (width, height) in (SIZES | ({"4k": (3840, 2160)} if name in LARGE else {})).items():
            self.page.set_viewport_size({"width": width, "height": height})
            for scheme in ("light", "dark"):
                self.page.emulate_media(color_scheme=scheme)
                self.page.wait_for_timeout(150)
                self.page.screenshot(path=self.folder / f"{name}-{size}-{scheme}.png")
        self.page.set_viewport_size(dict(zip(("width", "height"), SIZES["wide"], strict=True)))
        self.page.emulate_media(color_scheme="light")


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as data,
        stage(Path(data), free_port()) as played,
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS) as browser,
    ):
        played.open_batch()
        guest = browser.new_page()
        guest.goto(f"{played.url}/sign-in")
        Camera(guest, folder).take("sign-in")
        page = browser.new_page(viewport=dict(zip(("width", "height"), SIZES["wide"], strict=True)))
        walk(played, page, "Mira Okafor", Camera(page, folder).take)
        admin = browser.new_page()
        played.enter(admin, "Ada", PersonRole.ADMIN)
        for name in ("people", "tokens", "audit"):
            admin.goto(f"{played.url}/admin/{name}")
            Camera(admin, folder).take(f"admin-{name}")


if __name__ == "__main__":
    main()
