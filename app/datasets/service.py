"""Gives frozen preference datasets out, unchanged; where a folder is lost, makes it again from the database."""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from app.datasets import left_out, parquet, queries, store
from app.datasets import survey as surveying
from app.datasets.folder import FolderMaker, Identity
from app.datasets.remote_store import RemoteStore, StoreUnreachableError
from app.datasets.verify import verify_folder
from app.errors import ConflictError, NotFoundError
from app.models import Batch, PreferenceDataset
from app.settings import Settings
from contract.dataset import Manifest
from contract.vocabulary import Objective


class NotReproducibleError(ConflictError):
    """The database no longer gives the bytes that were frozen."""


def all_datasets(session: Session) -> list[tuple[PreferenceDataset, Batch]]:
    """Every dataset with its batch, the newest first."""
    return queries.all_datasets(session)


def get(session: Session, name: str) -> PreferenceDataset:
    """A dataset by its name.

    Raises:
        NotFoundError: There is no such dataset.

    """
    dataset = queries.by_name(session, name)
    if dataset is None:
        msg = f"There is no dataset {name}."
        raise NotFoundError(msg)
    return dataset


def manifest_of(dataset: PreferenceDataset) -> Manifest:
    """The manifest of a dataset, as the database keeps it."""
    return Manifest.model_validate(dataset.manifest)


def folder_of(dataset: PreferenceDataset, settings: Settings) -> Path:
    """Where the files of a dataset lie on this machine; fetched from the store elsewhere where they do not yet.

    Raises:
        StoreUnreachableError: They are only elsewhere, and cannot be fetched.

    """
    folder = settings.datasets_root / dataset.name
    if settings.dataset_store and not folder.is_dir():
        RemoteStore(settings.dataset_store).fetch(manifest_of(dataset), dataset.manifest_sha256, folder)
    return folder


def file_of(dataset: PreferenceDataset, name: str, settings: Settings) -> Path:
    """One file of a dataset, by a name that somebody else gave.

    Raises:
        NoSuchFileError: The dataset has no such file.

    """
    return store.file_of(folder_of(dataset, settings), manifest_of(dataset), name)


def first_rows(
    dataset: PreferenceDataset, objective: Objective | None, settings: Settings, *, limit: int
) -> list[dict[str, Any]]:
    """Some rows of an objective, in the order of the files; none where the stored folder is missing."""
    rows: list[dict[str, Any]] = []
    for file in manifest_of(dataset).files:
        place = folder_of(dataset, settings) / file.path
        if file.objective is objective and len(rows) < limit and place.is_file():
            rows += [row | {"split": file.split} for row in parquet.first_rows(place, limit - len(rows))]
    return rows


def export(
    session: Session,
    dataset: PreferenceDataset,
    target: Path,
    settings: Settings,
    on_bytes: Callable[[int], None] = lambda _count: None,
) -> list[str]:
    """Put a dataset into ``target``, byte for byte as it was frozen.

    The stored folder is checked and copied; where it is missing or damaged, the dataset is made again from
    the database. ``on_bytes`` hears how many bytes were copied. Gives what was wrong with the stored folder.

    Raises:
        TargetTakenError: Something else is there.
        NotReproducibleError: The stored folder is damaged and the database no longer gives the same bytes.

    """
    store.require_free(target)
    try:
        stored = folder_of(dataset, settings)
    except StoreUnreachableError as error:
        recreate(session, dataset, target, settings)
        return [error.message]
    problems = verify_folder(stored, manifest_sha256=dataset.manifest_sha256)
    if problems:
        recreate(session, dataset, target, settings)
        return problems
    with store.draft_folder(target) as draft:
        for name in store.file_names(manifest_of(dataset)):
            (draft / name).parent.mkdir(exist_ok=True)
            store.write_chunks(draft / name, store.chunks_of(stored / name), on_bytes)
        damaged = verify_folder(draft, manifest_sha256=dataset.manifest_sha256)
        if damaged:
            msg = f"The copy of {dataset.name} is damaged: {damaged[0]} Nothing was written; check the disk."
            raise ConflictError(msg)
    return []


def rules_of(batch: Batch, excluded: Iterable[UUID]) -> left_out.Rules:
    """What a batch's dataset takes, with these annotators excluded."""
    return left_out.Rules(excluded=frozenset(excluded), is_review_complete=batch.review_share >= 1)


def before_of(session: Session, batch: Batch, parent_id: UUID | None) -> left_out.Rules | None:
    """The rules of a dataset's parent, if it has one."""
    if parent_id is None:
        return None
    parent = session.get_one(PreferenceDataset, parent_id)
    return rules_of(batch, map(UUID, parent.excluded_annotators))


def recreate(session: Session, dataset: PreferenceDataset, target: Path, settings: Settings) -> None:
    """Make a dataset again from the database alone, with the same bytes.

    Raises:
        TargetTakenError: Something else is there.
        NotReproducibleError: The bytes would differ; nothing is written then.

    """
    store.require_free(target)
    batch = session.get_one(Batch, dataset.batch_id)
    rules = rules_of(batch, [UUID(person_id) for person_id in dataset.excluded_annotators])
    manifest = manifest_of(dataset)
    identity = Identity(
        name=dataset.name,
        version=dataset.version,
        parent=manifest.parent,
        frozen_at=dataset.frozen_at,
        licence=manifest.licence,
        before=before_of(session, batch, dataset.parent_id),
        format_version=manifest.format_version,
    )
    survey = surveying.survey(session, batch, rules, before=identity.before)
    sides = queries.splits(session, batch.id)
    maker = FolderMaker(session, batch, identity, rules, settings.pseudonym_secret.get_secret_value())
    with store.draft_folder(target) as draft:
        _, content = maker.write(draft, survey, sides)
        if hashlib.sha256(content).hexdigest() != dataset.manifest_sha256:
            msg = (
                f"{dataset.name} cannot be made again with the same bytes: the pseudonym secret or the version of "
                "pyarrow is another one than at the freeze, or rows in the database were changed by hand. "
                f"Restore the folder {settings.datasets_root / dataset.name} from a backup."
            )
            raise NotReproducibleError(msg)
