"""The one mechanism for handing out work: leases with an attempt number as fencing."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

import structlog
from sqlalchemy import ColumnElement, Select, or_, select
from sqlalchemy.orm import Session

from app.errors import ConflictError
from app.models import Leased, WorkState

Work = TypeVar("Work", bound=Leased)

_LOG = structlog.get_logger(__name__)
# A lease that has lost less than this share of its time is not written again: workers call several times a second.
_WORTH_A_WRITE = 0.05


class LeaseLostError(ConflictError):
    """The work is no longer this worker's: cancelled, done, or handed to another."""

    code = "lease_lost"


@dataclass(frozen=True)
class LeaseTerms:
    """How long a lease lasts, and how often work is handed out before it fails."""

    lease_s: float
    max_attempts: int


def is_due(model: type[Leased], at: datetime) -> ColumnElement[bool]:
    """The condition that work may be handed out: queued, or held by a worker that has been silent too long."""
    return or_(model.state == WorkState.QUEUED, (model.state == WorkState.LEASED) & (model.lease_until < at))


def due(model: type[Work], at: datetime) -> Select[Work]:
    """Work that may be handed out, oldest first.

    On PostgreSQL rows that another transaction is handing out are passed over; on SQLite the writing
    transaction is alone.
    """
    return select(model).where(is_due(model, at)).order_by(model.queued_at).with_for_update(skip_locked=True, of=model)


def hand_out(work: Leased, worker_id: UUID, *, at: datetime, lease_s: float) -> None:
    """Give work to a worker for a limited time; every hand-out is a new attempt."""
    work.state = WorkState.LEASED
    work.worker_id = worker_id
    work.attempt += 1
    work.lease_until = at + timedelta(seconds=lease_s)
    work.started_at = work.started_at or at


def extend(work: Leased, *, at: datetime, lease_s: float) -> datetime:
    """Let a worker that is alive keep its work, and say until when."""
    until = at + timedelta(seconds=lease_s)
    if work.lease_until is None or until - work.lease_until > timedelta(seconds=lease_s * _WORTH_A_WRITE):
        work.lease_until = until
    return work.lease_until


def end(work: Leased, state: WorkState, *, at: datetime, error: str | None = None) -> None:
    """Close work for good."""
    work.state = state
    work.lease_until = None
    work.finished_at = at
    work.error = error


def put_back(work: Leased) -> None:
    """Return work to the queue, in its old place. The attempt number stays: it only ever grows."""
    work.state = WorkState.QUEUED
    work.lease_until = None


def survives_failure(work: Leased, reason: str, *, max_attempts: int, at: datetime) -> bool:
    """Count a hand-out that came to nothing; the last one that is allowed ends the work."""
    work.failures += 1
    if work.failures < max_attempts:
        work.error = reason
        return True
    end(work, WorkState.FAILED, at=at, error=f"{reason} It was tried {work.failures} times.")
    return False


def is_held(work: Leased | None, worker_id: UUID, attempt: int) -> bool:
    """Whether a worker still holds work as this attempt."""
    return (
        work is not None and work.state is WorkState.LEASED and work.worker_id == worker_id and work.attempt == attempt
    )


def held(session: Session, model: type[Work], job_id: UUID, worker_id: UUID, attempt: int) -> Work:
    """The work, locked, if this worker holds it as this attempt.

    Raises:
        LeaseLostError: It does not.

    """
    work = session.get(model, job_id, with_for_update=True)
    if work is None or not is_held(work, worker_id, attempt):
        note_lost(job_id, worker_id, attempt)
        msg = f"Attempt {attempt} of this job is no longer held by this worker; drop it."
        raise LeaseLostError(msg)
    return work


def note_lost(job_id: UUID, worker_id: UUID, attempt: int) -> None:
    """Log that a worker called about work that it no longer holds."""
    _LOG.info("lease_lost", job_id=str(job_id), worker_id=str(worker_id), attempt=attempt)
