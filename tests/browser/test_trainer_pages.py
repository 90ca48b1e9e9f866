"""The trainer's pages in a browser: an import that is seen before it is confirmed, a training set, and WCAG 2.2 AA."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from app.models import PersonRole
from app.settings import Settings
from tests import factories
from tests.browser.conftest import free_port
from tests.browser.stage import Stage, stage
from tests.browser.test_accessibility import Checker

pytestmark = pytest.mark.browser

PAIR = {"chosen": "\n\nHuman: Tea?\n\nAssistant: Yes.", "rejected": "\n\nHuman: Tea?\n\nAssistant: No."}


@pytest.fixture
def played(tmp_path: Path) -> Iterator[Stage]:
    """An app of this test's own, with a frozen dataset: the shared one has an open batch that others work in."""
    with stage(tmp_path, free_port()) as played:
        url = played.database.writing.url.render_as_string(hide_password=False)
        settings = Settings(data_dir=tmp_path, database_url=url)
        settings.ensure_secrets()
        with played.database.write() as session:
            batch = factories.make_week(session, factories.make_person(session), conversations=6)
        factories.freeze(played.database, batch, settings)
        yield played


def test_from_a_file_to_a_training_set(chromium: Browser, played: Stage, tmp_path: Path) -> None:
    page = chromium.new_page()
    checker = Checker(page)
    played.enter(page, "Tara", PersonRole.TRAINER)

    def upload(name: str, lines: list[str]) -> None:
        file = tmp_path / f"{name}.jsonl"
        file.write_text("\n".join(lines), encoding="utf-8")
        page.goto(f"{played.url}/datasets/external")
        page.get_by_label("File").set_input_files(file)
        page.get_by_label("Name").fill(name)
        page.get_by_role("button", name="Check the file").click()

    upload("wrong", [json.dumps(PAIR), '{"chosen": 1}'])
    expect(page.get_by_role("alert")).to_contain_text("line 2: chosen: Should be text")
    checker.check("malformed rows")
    page.get_by_role("button", name="Discard it").click()

    upload("pairs", [json.dumps(PAIR)])
    checker.check("checked file")
    page.get_by_role("button", name="Import 1 row").click()
    expect(page.get_by_role("heading", name="pairs", exact=True)).to_be_visible()
    checker.check("external dataset")

    page.get_by_role("link", name="Use it in a training set").click()
    page.get_by_label("Name").fill("mixed")
    page.get_by_role("button", name="Define it").click()
    expect(page.get_by_text("Choose at least one dataset.")).to_be_visible()
    checker.check("refused training set")
    page.get_by_label("batch-001").check()
    page.get_by_label("pairs").check()
    page.get_by_label("slightly better").uncheck()
    page.get_by_role("button", name="Define it").click()
    expect(page.get_by_role("heading", name="mixed", exact=True)).to_be_visible()
    checker.check("training set")
    for path in ("external", "sets", "api"):
        page.goto(f"{played.url}/datasets/{path}")
        checker.check(path)
    assert checker.problems == []
    page.close()
