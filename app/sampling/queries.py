"""The queue's SQL: which jobs may be handed out, and how the queue stands."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVarTuple
from uuid import UUID

from sqlalchemy import Exists, Select, and_, case, exists, func, select
from sqlalchemy.orm import Session, joinedload, selectinload

from app.models import (
    Batch,
    BatchState,
    Checkpoint,
    Comparison,
    ComparisonState,
    Conversation,
    ConversationState,
    Response,
    SamplingJob,
    Worker,
    WorkState,
)
from app.sampling.leases import due, is_due

Columns = TypeVarTuple("Columns")

_LOAD_PAIR = (
    joinedload(SamplingJob.comparison, innerjoin=True)
    .selectinload(Comparison.responses)
    .joinedload(Response.checkpoint, innerjoin=True)
)


def due_jobs(session: Session, digests: Sequence[str], *, at: datetime, limit: int) -> list[SamplingJob]:
    """The oldest jobs that may be handed out and whose responses all name one of the given checkpoints."""
    jobs = due(SamplingJob, at).where(~_needs_other_checkpoints(digests))
    return list(session.scalars(jobs.options(_LOAD_PAIR).limit(limit)))


def count_due_jobs(session: Session, digests: Sequence[str], *, at: datetime, limit: int) -> int:
    """How many jobs ``due_jobs`` would find."""
    jobs = select(SamplingJob.id).where(is_due(SamplingJob, at), ~_needs_other_checkpoints(digests)).limit(limit)
    return session.scalar(select(func.count()).select_from(jobs.subquery())) or 0


def _needs_other_checkpoints(digests: Sequence[str]) -> Exists:
    return exists().where(
        Response.comparison_id == SamplingJob.comparison_id,
        Response.checkpoint_id == Checkpoint.id,
        Checkpoint.digest.not_in(digests),
    )


def with_pair(session: Session, job_id: UUID) -> SamplingJob | None:
    """A job with its comparison, responses and their checkpoints."""
    return session.scalars(select(SamplingJob).where(SamplingJob.id == job_id).options(_LOAD_PAIR)).one_or_none()


def jobs_by_id(session: Session, job_ids: Iterable[UUID]) -> dict[UUID, SamplingJob]:
    """The jobs, locked, with their responses."""
    rows = session.scalars(
        select(SamplingJob)
        .where(SamplingJob.id.in_(job_ids))
        .order_by(SamplingJob.id)
        .options(selectinload(SamplingJob.comparison).selectinload(Comparison.responses))
        .with_for_update(of=SamplingJob)
    )
    return {job.id: job for job in rows}


def job_of(session: Session, comparison_id: UUID) -> SamplingJob | None:
    """The job of a comparison, locked."""
    return session.scalars(
        select(SamplingJob).where(SamplingJob.comparison_id == comparison_id).with_for_update()
    ).one_or_none()


def jobs_of(session: Session, comparison_ids: Collection[UUID]) -> list[SamplingJob]:
    """The jobs of some comparisons, locked, in the order in which workers' calls lock them."""
    return list(
        session.scalars(
            select(SamplingJob)
            .where(SamplingJob.comparison_id.in_(comparison_ids))
            .order_by(SamplingJob.id)
            .with_for_update()
        )
    )


def leased_to(session: Session, worker_id: UUID) -> list[SamplingJob]:
    """The jobs that a worker holds."""
    return list(
        session.scalars(
            select(SamplingJob)
            .where(SamplingJob.worker_id == worker_id, SamplingJob.state == WorkState.LEASED)
            .order_by(SamplingJob.id)
            .with_for_update()
        )
    )


def worker_by_name(session: Session, name: str) -> Worker | None:
    """A worker that introduced itself under this name before."""
    return session.scalars(select(Worker).where(Worker.name == name)).one_or_none()


def checkpoint_names(session: Session, digests: Collection[str]) -> dict[str, str]:
    """The names of registered checkpoints, by digest."""
    rows = session.execute(select(Checkpoint.digest, Checkpoint.name).where(Checkpoint.digest.in_(digests)))
    return dict(rows.all())


def count_by_state(session: Session) -> dict[WorkState, int]:
    """How many sampling jobs are in each state."""
    rows = session.execute(select(SamplingJob.state, func.count()).group_by(SamplingJob.state)).all()
    return dict.fromkeys(WorkState, 0) | dict(rows)


def workers(session: Session) -> list[Worker]:
    """All workers, the most recently seen first."""
    return list(session.scalars(select(Worker).order_by(Worker.last_seen_at.desc())))


@dataclass(frozen=True)
class WaitingPairs:
    """Pairs that wait to be handed out and need the same checkpoints."""

    digests: frozenset[str]
    pairs: int
    oldest: datetime


def waiting_pairs(session: Session) -> list[WaitingPairs]:
    """What is queued, by the checkpoints that one worker must have to take it; the longest waiting first."""
    needs = (
        select(
            func.min(Checkpoint.digest).label("one"), func.max(Checkpoint.digest).label("other"), SamplingJob.queued_at
        )
        .join(Response, Response.comparison_id == SamplingJob.comparison_id)
        .join(Checkpoint, Checkpoint.id == Response.checkpoint_id)
        .where(SamplingJob.state == WorkState.QUEUED)
        .group_by(SamplingJob.id)
        .subquery()
    )
    oldest = func.min(needs.c.queued_at)
    rows = session.execute(
        select(needs.c.one, needs.c.other, func.count(), oldest)
        .group_by(needs.c.one, needs.c.other)
        .order_by(oldest, needs.c.one)
    )
    return [WaitingPairs(frozenset({one, other}), pairs, waits_since) for one, other, pairs, waits_since in rows]


