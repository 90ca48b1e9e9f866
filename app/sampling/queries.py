"""The queue's SQL: which jobs may be handed out, and how the queue stands."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import Exists, exists, func, select
from sqlalchemy.orm import Session, joinedload, selectinload

from app.models import Checkpoint, Comparison, Response, SamplingJob, Worker, WorkState
from app.sampling.leases import due, is_due

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
