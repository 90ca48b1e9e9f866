"""The SQL of the prompt pool and of the stock that is made from it."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice, product
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Text, cast, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, selectinload

from app.models import (
    Batch,
    BatchTarget,
    Comparison,
    ComparisonState,
    Conversation,
    Person,
    PersonRole,
    PoolPrompt,
    PoolPromptState,
    PromptSource,
    SamplingJob,
    WorkDay,
)
from contract.vocabulary import Objective

_ROWS_AT_ONCE = 500
_DIGESTS_AT_ONCE = 5000
_UNJUDGED = (ComparisonState.SAMPLING, ComparisonState.READY)


@dataclass(frozen=True)
class Filter:
    """Which prompts of the pool somebody looks for."""

    objective: Objective | None = None
    state: PoolPromptState | None = None
    text: str = ""
    tag: str = ""

    def conditions(self) -> Iterable[ColumnElement[bool]]:
        """The conditions that such prompts meet."""
        if self.objective is not None:
            yield PoolPrompt.objective == self.objective
        if self.state is not None:
            yield PoolPrompt.state == self.state
        if self.text:
            # Turns are stored as JSON, in which some characters are written as escapes: so must be what is sought.
            yield cast(PoolPrompt.turns, Text).icontains(json.dumps(self.text)[1:-1], autoescape=True)
        if self.tag:
            # Tags are a JSON list, too; the quotes around one tell it from a longer one.
            yield cast(PoolPrompt.tags, Text).contains(json.dumps(self.tag), autoescape=True)


def known(session: Session, objective: Objective, digests: Iterable[str]) -> Iterator[str]:
    """Those of the digests that an objective has had before."""
    remaining = iter(digests)
    while chunk := list(islice(remaining, _DIGESTS_AT_ONCE)):
        yield from session.scalars(
            select(PoolPrompt.digest).where(PoolPrompt.objective == objective, PoolPrompt.digest.in_(chunk))
        )


def add(session: Session, rows: Iterable[dict[str, Any]]) -> int:
    """Add prompts and say how many; those that are there already, or are being added by somebody else, are not."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    statement = insert(PoolPrompt).on_conflict_do_nothing().returning(PoolPrompt.id)
    remaining = iter(rows)
    added = 0
    while chunk := list(islice(remaining, _ROWS_AT_ONCE)):
        added += len(session.execute(statement, chunk).all())
    return added


def counts(session: Session) -> dict[tuple[Objective, PoolPromptState], int]:
    """How many prompts there are of each objective and state."""
    rows = session.execute(
        select(PoolPrompt.objective, PoolPrompt.state, func.count()).group_by(PoolPrompt.objective, PoolPrompt.state)
    )
    found = {(objective, state): count for objective, state, count in rows}
    return {key: found.get(key, 0) for key in product(Objective, PoolPromptState)}


def count(session: Session, wanted: Filter) -> int:
    """How many prompts match."""
    return session.scalar(select(func.count()).select_from(PoolPrompt).where(*wanted.conditions())) or 0


def newest(session: Session, wanted: Filter, *, limit: int, offset: int) -> list[PoolPrompt]:
    """The prompts that match, the newest first."""
    return list(
        session.scalars(
            select(PoolPrompt).where(*wanted.conditions()).order_by(PoolPrompt.id.desc()).limit(limit).offset(offset)
        )
    )


def locked(session: Session, prompt_id: UUID) -> PoolPrompt | None:
    """A prompt, locked, as it stands now."""
    return session.scalars(
        select(PoolPrompt).where(PoolPrompt.id == prompt_id).with_for_update().execution_options(populate_existing=True)
    ).one_or_none()


