"""``preferably dataset sets`` and ``download-set``: training sets, here or at another installation."""

import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from app.datasets import download, store
from app.datasets.console import (
    OUT,
    TokenFileOption,
    UrlOption,
    UsageError,
    byte_progress,
    installation,
    remote_of,
    row_progress,
    show,
)
from app.datasets.remote import DownloadError, Remote
from app.training_sets import service
from app.training_sets.api import SetEntry
from app.training_sets.selection import Source, external_source, frozen_source
from contract.training_set import MemberKind, SetDescription, SetManifest, SetMember

_SETS = "training-sets"


def list_sets(url: UrlOption = None, token_file: TokenFileOption = None) -> None:
    """Show the training sets."""
    remote = remote_of(url, token_file)
    if remote is None:
        with installation() as (_, database), database.read() as session:
            entries = [SetEntry.of(service.description_of(row)) for row in service.all_sets(session)]
    else:
        entries = remote.parsed(list[SetEntry], _SETS)
    table = Table("name", "train", "test", "datasets", "digest")
    for entry in entries:
        table.add_row(entry.name, f"{entry.train:,}", f"{entry.test:,}", ", ".join(entry.members), entry.digest)
    show(table)


def download_set(
    name: Annotated[str, typer.Argument(help="The training set.")],
    to: Annotated[Path, typer.Option(help="The folder to make; it must not exist, or be empty.")],
    url: UrlOption = None,
    token_file: TokenFileOption = None,
) -> None:
    """Write a training set to a folder: Parquet files, manifest and card. The same set gives the same bytes.

    With --url, a transfer that broke off goes on where it stopped when the command is given again.
    """
    remote = remote_of(url, token_file)
    store.require_free(to)
    try:
        manifest = _write_from_here(name, to) if remote is None else _write_from(remote, name, to)
    except OSError as error:
        msg = f"{name} cannot be written to {to}: {error}."
        raise UsageError(msg) from error
    rows = sum(file.rows for file in manifest.files)
    OUT.print(f"{name}: {rows:,} rows in {len(manifest.files)} files in {to}. Digest {manifest.digest}")


def _write_from_here(name: str, target: Path) -> SetManifest:
    with installation() as (settings, database):
        with database.read() as session:
            description = service.description_of(service.get(session, name))
            sources = service.sources_of(session, description, settings)
        return _write(description, sources, target)


def _write_from(remote: Remote, name: str, target: Path) -> SetManifest:
    description = remote.parsed(SetDescription, _SETS, name)
    if description.definition.digest() != description.digest:
        msg = f"{name} arrived damaged: its digest is not that of its definition."
        raise DownloadError(msg)
    partial = download.partial_of(target)
    sources = [_fetched(remote, member, partial) for member in description.definition.members]
    manifest = _write(description, sources, target)
    shutil.rmtree(partial)
    return manifest


def _fetched(remote: Remote, member: SetMember, partial: Path) -> Source:
    """A member whose files are here, and are those that the set was defined with."""
    folder = partial / member.kind / member.name
    if not folder.resolve().is_relative_to(partial.resolve()):
        msg = f"{member.name} cannot be the name of a dataset."
        raise DownloadError(msg)
    if member.kind is MemberKind.FROZEN:
        frozen_manifest, found = download.frozen(remote, member.name)
        source = frozen_source(folder, frozen_manifest, found.manifest_sha256)
    else:
        external_manifest, found = download.external(remote, member.name)
        source = external_source(folder, external_manifest, found.manifest_sha256)
    if source.member != member:
        msg = f"{member.name} over there is not the dataset that the training set was defined with."
        raise DownloadError(msg)
    with byte_progress(member.name, found.bytes) as on_bytes:
        found.fetch_into(folder, on_bytes)
    return source


def _write(description: SetDescription, sources: list[Source], target: Path) -> SetManifest:
    with row_progress(description.name, sum(count.train + count.test for count in description.counts)) as on_rows:
        return service.write(description, sources, target, on_rows)
