"""``preferably dataset``: list, export and verify preference datasets."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from app.database import Database, connect, require_current_schema
from app.datasets import service, verify
from app.datasets.download import Download
from app.settings import Settings
from contract.dataset import MANIFEST_FILE, Manifest
from contract.errors import ContractError

commands = typer.Typer(
    no_args_is_help=True, help="Preference datasets: list what is frozen, export it, check a copy of it."
)

_OUT = Console(soft_wrap=True, highlight=False, markup=False)
_ERR = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


class UsageError(ContractError):
    """The command's options do not go together, or name something that is not there."""


@commands.command("list")
def list_datasets() -> None:
    """Show the datasets of this installation."""
    table = Table("name", "batch", "rows", "frozen at (UTC)", "sha256 of the manifest")
    with _installation() as (_, database), database.read() as session:
        for dataset, batch in service.all_datasets(session):
            table.add_row(
                dataset.name,
                str(batch.number),
                f"{dataset.rows:,}",
                f"{dataset.frozen_at:%Y-%m-%d %H:%M}",
                dataset.manifest_sha256,
            )
    _OUT.print(table)


@commands.command()
def export(
    name: Annotated[str, typer.Argument(help="The dataset, for example batch-001.")],
    to: Annotated[Path, typer.Option(help="The folder to make; it must not exist, or be empty.")],
    url: Annotated[str | None, typer.Option(help="Fetch from the installation at this address instead.")] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="A file with an API token of the scope datasets; goes with --url.")
    ] = None,
) -> None:
    """Write a dataset to a folder, byte for byte as it was frozen, and check it."""
    if (url is None) != (token_file is None):
        msg = "--url and --token-file go together: give both, or neither to export from this installation."
        raise UsageError(msg)
    try:
        if url is not None and token_file is not None:
            manifest = _export_from_url(name, to, url, token_file)
        else:
            manifest = _export_from_here(name, to)
    except OSError as error:
        msg = f"{name} cannot be written to {to}: {error}."
        raise UsageError(msg) from error
    _OUT.print(f"{name}: {manifest.rows:,} rows in {len(manifest.files)} files, verified, in {to}")


@commands.command("verify")
def verify_dataset(
    folder: Annotated[Path, typer.Argument(help="A dataset folder.")],
    sha256: Annotated[str | None, typer.Option(help="The sha256 that its manifest must have.")] = None,
) -> None:
    """Check a dataset folder: manifest, files, sha256 and rows. Exits with 1 if something is wrong."""
    problems = verify.verify_folder(folder, manifest_sha256=sha256)
    for problem in problems:
        _ERR.print(problem, style="red")
    if problems:
        raise typer.Exit(1)
    manifest = Manifest.model_validate_json((folder / MANIFEST_FILE).read_bytes())
    _OUT.print(f"{manifest.name}: {manifest.rows:,} rows in {len(manifest.files)} files are as they were frozen.")


def _export_from_here(name: str, target: Path) -> Manifest:
    with _installation() as (settings, database), database.read() as session:
        dataset = service.get(session, name)
        manifest = service.manifest_of(dataset)
        with _progress(manifest) as on_bytes:
            problems = service.export(session, dataset, target, settings, on_bytes)
    for problem in problems:
        _ERR.print(f"The stored folder is damaged: {problem}", style="yellow")
    if problems:
        _ERR.print("The export was made again from the database; its bytes are those of the freeze.", style="yellow")
    return manifest


def _export_from_url(name: str, target: Path, url: str, token_file: Path) -> Manifest:
    if not token_file.is_file():
        msg = f"--token-file: there is no file {token_file}."
        raise UsageError(msg)
    download = Download(url, token_file.read_text(encoding="utf-8").strip(), name)
    with _progress(download.manifest) as on_bytes:
        download.save(target, on_bytes)
    return download.manifest


@contextmanager
def _installation() -> Generator[tuple[Settings, Database]]:
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
def _progress(manifest: Manifest) -> Generator[Callable[[int], None]]:
    """A bar over the bytes of a dataset."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_ERR, transient=True, disable=not _ERR.is_terminal) as progress:
        task = progress.add_task(manifest.name, total=sum(file.bytes for file in manifest.files))
        yield lambda count: progress.advance(task, count)
