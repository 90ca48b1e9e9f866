"""Moves the weekly cycle along: one idempotent function that takes each batch's next due step."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from app.accounts import audit
from app.batches import queries, service
from app.checkpoints import service as checkpoints
from app.database import Database
from app.datasets import service as datasets
from app.models import Batch, BatchState, ComparisonState
from app.sampling import service as sampling
from app.settings import Settings


def reconcile(database: Database, settings: Settings, at: datetime) -> int:
    """Take every step that is due, each in a transaction of its own, and say how many were taken.

    Every process may call this at any time: a step locks its batch and looks again whether it is still
    due, so it happens once; after a crash the next call goes on.
    """
    taken = 0
    with database.read() as session:
        due = queries.in_states(session, [state for state in BatchState if state is not BatchState.FROZEN])
    for batch in due:
        with database.write() as session:
            locked = queries.locked(session, batch.id)
            taken += _STEPS[locked.state](session, locked, settings, at)
    return taken


def _open(session: Session, batch: Batch, _settings: Settings, at: datetime) -> bool:
    """Open a batch whose time has come, unless another one is still open."""
    if batch.opens_at > at or service.open_batch(session) is not None:
        return False
    batch.state = BatchState.OPEN
    batch.opened_at = at
    checkpoint = checkpoints.current(session)
    if checkpoint is not None:
        service.pin_checkpoint(session, batch, checkpoint)
    audit.record(
        session, "batch.opened", f"batch {batch.number}", checkpoint=checkpoint.name if checkpoint is not None else None
    )
    return True


def _begin_closing(session: Session, batch: Batch, _settings: Settings, at: datetime) -> bool:
    """Stop taking prompts at the closing time, and schedule the next week like this one."""
    if batch.closes_at > at:
        return False
    batch.state = BatchState.CLOSING
    batch.closing_at = at
    newest = queries.latest(session)
    if newest is None or newest.number == batch.number:
        previous = service.settings_of(session, batch)
        length = max(batch.closes_at - batch.opens_at, timedelta(days=7))
        service.create(session, replace(previous, opens_at=at, closes_at=at + length, grace_minutes=10))
    audit.record(session, "batch.closing", f"batch {batch.number}")
    return True


def _close(session: Session, batch: Batch, _settings: Settings, at: datetime) -> bool:
    """Close for good once nothing is running any more, or the grace time is over."""
    running = queries.unfinished_comparisons(session, batch.id)
    is_over = batch.closing_at is None or batch.closing_at + timedelta(minutes=batch.grace_minutes) <= at
    if running and not is_over:
        return False
    for comparison in running:
        sampling.cancel(session, comparison)
        comparison.state = ComparisonState.ABANDONED
    batch.state = BatchState.IN_REVIEW
    batch.closed_at = at
    audit.record(session, "batch.closed", f"batch {batch.number}", abandoned=len(running))
    return True


def _freeze(session: Session, batch: Batch, settings: Settings, at: datetime) -> bool:
    """Freeze the dataset once enough annotations are reviewed."""
    total, reviewed = queries.count_reviewed(session, batch.id)
    if reviewed < batch.review_share * total:
        return False
    batch.frozen_at = at
    dataset = datasets.freeze(session, batch, settings)
    batch.state = BatchState.FROZEN
    audit.record(session, "batch.frozen", f"batch {batch.number}", dataset=dataset.name, rows=dataset.rows)
    return True


def _do_nothing(_session: Session, _batch: Batch, _settings: Settings, _at: datetime) -> bool:
    return False


_STEPS: dict[BatchState, Callable[[Session, Batch, Settings, datetime], bool]] = {
    BatchState.SCHEDULED: _open,
    BatchState.OPEN: _begin_closing,
    BatchState.CLOSING: _close,
    BatchState.IN_REVIEW: _freeze,
    BatchState.FROZEN: _do_nothing,
}