_FAILED = (ComparisonState.FAILED, ComparisonState.EQUAL_RESPONSES)
# A failure of a frozen batch is history: its dataset counts it. Named by their batches, the few that failed are found
# through the index of comparisons, however many there are.
_OF_UNFROZEN = (
    Comparison.batch_id.in_(select(Batch.id).where(Batch.state != BatchState.FROZEN)),
    Comparison.state.in_(_FAILED),
)
_CAN_BE_RETRIED = (
    Comparison.batch_id.in_(select(Batch.id).where(Batch.state == BatchState.OPEN)),
    Comparison.state.in_(_FAILED),
    Conversation.state == ConversationState.ACTIVE,
)


@dataclass(frozen=True)
class FailedJob:
    """A job that ended without a pair to judge, with what it belongs to."""

    job: SamplingJob
    comparison: ComparisonState
    conversation: ConversationState
    batch: Batch
    worker: str | None
    """Who held it last."""


def count_failed(session: Session) -> tuple[int, int]:
    """How many jobs of batches that are not frozen have failed, and how many of them can be tried again."""
    can_be_retried = case(
        (and_(Batch.state == BatchState.OPEN, Conversation.state == ConversationState.ACTIVE), 1), else_=0
    )
    failed, retryable = session.execute(
        _of_comparison(select(func.count(), func.coalesce(func.sum(can_be_retried), 0))).where(*_OF_UNFROZEN)
    ).one()
    return failed, int(retryable)


def failed(session: Session, *, limit: int, offset: int) -> list[FailedJob]:
    """Jobs of batches that are not frozen and that failed or brought equal responses, the newest failure first."""
    jobs = select(SamplingJob, Comparison.state, Conversation.state, Batch, Worker.name)
    rows = session.execute(
        _of_comparison(jobs)
        .outerjoin(Worker, Worker.id == SamplingJob.worker_id)
        .where(*_OF_UNFROZEN)
        .order_by(SamplingJob.finished_at.desc(), SamplingJob.id)
        .limit(limit)
        .offset(offset)
    )
    return [FailedJob(job, state, conversation, batch, worker) for job, state, conversation, batch, worker in rows]


def checkpoints_of(session: Session, comparison_ids: Collection[UUID]) -> dict[UUID, list[str]]:
    """The names of the checkpoints that the responses of some comparisons are drawn from."""
    rows = session.execute(
        select(Response.comparison_id, Checkpoint.name)
        .join(Checkpoint, Checkpoint.id == Response.checkpoint_id)
        .where(Response.comparison_id.in_(comparison_ids))
        .distinct()
        .order_by(Checkpoint.name)
    )
    found: dict[UUID, list[str]] = {}
    for comparison_id, name in rows:
        found.setdefault(comparison_id, []).append(name)
    return found


def comparison_of(session: Session, job_id: UUID) -> Comparison | None:
    """The comparison of a job, as it stands."""
    return session.scalars(
        select(Comparison).join(SamplingJob, SamplingJob.comparison_id == Comparison.id).where(SamplingJob.id == job_id)
    ).one_or_none()


def held_batch(session: Session, batch_id: UUID) -> Batch:
    """A batch that cannot close until this transaction ends."""
    return session.scalars(
        select(Batch).where(Batch.id == batch_id).with_for_update(read=True).execution_options(populate_existing=True)
    ).one()


def locked_comparison(session: Session, comparison_id: UUID) -> tuple[Comparison, ConversationState]:
    """A comparison with its responses, locked and read afresh, and how its conversation stands."""
    comparison = session.scalars(_locked_with_responses().where(Comparison.id == comparison_id)).one()
    conversation = session.scalars(
        select(Conversation.state).where(Conversation.id == comparison.conversation_id)
    ).one()
    return comparison, conversation


def batches_with_failures(session: Session, *, before: datetime) -> list[UUID]:
    """The open batches in which something failed before some moment and can be tried again."""
    return list(
        session.scalars(
            _of_comparison(select(Batch.id)).where(*_CAN_BE_RETRIED, SamplingJob.finished_at < before).distinct()
        )
    )


def failed_of(session: Session, batch_id: UUID, *, before: datetime, limit: int) -> list[tuple[UUID, Comparison]]:
    """Some comparisons of a batch that failed before some moment, locked, with their responses, by their jobs' ids.

    Those that somebody else is changing are passed over.
    """
    due = session.execute(
        _of_comparison(select(Comparison.id, SamplingJob.id))
        .where(*_CAN_BE_RETRIED, Batch.id == batch_id, SamplingJob.finished_at < before)
        .order_by(Comparison.id)
        .limit(limit)
    )
    job_ids = dict(due.all())
    comparisons = session.scalars(
        _locked_with_responses(skip_locked=True)
        .where(Comparison.id.in_(job_ids), Comparison.state.in_(_FAILED))
        .order_by(Comparison.id)
    )
    return [(job_ids[comparison.id], comparison) for comparison in comparisons]


def _of_comparison(jobs: Select[*Columns]) -> Select[*Columns]:
    return (
        jobs.select_from(SamplingJob)
        .join(Comparison, Comparison.id == SamplingJob.comparison_id)
        .join(Conversation, Conversation.id == Comparison.conversation_id)
        .join(Batch, Batch.id == Comparison.batch_id)
    )


def _locked_with_responses(*, skip_locked: bool = False) -> Select[Comparison]:
    return (
        select(Comparison)
        .options(selectinload(Comparison.responses))
        .with_for_update(of=Comparison, skip_locked=skip_locked)
        .execution_options(populate_existing=True)
    )
