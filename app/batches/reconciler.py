"""Moves the weekly cycle along: one idempotent function that takes each batch's next due step."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy.orm import Session

from app.accounts import audit
from app.batches import queries, schedule, service
from app.checkpoints import service as checkpoints
from app.database import Database
from app.datasets import freezing, revising
from app.models import AssignmentState, Batch, BatchState, ComparisonState
from app.sampling import service as sampling
from app.settings import Settings

_LOG = structlog.get_logger(__name__)
# Shares such as 0.55 are not exact: 55 of 100 must be enough.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Step:
    """What happens to a batch next, and how to see that it is due."""

    is_due: Callable[[Session, Batch, datetime], bool]
    take: Callable[[Session, Batch, Settings, datetime], None]


def reconcile(
    database: Database,
    settings: Settings,
    at: datetime,
    write_datasets: Callable[[Database, Settings, datetime], int] = freezing.work_off,
) -> int:
    """Take every step that is due, each in a transaction of its own, and say how many were taken.

    Every process may call this at any time: whoever finds a step due locks the batch and looks again, so it
    happens once; after a crash the next call goes on. A batch whose step fails does not keep the others back:
    its error is raised at the end.
    """
    taken = 0
    failures: list[Exception] = []
    with database.read() as session:
        unfinished = queries.in_states(session, list(_STEPS))
    for batch in unfinished:
        try:
            taken += _take_if_due(database, settings, batch, at)
        except Exception as error:  # noqa: BLE001 - one batch in trouble must not stop next week's
            _LOG.error("step_failed", batch=batch.number, state=batch.state.value, error=str(error))
            failures.append(error)
    try:
        taken += revising.revise(database, at)
        taken += write_datasets(database, settings, at)
    except Exception as error:  # noqa: BLE001 - as above
        failures.append(error)
    if failures:
        raise failures[0]
    return taken


def _take_if_due(database: Database, settings: Settings, batch: Batch, at: datetime) -> bool:
    """Look without a lock, which is all there is to do nearly always; then lock, look again, and act."""
    with database.read() as session:
        if not _STEPS[batch.state].is_due(session, batch, at):
            return False
    with database.write() as session:
        locked = queries.locked(session, batch.id)
        step = _STEPS.get(locked.state)
        if step is None or not step.is_due(session, locked, at):
            return False
        step.take(session, locked, settings, at)
        return True


def _may_open(session: Session, batch: Batch, at: datetime) -> bool:
    """Its time has come, and no other batch is still open."""
    return batch.opens_at <= at and service.open_batch(session) is None


def _open(session: Session, batch: Batch, _settings: Settings, at: datetime) -> None:
    """Take prompts from now on, and draw from the current checkpoint."""
    batch.state = BatchState.OPEN
    batch.opened_at = at
    checkpoint = checkpoints.current(session)
    if checkpoint is not None:
        service.pin_checkpoint(session, batch, checkpoint)
    audit.record(
        session, "batch.opened", f"batch {batch.number}", checkpoint=checkpoint.name if checkpoint is not None else None
    )


def _may_begin_closing(_session: Session, batch: Batch, at: datetime) -> bool:
    return batch.closes_at <= at


def _begin_closing(session: Session, batch: Batch, _settings: Settings, at: datetime) -> None:
    """Stop taking prompts, and schedule the next week."""
    batch.state = BatchState.CLOSING
    batch.closing_at = at
    schedule.ensure_next(session, batch, at=at)
    audit.record(session, "batch.closing", f"batch {batch.number}")


def _may_close(session: Session, batch: Batch, at: datetime) -> bool:
    """No annotator has anything left to judge, or the grace time is over."""
    is_over = batch.closing_at is None or batch.closing_at + timedelta(minutes=batch.grace_minutes) <= at
    return is_over or not queries.has_held_places(session, batch.id)


def _close(session: Session, batch: Batch, _settings: Settings, at: datetime) -> None:
    """Close for good: what is still running or in stock is given up, and unseen prompts go back to the pool."""
    running = queries.unfinished_comparisons(session, batch.id)
    sampling.cancel(session, running)
    for comparison in running:
        comparison.state = ComparisonState.ABANDONED
    # Comparisons before assignments, as everybody locks them.
    queries.close_places(session, batch.id)
    for assignment in queries.held_places(session, batch.id):
        assignment.state = AssignmentState.GIVEN_BACK
        assignment.held_until = None
    session.flush()
    released = queries.release_pool_prompts(session, batch.id)
    batch.state = BatchState.IN_REVIEW
    batch.closed_at = at
    audit.record(session, "batch.closed", f"batch {batch.number}", abandoned=len(running), back_to_the_pool=released)


def _may_settle(session: Session, batch: Batch, _at: datetime) -> bool:
    """Enough annotations are reviewed, and its dataset is not on its way yet."""
    if batch.frozen_at is not None:
        return False
    if not batch.review_share:
        return True
    total, reviewed = queries.count_reviewed(session, batch.id)
    return reviewed >= math.ceil(batch.review_share * total - _ROUNDING)


def _settle(session: Session, batch: Batch, _settings: Settings, at: datetime) -> None:
    """From now on nothing in the batch changes; its preference dataset is to be written."""
    batch.frozen_at = at
    freezing.request(session, batch, at=at)
    audit.record(session, "batch.settled", f"batch {batch.number}")


_STEPS = {
    BatchState.SCHEDULED: Step(_may_open, _open),
    BatchState.OPEN: Step(_may_begin_closing, _begin_closing),
    BatchState.CLOSING: Step(_may_close, _close),
    BatchState.IN_REVIEW: Step(_may_settle, _settle),
}
