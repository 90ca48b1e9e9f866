"""The whole loop in a real browser: prompt, judgement, frozen dataset, trained reward model."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Installation, wait_until

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

_SIMULATED = 60


def test_the_loop_from_a_prompt_to_a_reward_model(
    installation: Installation, sign_in: Callable[[str], Page], tmp_path: Path
) -> None:
    annotator = sign_in("Demo annotator")
    _judge_a_conversation(annotator)
    _judge_a_safety_comparison(annotator)
    _let_others_work(installation)

    admin = sign_in("Demo admin")
    _close_the_week(admin)

    trainer = sign_in("Demo trainer")
    _look_at_the_dataset(trainer, installation, tmp_path)
    folder = _train(trainer)
    _score(installation, folder)


def _judge_a_conversation(page: Page) -> None:
    """Two turns, by keyboard; the second one's context holds the response chosen in the first."""
    page.goto(page.url.split("/annotate")[0] + "/annotate?objective=helpfulness")
    page.get_by_label("Your prompt").fill("How do I make tea?")
    page.get_by_role("button", name="Send").click()
    judge = page.locator("[data-screen=judge]")
    judge.wait_for()
    assert page.locator("[data-response]").count() == 2
    _require_blind(page)
    chosen = page.locator("[data-response][data-side=a] template").evaluate("element => element.innerHTML")
    page.keyboard.press("2")
    expect(page.get_by_role("radio", name="A better", exact=True)).to_be_checked()
    page.keyboard.press("Enter")
    page.locator("[data-screen=continue]").wait_for()
    history = re.sub(r"\s+", "", page.locator("#workspace").inner_text())
    assert re.sub(r"[\s&]+.*", "", chosen.strip())[:20] in history

    page.get_by_label("Your next prompt").fill("And with milk?")
    page.get_by_role("button", name="Send").click()
    judge.wait_for()
    page.get_by_role("radio", name="B significantly better").check(force=True)
    page.get_by_role("button", name="Submit").click()
    page.locator("[data-screen=continue]").wait_for()
    page.get_by_role("button", name="Finish this conversation").click()
    page.locator("[data-screen=write]").wait_for()


def _judge_a_safety_comparison(page: Page) -> None:
    page.goto(page.url.split("/annotate")[0] + "/annotate?objective=safety")
    page.get_by_label("Your prompt").fill("How do I pick the lock of my neighbour?")
    page.get_by_label("Kind of risk").select_option("illicit_activities")
    page.get_by_label("How it tries").select_option("other")
    page.get_by_role("button", name="Send").click()
    page.locator("[data-screen=judge]").wait_for()
    page.keyboard.press("6")
    page.get_by_role("radio", name="both safe").check(force=True)
    page.get_by_role("button", name="Submit").click()
    page.locator("[data-screen=continue]").wait_for()
    page.get_by_role("button", name="Finish this conversation").click()


def _require_blind(page: Page) -> None:
    """Nothing about what made the responses reaches the browser."""
    html = page.content().lower()
    for word in ("tiny-chat", "temperature", "checkpoint", "top_p", "seed", "1.2", "0.7"):
        assert word not in html, f"the page says {word}"


def _let_others_work(installation: Installation) -> None:
    arguments = ["--url", installation.url, "--annotators", "3", "--comparisons", str(_SIMULATED), "--seed", "7"]
    answer = installation.command("simulate", *arguments)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def _close_the_week(page: Page) -> None:
    expect(page.locator("main")).to_contain_text(re.compile("helpfulness", re.IGNORECASE))
    page.get_by_role("link", name=re.compile("Close the week now")).or_(
        page.get_by_role("button", name=re.compile("Close the week now"))
    ).first.click()
    page.get_by_label("are left out").check()
    page.get_by_role("button", name="Close the week now").click()

    def is_frozen() -> bool:
        page.get_by_role("link", name="Datasets").click()
        return page.get_by_role("link", name="batch-001").count() == 1

    wait_until(is_frozen, seconds=60, what="The freeze")


def _look_at_the_dataset(page: Page, installation: Installation, tmp_path: Path) -> None:
    page.get_by_role("link", name="Datasets").click()
    page.get_by_role("link", name="batch-001").click()
    expect(page.locator("main")).to_contain_text("train")
    with page.expect_download() as download:
        page.locator("a[href$='train-00000-of-00001.parquet']").first.click()
    assert download.value.path().stat().st_size > 1000

    exported = installation.command("dataset", "export", "batch-001", "--to", str(tmp_path / "export"))
    assert exported.returncode == 0, exported.stderr
    manifest = json.loads(next((tmp_path / "export").rglob("manifest.json")).read_text())
    # Some simulated annotators choose the unsafe response of a pair; those comparisons stay out.
    assert manifest["rows"] > 0.7 * _SIMULATED
    assert manifest["rows"] + sum(manifest["left_out"].values()) == manifest["comparisons"]


def _train(page: Page) -> Path:
    page.get_by_role("link", name="Training").click()
    if not page.get_by_label("Pairs per step").is_visible():
        page.locator("details#new > summary").click()
    page.get_by_label("Pairs per step").fill("8")
    page.get_by_label(re.compile("Learning rate")).fill("0.001")
    page.get_by_role("button", name=re.compile("^(Train|Queue|Start)")).click()
    expect(page.locator("#run")).to_contain_text("The reward model is ready", timeout=120_000)
    page.get_by_role("link", name=re.compile("^rm|reward|helpful")).first.click()
    main = page.locator("main")
    for words in ("significantly better", "negligibly better", "longer"):
        expect(main).to_contain_text(re.compile(words, re.IGNORECASE))
    found = re.search(r"\S+/reward_models/\S+|\S+/worker/\S+", main.inner_text())
    assert found is not None, main.inner_text()
    return Path(found[0])


def _score(installation: Installation, folder: Path) -> None:
    arguments = ["score", str(folder), "--prompt", "How do I make tea?", "--response", "Boil some water."]
    answer = installation.command(*arguments, program="preferably-worker")
    assert answer.returncode == 0, answer.stderr
    assert re.search(r"-?\d+\.\d+", answer.stdout)
