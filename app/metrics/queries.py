"""The SQL of the metrics: each statement looks at few rows, however large the database is."""

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.models import Batch, BatchState, Comparison, ComparisonState, WorkDay
from contract.vocabulary import Objective

_RUNNING = (BatchState.OPEN, BatchState.CLOSING)


def running_batches(session: Session) -> list[Batch]:
    """The batches whose comparisons annotators may judge."""
    return list(session.scalars(select(Batch).where(Batch.state.in_(_RUNNING)).order_by(Batch.number)))


def count_ready(session: Session, batches: Sequence[Batch]) -> dict[Objective, int]:
    """How many comparisons of some batches wait to be judged, by objective."""
    rows = session.execute(
        select(Comparison.objective, func.count())
        .where(Comparison.batch_id.in_([batch.id for batch in batches]), Comparison.state == ComparisonState.READY)
        .group_by(Comparison.objective)
    )
    return dict.fromkeys(Objective, 0) | dict(rows.all())


def count_annotations(session: Session, batch: Batch) -> dict[Objective, int]:
    """How many annotations a batch has, by objective, from the sums of the annotators' days."""
    rows = session.execute(
        select(WorkDay.objective, func.sum(WorkDay.annotations))
        .where(WorkDay.batch_id == batch.id)
        .group_by(WorkDay.objective)
    )
    return dict.fromkeys(Objective, 0) | {objective: int(count) for objective, count in rows}