def next_waiting(session: Session, objective: Objective) -> PoolPrompt | None:
    """The oldest prompt that waits, locked; one that somebody else is changing is passed over."""
    return session.scalars(
        select(PoolPrompt)
        .where(PoolPrompt.objective == objective, PoolPrompt.state == PoolPromptState.WAITING)
        .order_by(PoolPrompt.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    ).one_or_none()


def waiting_objectives(session: Session) -> set[Objective]:
    """The objectives of which some prompt waits."""
    return {
        objective
        for objective in Objective
        if session.scalar(
            select(
                select(PoolPrompt.id)
                .where(PoolPrompt.objective == objective, PoolPrompt.state == PoolPromptState.WAITING)
                .exists()
            )
        )
    }


def batch_held(session: Session, batch_id: UUID) -> Batch:
    """A batch that nobody else refills or closes until this transaction ends; annotators need not wait for it."""
    return session.scalars(
        select(Batch)
        .where(Batch.id == batch_id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    ).one()


def count_active(session: Session, since: datetime) -> int:
    """How many annotators have done something lately."""
    return (
        session.scalar(
            select(func.count())
            .select_from(Person)
            .where(Person.role == PersonRole.ANNOTATOR, Person.is_active, Person.last_seen_at >= since)
        )
        or 0
    )


def remaining_targets(session: Session, batch_id: UUID) -> dict[Objective, int]:
    """How many annotated comparisons a batch still wants, from the sums of the annotators' days."""
    done = (
        select(WorkDay.objective, func.sum(WorkDay.comparisons).label("comparisons"))
        .where(WorkDay.batch_id == batch_id)
        .group_by(WorkDay.objective)
        .subquery()
    )
    rows = session.execute(
        select(BatchTarget.objective, BatchTarget.target, func.coalesce(done.c.comparisons, 0))
        .outerjoin(done, done.c.objective == BatchTarget.objective)
        .where(BatchTarget.batch_id == batch_id)
    )
    return {objective: max(0, target - int(comparisons)) for objective, target, comparisons in rows}


def unjudged(session: Session, batch_id: UUID) -> list[tuple[Objective, bool, int]]:
    """Comparisons from the pool that are sampled or ready: by objective, and whether nobody holds a place."""
    is_untouched = Comparison.open_places == Comparison.annotations_wanted
    rows = session.execute(
        select(Comparison.objective, is_untouched, func.count())
        .join(Conversation, Conversation.id == Comparison.conversation_id)
        .where(
            Comparison.batch_id == batch_id,
            Comparison.state.in_(_UNJUDGED),
            Conversation.source == PromptSource.POOL,
        )
        .group_by(Comparison.objective, is_untouched)
    )
    return [(objective, bool(untouched), count) for objective, untouched, count in rows]


def failed_since(session: Session, batch_id: UUID, since: datetime) -> list[tuple[UUID, Objective, datetime | None]]:
    """Comparisons from the pool whose sampling failed, of those made lately, each with when it failed."""
    rows = session.execute(
        select(Comparison.id, Comparison.objective, SamplingJob.finished_at)
        .join(Conversation, Conversation.id == Comparison.conversation_id)
        .join(SamplingJob, SamplingJob.comparison_id == Comparison.id)
        .where(
            Comparison.batch_id == batch_id,
            Comparison.state == ComparisonState.FAILED,
            Comparison.created_at >= since,
            Conversation.source == PromptSource.POOL,
        )
    )
    return [(comparison_id, objective, finished_at) for comparison_id, objective, finished_at in rows]


def failed_with_responses(session: Session, comparison_ids: Sequence[UUID]) -> list[Comparison]:
    """Those that failed, with their responses, locked; the ones that somebody else is changing are passed over."""
    return list(
        session.scalars(
            select(Comparison)
            .where(Comparison.id.in_(comparison_ids), Comparison.state == ComparisonState.FAILED)
            .order_by(Comparison.id)
            .options(selectinload(Comparison.responses))
            .with_for_update(skip_locked=True, of=Comparison)
            .execution_options(populate_existing=True)
        )
    )


def scripted(session: Session, prompt_id: UUID) -> PoolPrompt:
    """The prompt that a conversation follows."""
    return session.get_one(PoolPrompt, prompt_id)
