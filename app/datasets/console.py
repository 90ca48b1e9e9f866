"""What the ``preferably dataset`` commands share: the terminal, the installation, and bars that show progress."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from app.database import Database, connect, require_current_schema
from app.datasets.remote import Remote
from app.settings import Settings
from contract.errors import ContractError

OUT = Console(soft_wrap=True, highlight=False, markup=False)
ERR = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)

_WIDEST = 1000
UrlOption = Annotated[str | None, typer.Option(help="Ask the installation at this address instead of this machine's.")]
TokenFileOption = Annotated[
    Path | None, typer.Option(help="A file with an API token of the scope datasets; goes with --url.")
]


class UsageError(ContractError):
    """The command's options do not go together, or name something that is not there."""


def remote_of(url: str | None, token_file: Path | None) -> Remote | None:
    """The other installation that the options name; ``None`` for this machine's own.

    Raises:
        UsageError: Only one of the two is given, or there is no such file.

    """
    if (url is None) != (token_file is None):
        msg = "--url and --token-file go together: give both, or neither for the installation of this machine."
        raise UsageError(msg)
    if url is None or token_file is None:
        return None
    if not token_file.is_file():
        msg = f"--token-file: there is no file {token_file}."
        raise UsageError(msg)
    return Remote(url, token_file.read_text(encoding="utf-8").strip(), say=warn)


def show(table: Table) -> None:
    """Print a table as wide as it is: a digest that is broken into lines cannot be copied."""
    width = OUT.measure(table, options=OUT.options.update(width=_WIDEST)).maximum
    Console(width=width, highlight=False, markup=False).print(table)


def warn(message: str) -> None:
    """Say something that is not the command's result."""
    ERR.print(message, style="yellow")


@contextmanager
def installation() -> Generator[tuple[Settings, Database]]:
    """The settings and the database of this machine's installation."""
    settings = Settings()
    settings.ensure_secrets()
    database = connect(settings.database_url)
    try:
        require_current_schema(database, settings.database_url)
        yield settings, database
    finally:
        database.dispose()


@contextmanager
def byte_progress(name: str, total: int) -> Generator[Callable[[int], None]]:
    """A bar over bytes."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=ERR, transient=True, disable=not ERR.is_terminal) as progress:
        task = progress.add_task(name, total=total)
        yield lambda count: progress.advance(task, count)


@contextmanager
def row_progress(name: str, total: int | None = None) -> Generator[Callable[[int], None]]:
    """A bar over rows, or a count of them where nobody knows how many there will be."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("rows"))
    with Progress(*columns, console=ERR, transient=True, disable=not ERR.is_terminal) as progress:
        task = progress.add_task(name, total=total)
        yield lambda count: progress.advance(task, count)
