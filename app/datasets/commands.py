"""``preferably dataset``: list, describe, export and verify preference datasets, here or at another installation."""

import shutil
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.table import Table

from app.datasets import download, service, store, text_forms, verify
from app.datasets.api import DatasetEntry
from app.datasets.console import (
    ERR,
    OUT,
    TokenFileOption,
    UrlOption,
    UsageError,
    byte_progress,
    installation,
    remote_of,
    show,
    warn,
)
from app.datasets.remote import Remote
from app.datasets.text_forms import TextForm
from contract.dataset import MANIFEST_FILE, Manifest

commands = typer.Typer(
    no_args_is_help=True,
    help="Preference datasets, frozen and external, and training sets: list, describe, export, import, check.",
)


class ExportForm(StrEnum):
    """How a dataset is written to a folder."""

    PARQUET = "parquet"
    JSONL = TextForm.JSONL.value
    HH = TextForm.HH.value


@commands.command("list")
def list_datasets(url: UrlOption = None, token_file: TokenFileOption = None) -> None:
    """Show the frozen datasets."""
    remote = remote_of(url, token_file)
    table = Table("name", "batch", "rows", "frozen at (UTC)", "sha256 of the manifest")
    for entry in _entries_here() if remote is None else remote.parsed(list[DatasetEntry], download.FROZEN):
        moment = f"{entry.frozen_at:%Y-%m-%d %H:%M}"
        table.add_row(entry.name, str(entry.batch), f"{entry.rows:,}", moment, entry.manifest_sha256)
    show(table)


@commands.command()
def describe(
    name: Annotated[str, typer.Argument(help="The dataset, for example batch-001.")],
    url: UrlOption = None,
    token_file: TokenFileOption = None,
) -> None:
    """Show what a frozen dataset holds: its rows by label, what was left out, its checkpoints and its files."""
    remote = remote_of(url, token_file)
    if remote is None:
        with installation() as (_, database), database.read() as session:
            manifest = service.manifest_of(service.get(session, name))
    else:
        manifest, _ = download.frozen(remote, name)
    for table in _tables(manifest):
        show(table)


@commands.command()
def export(
    name: Annotated[str, typer.Argument(help="The dataset, for example batch-001.")],
    to: Annotated[Path, typer.Option(help="The folder to make; it must not exist, or be empty.")],
    form: Annotated[ExportForm, typer.Option(help="As it was frozen, or as text.")] = ExportForm.PARQUET,
    url: UrlOption = None,
    token_file: TokenFileOption = None,
) -> None:
    """Write a dataset to a folder, byte for byte as it was frozen, and check it.

    With --form jsonl or hh, the checked rows are then written as text, one file for each objective and split.

    With --url, a transfer that broke off goes on where it stopped when the command is given again.
    """
    remote = remote_of(url, token_file)
    try:
        if form is not ExportForm.PARQUET:
            _export_as_text(remote, name, to, TextForm(form))
            return
        manifest = _export(remote, name, to)
    except OSError as error:
        msg = f"{name} cannot be written to {to}: {error}."
        raise UsageError(msg) from error
    OUT.print(f"{name}: {manifest.rows:,} rows in {len(manifest.files)} files, verified, in {to}")


@commands.command("verify")
def verify_dataset(
    folder: Annotated[Path, typer.Argument(help="A dataset folder.")],
    sha256: Annotated[str | None, typer.Option(help="The sha256 that its manifest must have.")] = None,
) -> None:
    """Check a dataset folder: manifest, files, sha256 and rows. Exits with 1 if something is wrong."""
    problems = verify.verify_folder(folder, manifest_sha256=sha256)
    for problem in problems:
        ERR.print(problem, style="red")
    if problems:
        raise typer.Exit(1)
    manifest = Manifest.model_validate_json((folder / MANIFEST_FILE).read_bytes())
    OUT.print(f"{manifest.name}: {manifest.rows:,} rows in {len(manifest.files)} files are as they were frozen.")


def _entries_here() -> list[DatasetEntry]:
    with installation() as (_, database), database.read() as session:
        return [DatasetEntry.of(dataset, batch) for dataset, batch in service.all_datasets(session)]


def _export(remote: Remote | None, name: str, target: Path) -> Manifest:
    return _export_from_here(name, target) if remote is None else _export_from(remote, name, target)


def _export_as_text(remote: Remote | None, name: str, target: Path, form: TextForm) -> None:
    store.require_free(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.parquet-") as working:
        frozen = Path(working) / name
        manifest = _export(remote, name, frozen)
        with store.draft_folder(target.absolute()) as folder:
            rows = text_forms.write(frozen, manifest, folder, form)
            # It says where the rows come from; the files that it lists are the frozen ones.
            shutil.copyfile(frozen / MANIFEST_FILE, folder / f"frozen-{MANIFEST_FILE}")
    if rows < manifest.rows:
        warn(f"{manifest.rows - rows:,} rows cannot be said so and were left out; see docs/dataset-format.md.")
    OUT.print(f"{name}: {rows:,} rows as {form} in {target}")


def _export_from_here(name: str, target: Path) -> Manifest:
    with installation() as (settings, database), database.read() as session:
        dataset = service.get(session, name)
        manifest = service.manifest_of(dataset)
        with byte_progress(name, sum(file.bytes for file in manifest.files)) as on_bytes:
            problems = service.export(session, dataset, target, settings, on_bytes)
    for problem in problems:
        warn(f"The stored folder is damaged: {problem}")
    if problems:
        warn("The export was made again from the database; its bytes are those of the freeze.")
    return manifest


def _export_from(remote: Remote, name: str, target: Path) -> Manifest:
    manifest, found = download.frozen(remote, name)
    with byte_progress(name, found.bytes) as on_bytes:
        download.save(found, target, on_bytes)
    return manifest


def _tables(manifest: Manifest) -> Iterable[Table]:
    about = Table("", manifest.name, show_lines=False)
    for word, value in (
        ("batches", ", ".join(map(str, manifest.batches))),
        ("frozen at (UTC)", f"{manifest.frozen_at:%Y-%m-%d %H:%M}"),
        ("corrects", manifest.parent or "-"),
        ("rows", f"{manifest.rows:,} of {manifest.comparisons:,} comparisons"),
        ("left out", ", ".join(f"{reason} {count:,}" for reason, count in manifest.left_out.items()) or "-"),
        ("margin scheme", manifest.margin_scheme),
        ("checkpoints", ", ".join(f"{entry.name} ({entry.digest[:12]})" for entry in manifest.checkpoints) or "-"),
    ):
        about.add_row(word, value)
    yield about
    counts = Table("objective", "split", "rows", "by strength")
    for count in manifest.counts:
        strengths = ", ".join(f"{strength} {rows:,}" for strength, rows in count.by_strength.items())
        counts.add_row(count.objective, count.split, f"{count.rows:,}", strengths)
    yield counts
    files = Table("file", "rows", "bytes", "sha256")
    for file in manifest.files:
        files.add_row(file.path, f"{file.rows:,}", f"{file.bytes:,}", file.sha256)
    yield files
