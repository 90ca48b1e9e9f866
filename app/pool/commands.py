"""``preferably prompts``: add prompts to the pool, and see what is in it."""

import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.table import Table

from app.database import Database, connect, require_current_schema
from app.models import PoolPromptState
from app.pool import service
from app.pool.drafts import Draft, Wanted
from app.pool.reading import SOURCE_CHARACTERS, Tags, Words
from app.pool.sources import WrittenAs
from app.settings import Settings
from contract.errors import ContractError
from contract.vocabulary import AttackVector, Objective, RiskCategory

commands = typer.Typer(no_args_is_help=True, help="The prompt pool: prompts that annotators need not write.")

_OUT = Console(soft_wrap=True, highlight=False, markup=False)
_PROBLEMS_SHOWN = 20
_PROMPTS_SHOWN = 5
_CHARACTERS_SHOWN = 100
_WORDS = TypeAdapter[tuple[str, ...]](Words)


class PromptsFileError(ContractError):
    """A file of prompts cannot be added; the message names the file and the lines."""


@commands.command()
def add(
    file: Annotated[Path, typer.Argument(help="CSV with a header, JSON lines, or a prompt a line.")],
    objective: Annotated[Objective, typer.Option(help="Of the prompts that do not name one themselves.")],
    risk_category: Annotated[RiskCategory | None, typer.Option(help="Of safety prompts without one.")] = None,
    attack_vector: Annotated[AttackVector | None, typer.Option(help="Of safety prompts without one.")] = None,
    tags: Annotated[str, typer.Option(help="Tags of all of them, with commas between.")] = "",
    source: Annotated[str, typer.Option(help="Of those that do not name one; otherwise the file's name.")] = "",
    form: Annotated[WrittenAs | None, typer.Option(help="Told by name and content, if it is not said.")] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what the file holds.")] = False,
) -> None:
    """Add the prompts of a file to the pool: all of them or, where a line is none, not one."""
    try:
        words = _WORDS.validate_python(tags)
    except ValidationError as error:
        msg = f"--tags: {error.errors()[0]['msg']}."
        raise PromptsFileError(msg) from None
    wanted = Wanted(
        tags=Tags(objective, risk_category, attack_vector, words), source=source[:SOURCE_CHARACTERS], form=form
    )
    with _installation() as (settings, database):
        draft = _checked(database, settings, wanted, file)
        try:
            if draft.problem_count:
                raise PromptsFileError(_complaint(file, draft))
            if dry_run:
                _report(draft)
                return
            began = time.perf_counter()
            with database.write() as session:
                added = service.confirm(session, draft, settings)
            seconds = draft.seconds + time.perf_counter() - began
        finally:
            service.discard(draft.id, settings)
    _OUT.print(f"{added.added:,} prompts added, {added.known:,} known already, in {seconds:.1f} s.")


@commands.command("list")
def list_prompts() -> None:
    """Show how many prompts there are."""
    table = Table("objective", *(state.value for state in PoolPromptState))
    with _installation() as (_, database), database.read() as session:
        for objective, by_state in service.counts(session):
            table.add_row(objective.value, *(f"{by_state[state]:,}" for state in PoolPromptState))
    _OUT.print(table)


def _checked(database: Database, settings: Settings, wanted: Wanted, file: Path) -> Draft:
    try:
        with file.open("rb") as stream:
            return service.check(database, settings, wanted, stream, file.name[:SOURCE_CHARACTERS])
    except OSError as error:
        msg = f"{file} cannot be read: {error}."
        raise PromptsFileError(msg) from None


def _complaint(file: Path, draft: Draft) -> str:
    shown = draft.problems[:_PROBLEMS_SHOWN]
    more = ["..."] if draft.problem_count > len(shown) else []
    problems = "1 problem" if draft.problem_count == 1 else f"{draft.problem_count:,} problems"
    return f"{file}: {problems}, so nothing was added.\n" + "\n".join([*shown, *more])


def _report(draft: Draft) -> None:
    _OUT.print(
        f"{draft.name}: {draft.new:,} new, {draft.known:,} in the pool already, {draft.duplicates:,} said "
        f"by an earlier line; checked in {draft.seconds:.1f} s. Nothing was added."
    )
    for one in draft.first_duplicates:
        _OUT.print(f"  line {one.line} says the same as line {one.of_line}")
    if draft.passed_over:
        _OUT.print(f"  columns passed over: {', '.join(draft.passed_over)}")
    for first in draft.first[:_PROMPTS_SHOWN]:
        tags = first.prompt.tags
        about = [tags.objective, tags.risk_category, tags.attack_vector, *tags.words]
        state = "known" if first.is_known else "new"
        _OUT.print(f"  {state} ({', '.join(filter(None, about))}): {first.prompt.turns[0][:_CHARACTERS_SHOWN]}")


@contextmanager
def _installation() -> Generator[tuple[Settings, Database]]:
    """The settings and the database of this machine's installation."""
    settings = Settings()
    database = connect(settings.database_url)
    try:
        require_current_schema(database, settings.database_url)
        yield settings, database
    finally:
        database.dispose()
