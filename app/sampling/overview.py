"""How the queue and its workers stand, for the admin's and the trainer's pages."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.models import SamplingJob, Worker, WorkState
from app.sampling import queries


@dataclass(frozen=True)
class QueueView:
    """The sampling queue."""

    by_state: dict[WorkState, int]
    oldest_waiting_s: float | None
    """How long the oldest job has waited to be handed out; ``None`` when none waits."""


@dataclass(frozen=True)
class WorkerView:
    """A worker, and whether it has been silent for longer than a lease."""

    worker: Worker
    silent_s: float
    is_stale: bool


def queue(session: Session, *, at: datetime) -> QueueView:
    """Sampling jobs by state, and the age of the oldest waiting one."""
    oldest = session.scalar(select(func.min(SamplingJob.queued_at)).where(SamplingJob.state == WorkState.QUEUED))
    return QueueView(
        by_state=queries.count_by_state(session),
        oldest_waiting_s=max(0.0, (at - oldest).total_seconds()) if oldest is not None else None,
    )


def workers(session: Session) -> list[Worker]:
    """All workers, the most recently seen first."""
    return queries.workers(session)


def worker_views(session: Session, *, at: datetime, lease_s: float) -> list[WorkerView]:
    """All workers with their silence, the most recently seen first."""
    return [
        WorkerView(
            worker=worker,
            silent_s=max(0.0, (at - worker.last_seen_at).total_seconds()),
            is_stale=worker.last_seen_at < at - timedelta(seconds=lease_s),
        )
        for worker in workers(session)
    ]
