"""``preferably prompts``: add prompts to the pool, and see what is in it."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from app.database import Database, connect, require_current_schema
from app.models import PoolPromptState
from app.pool import service
from app.pool.reading import Tags, read_prompts
from app.settings import Settings
from contract.errors import ContractError
from contract.vocabulary import AttackVector, Objective, RiskCategory

commands = typer.Typer(no_args_is_help=True, help="The prompt pool: prompts that annotators need not write.")

_OUT = Console(soft_wrap=True, highlight=False, markup=False)
_PROBLEMS_SHOWN = 20
_SOURCE_CHARACTERS = 200


class PromptsFileError(ContractError):
    """A file of prompts cannot be added; the message names the file and the lines."""


@commands.command()
def add(
    file: Annotated[Path, typer.Argument(help="A prompt a line, or JSON lines with turns.")],
    objective: Annotated[Objective, typer.Option(help="Of the lines that do not name one themselves.")],
    risk_category: Annotated[RiskCategory | None, typer.Option(help="Of safety prompts without one.")] = None,
    attack_vector: Annotated[AttackVector | None, typer.Option(help="Of safety prompts without one.")] = None,
) -> None:
    """Add the prompts of a file to the pool: all of them or, where a line is none, not one."""
    tags = Tags(objective, risk_category, attack_vector)
    with _installation() as (settings, database):
        prompts, problems = read_prompts(_text_of(file), tags, max_characters=settings.max_prompt_characters)
        if problems:
            shown = [*problems[:_PROBLEMS_SHOWN], *(["..."] if len(problems) > _PROBLEMS_SHOWN else [])]
            msg = f"{file}: {len(problems)} lines are no prompts, so nothing was added.\n" + "\n".join(shown)
            raise PromptsFileError(msg)
        with database.write() as session:
            added = service.add(session, prompts, source=file.name[:_SOURCE_CHARACTERS])
    _OUT.print(f"{added.added:,} prompts added, {added.known:,} known already.")


@commands.command("list")
def list_prompts() -> None:
    """Show how many prompts there are."""
    table = Table("objective", *(state.value for state in PoolPromptState))
    with _installation() as (_, database), database.read() as session:
        for objective, by_state in service.counts(session):
            table.add_row(objective.value, *(f"{by_state[state]:,}" for state in PoolPromptState))
    _OUT.print(table)


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{file} cannot be read: {error}."
        raise PromptsFileError(msg) from None


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
