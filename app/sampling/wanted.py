"""Which checkpoints workers are to serve, the most wanted first: how promotions reach them."""

from sqlalchemy import func, literal, select, union_all
from sqlalchemy.orm import Session

from app.models import Batch, BatchState, BatchVariant, Checkpoint, Response, SamplingJob, WorkState

_OF_OPEN_BATCHES, _CURRENT, _OF_JOBS = range(3)
_AT_WORK = (WorkState.QUEUED, WorkState.LEASED)


def digests(session: Session) -> tuple[str, ...]:
    """Digests of the checkpoints that pairs are or will be drawn from, the most wanted first.

    First come those of the variants of open batches, by the weight that they have there; then the one promoted last,
    which the next batch will draw from; then those that jobs name, such as pairs asked before a promotion.
    """
    variants = (
        select(
            literal(_OF_OPEN_BATCHES).label("urgency"),
            func.sum(BatchVariant.weight).label("weight"),
            BatchVariant.checkpoint_id.label("checkpoint_id"),
        )
        .join(Batch, Batch.id == BatchVariant.batch_id)
        .where(Batch.state == BatchState.OPEN)
        .group_by(BatchVariant.checkpoint_id)
    )
    last_promotion = select(func.max(Checkpoint.promoted_at)).scalar_subquery()
    current = select(literal(_CURRENT), literal(0.0), Checkpoint.id).where(Checkpoint.promoted_at == last_promotion)
    jobs = (
        select(literal(_OF_JOBS), literal(0.0), Response.checkpoint_id)
        .join(SamplingJob, SamplingJob.comparison_id == Response.comparison_id)
        .where(SamplingJob.state.in_(_AT_WORK))
        .distinct()
    )
    wishes = union_all(variants, current, jobs).subquery()
    rows = session.execute(
        select(Checkpoint.digest)
        .join(wishes, wishes.c.checkpoint_id == Checkpoint.id)
        .order_by(wishes.c.urgency, wishes.c.weight.desc(), Checkpoint.promoted_at.desc(), Checkpoint.digest)
    )
    return tuple(dict.fromkeys(digest for (digest,) in rows))
