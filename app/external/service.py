"""Imports external datasets, and gives them out unchanged."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

from sqlalchemy.orm import Session

from app.accounts import audit
from app.datasets import parquet, store
from app.errors import ConflictError, InvalidInputError, NotFoundError
from app.external import drafts, queries
from app.external.drafts import Draft, Wanted
from app.models import ExternalDataset, Person, now
from app.settings import Settings
from contract.dataset import MANIFEST_FILE
from contract.external import ExternalManifest


class NameTakenError(ConflictError):
    """There is an external dataset of this name already."""


class NotImportableError(InvalidInputError):
    """Rows of the file are malformed, or none is usable."""


def root_of(settings: Settings) -> Path:
    """The folder of external datasets, apart from the frozen ones."""
    return settings.datasets_root / "external"


def folder_of(dataset: ExternalDataset, settings: Settings) -> Path:
    """Where the files of an external dataset lie."""
    return root_of(settings) / dataset.name


def all_datasets(session: Session) -> list[ExternalDataset]:
    """Every external dataset, by name."""
    return queries.all_datasets(session)


def get(session: Session, name: str) -> ExternalDataset:
    """An external dataset by its name.

    Raises:
        NotFoundError: There is no such one.

    """
    dataset = queries.by_name(session, name)
    if dataset is None:
        msg = f"There is no external dataset {name}."
        raise NotFoundError(msg)
    return dataset


def manifest_of(dataset: ExternalDataset) -> ExternalManifest:
    """The manifest of an external dataset, as the database keeps it."""
    return ExternalManifest.model_validate(dataset.manifest)


def require_free_name(session: Session, name: str) -> None:
    """Refuse a name that is taken: what a name means never changes.

    Raises:
        NameTakenError: It is.

    """
    if queries.by_name(session, name) is not None:
        msg = f"name: there is an external dataset {name} already, and datasets never change. Choose another name."
        raise NameTakenError(msg)


def check(
    wanted: Wanted,
    source: Path | BinaryIO,
    source_file: str,
    settings: Settings,
    on_row: Callable[[], None] = lambda: None,
) -> Draft:
    """Check a file, which takes long for a large one: the caller holds no transaction.

    Raises:
        SourceFileError: The file as a whole cannot be read.

    """
    return drafts.check(root_of(settings), wanted, source, source_file, on_row)


def draft_of(draft_id: UUID, settings: Settings) -> Draft:
    """An import that waits to be confirmed.

    Raises:
        NoSuchImportError: There is none, or none any more.

    """
    return drafts.get(root_of(settings), draft_id)


def discard(draft_id: UUID, settings: Settings) -> None:
    """Throw away an import that waits to be confirmed."""
    drafts.discard(root_of(settings), draft_id)


def confirm(session: Session, draft: Draft, settings: Settings, *, actor: Person | None = None) -> ExternalDataset:
    """Import what was checked.

    Raises:
        NameTakenError: Somebody imported something of this name meanwhile.
        NotImportableError: Rows of the file are malformed, or none is usable.

    """
    require_free_name(session, draft.wanted.name)
    if not draft.is_importable:
        count = draft.normalised.problem_count
        rows = f"{count:,} row{'s are' if count > 1 else ' is'} malformed" if count else "no row is usable"
        msg = f"{draft.source_file} cannot be imported: {rows}."
        raise NotImportableError(msg)
    manifest = _manifest(draft)
    content = (manifest.model_dump_json(indent=2) + "\n").encode()
    dataset = ExternalDataset(
        name=manifest.name,
        source_format=manifest.source_format,
        source_sha256=manifest.source_sha256,
        manifest_sha256=hashlib.sha256(content).hexdigest(),
        manifest=manifest.model_dump(mode="json"),
        rows=manifest.rows,
        objective=manifest.objective,
        licence=manifest.licence,
        source=manifest.source,
        created_by=actor.id if actor is not None else None,
        created_at=manifest.imported_at,
    )
    session.add(dataset)
    audit.record(session, "external_dataset.imported", dataset.name, actor=actor, rows=dataset.rows)
    # The database refuses a second one of the same name before its folder could replace the first one's.
    session.flush()
    target = folder_of(dataset, settings)
    with store.draft_folder(target) as folder:
        for file in manifest.files:
            drafts.file_of(root_of(settings), draft, file.path).rename(folder / file.path)
        (folder / MANIFEST_FILE).write_bytes(content)
    drafts.discard(root_of(settings), draft.id)
    return dataset


def file_of(dataset: ExternalDataset, name: str, settings: Settings) -> Path:
    """One file of an external dataset, by a name that somebody else gave.

    Raises:
        NoSuchFileError: The dataset has no such file.

    """
    known = {MANIFEST_FILE, *(file.path for file in manifest_of(dataset).files)}
    folder = folder_of(dataset, settings)
    path = folder / name
    # Only names that the manifest lists exist, and a link is not followed out of the folder.
    if name not in known or path.resolve() != folder.resolve() / name or not path.is_file():
        msg = f"The external dataset {dataset.name} has no such file in the store of this installation."
        raise store.NoSuchFileError(msg)
    return path


def first_rows(dataset: ExternalDataset, settings: Settings, *, limit: int) -> list[dict[str, object]]:
    """Some rows; none where the stored folder is missing."""
    for file in manifest_of(dataset).files:
        place = folder_of(dataset, settings) / file.path
        if place.is_file():
            return parquet.first_rows(place, limit)
    return []


def _manifest(draft: Draft) -> ExternalManifest:
    found, wanted = draft.normalised, draft.wanted
    return ExternalManifest(
        name=wanted.name,
        source_file=draft.source_file,
        source_sha256=found.source_sha256,
        source_format=found.source_format,
        forms=found.forms,
        objective=wanted.objective,
        licence=wanted.licence,
        source=wanted.source,
        rows=found.rows,
        duplicates=found.duplicates,
        left_out=found.left_out,
        imported_at=now(),
        files=tuple(found.files),
    )
