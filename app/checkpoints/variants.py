"""Which checkpoints the model variants of running batches sample from, and the pairs that wait for them."""

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import Case, ColumnElement, Select, case, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.models import Batch, BatchState, BatchVariant, Checkpoint, Comparison, Response, SamplingJob, WorkState
from contract.vocabulary import Generation


def fill(session: Session, newest: Checkpoint) -> None:
    """Give checkpoints to the variants of the open batch that opened before there was one."""
    session.execute(
        update(BatchVariant)
        .where(BatchVariant.checkpoint_id.is_(None), BatchVariant.batch_id.in_(_open_batches()))
        .values(checkpoint_id=_id_of(newest, BatchVariant.generation))
    )


def replace_in_open_batch(session: Session, newest: Checkpoint) -> None:
    """Let the open batch sample from a checkpoint and its predecessor from now on, waiting pairs included."""
    session.execute(
        update(BatchVariant)
        .where(BatchVariant.batch_id.in_(_open_batches()))
        .values(checkpoint_id=_id_of(newest, BatchVariant.generation))
    )
    # Both responses of a pair in one statement: of two, the second might see a pair that the first passed over.
    session.execute(
        update(Response)
        .where(_waits_in(Comparison.batch_id.in_(_open_batches())))
        .values(checkpoint_id=_id_of(newest, Response.generation))
    )


def draw_waiting_from_newest(
    session: Session, batch_id: UUID, newest: Checkpoint, generations: Collection[Generation]
) -> None:
    """Let the waiting responses of generations that a batch no longer draws from be drawn from the newest one.

    Otherwise they would go on waiting for a checkpoint that, perhaps, no worker can serve.
    """
    session.execute(
        update(Response)
        .where(_waits_in(Comparison.batch_id == batch_id), Response.generation.in_(generations))
        .values(checkpoint_id=newest.id, generation=Generation.NEWEST)
    )


def _id_of(newest: Checkpoint, generation: InstrumentedAttribute[Generation]) -> Case[UUID]:
    """``Checkpoint.id_of`` in SQL."""
    previous = newest.id_of(Generation.PREVIOUS)
    return case((generation == Generation.PREVIOUS, previous), else_=newest.id)


def _waits_in(batches: ColumnElement[bool]) -> ColumnElement[bool]:
    """Whether a response is of a pair that waits to be handed out."""
    waiting = (
        select(SamplingJob.comparison_id)
        .join(Comparison, Comparison.id == SamplingJob.comparison_id)
        .where(SamplingJob.state == WorkState.QUEUED, batches)
        # A pair that is being handed out right now goes to its worker as it is.
        .with_for_update(of=SamplingJob, skip_locked=True)
    )
    return Response.comparison_id.in_(waiting)


def _open_batches() -> Select[UUID]:
    return select(Batch.id).where(Batch.state == BatchState.OPEN)
