"""The documentation is true: its commands exist, its links lead somewhere, every setting is described."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer

from app.cli import cli
from app.paths import ROOT
from app.settings import Settings
from model_worker.checkpoint_commands import demo_checkpoint, tiny_checkpoint
from model_worker.cli import app as worker_cli
from model_worker.reward.commands import score, train
from model_worker.settings import PREFIX as WORKER_PREFIX
from model_worker.settings import WorkerSettings

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PROGRAMS = {"preferably": cli, "preferably-worker": worker_cli}
# These commands are imported when they are called; what they accept is written where they live.
ELSEWHERE = {"train": train, "score": score, "demo-checkpoint": demo_checkpoint, "tiny-checkpoint": tiny_checkpoint}


def commands_of(page: Path) -> Iterator[list[str]]:
    """The words of every command of ours that a page gives, in blocks and in the text."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for code in re.findall(r"^[ ]*```.*?^[ ]*```|`[^`]+`", text, re.MULTILINE | re.DOTALL):
        for line in code.strip("`").splitlines():
            found = re.match(r"\s*(?:\S*/|docker compose .* app )?((?:preferably|preferably-worker|make) .*)", line)
            if found is not None:
                yield shlex.split(found[1], comments=True)


def options_of(words: list[str]) -> set[str]:
    """The options of the command that some words begin with, which must exist; empty for a group of commands."""
    command = typer.main.get_command(PROGRAMS[words[0]])
    name = ""
    for name in words[1:]:
        if not hasattr(command, "commands") or name.startswith("-"):
            break
        assert name in command.commands, f"{words[0]} has no command {name}"
        command = command.commands[name]
        if words[0] == "preferably-worker" and name in ELSEWHERE:
            single = typer.Typer()
            single.command()(ELSEWHERE[name])
            command = typer.main.get_command(single)
    context = click.Context(command) if isinstance(command, click.Command) else None
    parameters = command.get_params(context) if context is not None else command.params
    return {option for parameter in parameters for option in (*parameter.opts, *parameter.secondary_opts)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_is_named_exists(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    verbs = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    for words in commands_of(page):
        if words[0] == "make":
            named = {word.rstrip(",.;:") for word in words[1:] if "=" not in word}
            assert named <= verbs, f"make has no verb {named - verbs}"
            continue
        known = options_of(words)
        given = {word.split("=")[0] for word in words if word.startswith("--")}
        assert given <= known | {"--help"}, f"{' '.join(words)}: there is no {given - known}"


def test_the_commands_of_the_readme_are_found() -> None:
    """The test above would also pass if it found none."""
    found = {" ".join(words[:2]) for words in commands_of(ROOT / "README.md")}
    assert found >= {"make run", "make test", "preferably simulate", "preferably-worker train"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://", "#")):
            assert (page.parent / target.split("#")[0]).exists(), f"{target} does not exist"


def test_every_setting_is_described() -> None:
    described = re.findall(
        r"^\| `(PREFERABLY_\w+)` \|", (ROOT / "docs/settings.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    ours = {f"PREFERABLY_{field}".upper() for field in Settings.model_fields}
    ours |= {f"{WORKER_PREFIX}{field}".upper() for field in WorkerSettings.model_fields}
    elsewhere = {"PREFERABLY_TEST_POSTGRESQL", "PREFERABLY_PORT", "PREFERABLY_CHECKPOINTS_DIR"}
    assert sorted(described) == sorted(ours | elsewhere)


def test_the_index_of_decisions_is_complete() -> None:
    index = (ROOT / "docs/decisions/README.md").read_text(encoding="utf-8")
    pages = [page.name for page in (ROOT / "docs/decisions").glob("[0-9]*.md")]
    assert pages
    assert [name for name in pages if f"]({name})" not in index] == []


def test_documents_know_nothing_of_the_machine_they_were_written_on() -> None:
    for page in [*PAGES, ROOT / "Makefile", ROOT / "docker-compose.yml", ROOT / "pyproject.toml"]:
        found = re.search(r"(?<![\w.])/(?:work|root|home|tmp)/", page.read_text(encoding="utf-8"))
        assert found is None, f"{page.name} names {found and found[0]}"
