"""Which checkpoints the model variants of running batches sample from."""

from uuid import UUID

from sqlalchemy import Select, select, update
from sqlalchemy.orm import Session

from app.models import Batch, BatchState, BatchVariant, Checkpoint, Comparison, Response, SamplingJob, WorkState


def fill(session: Session, checkpoint: Checkpoint) -> None:
    """Give a checkpoint to the variants of the open batch that opened before there was one."""
    session.execute(
        update(BatchVariant)
        .where(BatchVariant.checkpoint_id.is_(None), BatchVariant.batch_id.in_(_open_batches()))
        .values(checkpoint_id=checkpoint.id)
    )


def replace_in_open_batch(session: Session, checkpoint: Checkpoint) -> None:
    """Let the open batch sample from a checkpoint from now on, waiting pairs included."""
    session.execute(
        update(BatchVariant).where(BatchVariant.batch_id.in_(_open_batches())).values(checkpoint_id=checkpoint.id)
    )
    waiting = (
        select(SamplingJob.comparison_id)
        .join(Comparison, Comparison.id == SamplingJob.comparison_id)
        .where(SamplingJob.state == WorkState.QUEUED, Comparison.batch_id.in_(_open_batches()))
        # A pair that is being handed out right now goes to its worker as it is.
        .with_for_update(of=SamplingJob, skip_locked=True)
    )
    session.execute(update(Response).where(Response.comparison_id.in_(waiting)).values(checkpoint_id=checkpoint.id))


def _open_batches() -> Select[UUID]:
    return select(Batch.id).where(Batch.state == BatchState.OPEN)
