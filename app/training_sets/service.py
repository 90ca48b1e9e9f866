"""What trainers do with training sets: define one, describe it, write it to a folder."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app.accounts import audit
from app.database import Database
from app.datasets import service as datasets
from app.datasets import store
from app.datasets.api_examples import SET_WANTED
from app.errors import ConflictError, InvalidInputError, NotFoundError
from app.external import service as external
from app.models import ExternalDataset, Person, PreferenceDataset, TrainingSet, now
from app.settings import Settings
from app.training_sets import folder, queries
from app.training_sets.selection import Selection, Source, external_source, frozen_source
from contract.training_set import MemberKind, SetCounts, SetDefinition, SetDescription, SetFilter, SetManifest, set_name
from contract.vocabulary import MarginScheme


class SetNameTakenError(ConflictError):
    """There is a training set of this name already."""


class UnknownMemberError(InvalidInputError):
    """A training set was to have a member that does not exist, or two that do not go together."""


class EmptySetError(InvalidInputError):
    """Nothing is left to train on."""


class SetWanted(BaseModel):
    """The training set that somebody wants to define."""

    model_config = ConfigDict(
        extra="forbid", use_attribute_docstrings=True, json_schema_extra={"examples": [SET_WANTED]}
    )

    name: Annotated[str, AfterValidator(set_name)]
    frozen: list[str] = Field(default_factory=list, max_length=1000)
    """Frozen datasets, by name."""
    external: list[str] = Field(default_factory=list, max_length=1000)
    """External datasets, by name."""
    margin_scheme: MarginScheme = MarginScheme.SMALL
    keep: SetFilter = SetFilter()


def all_sets(session: Session) -> list[TrainingSet]:
    """Every training set, the newest first."""
    return queries.all_sets(session)


def get(session: Session, name: str) -> TrainingSet:
    """A training set by its name.

    Raises:
        NotFoundError: There is no such one.

    """
    row = queries.by_name(session, name)
    if row is None:
        msg = f"There is no training set {name}."
        raise NotFoundError(msg)
    return row


def description_of(row: TrainingSet) -> SetDescription:
    """Everything that decides what a training set is."""
    return SetDescription(
        name=row.name,
        digest=row.digest,
        definition=SetDefinition.model_validate(row.definition),
        counts=tuple(SetCounts.model_validate(count) for count in row.counts),
        created_at=row.created_at,
    )


def problems(session: Session, wanted: SetWanted) -> dict[str, str]:
    """Why a set cannot be defined: a message for each field that does not fit what there is."""
    found = {}
    if queries.by_name(session, wanted.name) is not None:
        found["name"] = f"there is a training set {wanted.name} already, and training sets never change."
    problem = _member_problem(session, wanted)
    if problem:
        found["members"] = problem
    return found


def define(
    database: Database,
    wanted: SetWanted,
    settings: Settings,
    *,
    actor: Person | None = None,
    token: str | None = None,
) -> SetDescription:
    """Define a training set and count its rows. Counting takes long, and holds no transaction.

    Raises:
        SetNameTakenError: There is one of this name.
        UnknownMemberError: A member does not exist, or two are versions of the same batch.
        EmptySetError: The filter leaves nothing to train on.

    """
    with database.read() as session:
        _require_free_name(session, wanted.name)
        sources = _sources_wanted(session, wanted, settings)
    definition = SetDefinition(
        members=tuple(source.member for source in sources), margin_scheme=wanted.margin_scheme, keep=wanted.keep
    )
    counts = Selection(definition, sources).count()
    if not any(count.train for count in counts):
        msg = "keep: the filter leaves no row to train on."
        raise EmptySetError(msg)
    with database.write() as session:
        _require_free_name(session, wanted.name)
        row = TrainingSet(
            name=wanted.name,
            digest=definition.digest(),
            definition=definition.model_dump(mode="json"),
            counts=[count.model_dump(mode="json") for count in counts],
            created_by=actor.id if actor is not None else None,
            created_at=now(),
        )
        session.add(row)
        by = {"token": token} if token is not None else {}
        audit.record(session, "training_set.defined", row.name, actor=actor, digest=row.digest, **by)
        return description_of(row)


def sources_of(session: Session, description: SetDescription, settings: Settings) -> list[Source]:
    """Where the files of a training set's members lie in this installation.

    Raises:
        UnknownMemberError: A member is not the one that the set was defined with.

    """
    members = description.definition.members
    found = [
        _frozen(datasets.get(session, member.name), settings)
        if member.kind is MemberKind.FROZEN
        else _external(external.get(session, member.name), settings)
        for member in members
    ]
    for member, source in zip(members, found, strict=True):
        if source.member != member:
            msg = f"{member.name} is not the dataset that {description.name} was defined with."
            raise UnknownMemberError(msg)
    return found


def write(
    description: SetDescription,
    sources: Sequence[Source],
    target: Path,
    on_rows: Callable[[int], None] = lambda _count: None,
) -> SetManifest:
    """Write a training set to ``target``, whole or not at all.

    Raises:
        TargetTakenError: Something else is there.
        DamagedMemberError: A file of a member is missing or is another one than its manifest says.

    """
    store.require_free(target)
    with store.draft_folder(target) as draft:
        return folder.write(draft, description, sources, on_rows)


def _require_free_name(session: Session, name: str) -> None:
    if queries.by_name(session, name) is not None:
        msg = f"name: there is a training set {name} already, and training sets never change. Choose another name."
        raise SetNameTakenError(msg)


def _member_problem(session: Session, wanted: SetWanted) -> str:
    """Why some datasets cannot be united; empty if they can."""
    frozen = queries.frozen_by_names(session, wanted.frozen)
    imported = queries.external_by_names(session, wanted.external)
    known = {row.name for row in frozen}, {row.name for row in imported}
    unknown = sorted({*wanted.frozen} - known[0]) + sorted({*wanted.external} - known[1])
    if unknown:
        return f"there is no dataset {' and no dataset '.join(unknown)}."
    if not frozen and not imported:
        return "choose at least one dataset."
    by_batch: dict[UUID, str] = {}
    for row in frozen:
        other = by_batch.setdefault(row.batch_id, row.name)
        if other != row.name:
            return f"{other} and {row.name} are versions of the same batch; choose one of them."
    return ""


def _sources_wanted(session: Session, wanted: SetWanted, settings: Settings) -> list[Source]:
    problem = _member_problem(session, wanted)
    if problem:
        msg = f"members: {problem}"
        raise UnknownMemberError(msg)
    frozen = queries.frozen_by_names(session, wanted.frozen)
    imported = queries.external_by_names(session, wanted.external)
    return [*(_frozen(row, settings) for row in frozen), *(_external(row, settings) for row in imported)]


def _frozen(row: PreferenceDataset, settings: Settings) -> Source:
    return frozen_source(datasets.folder_of(row, settings), datasets.manifest_of(row), row.manifest_sha256)


def _external(row: ExternalDataset, settings: Settings) -> Source:
    return external_source(external.folder_of(row, settings), external.manifest_of(row), row.manifest_sha256)
