"""Counts what annotators do, a row for each of their days: the sums are a batch's progress, whatever its size."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.models import Batch, BatchTarget, WorkDay
from app.upserts import Upsert
from contract.vocabulary import Objective

_COUNTED = ("annotations", "comparisons", "skips", "seconds", "pool_prompts")


@dataclass(frozen=True)
class ObjectiveProgress:
    """How far an objective of a batch is."""

    objective: Objective
    target: int
    annotated: int

    @property
    def share(self) -> float:
        """Annotated comparisons over the target."""
        return self.annotated / self.target


@dataclass(frozen=True)
class Work:
    """What somebody has done."""

    annotations: int = 0
    comparisons: int = 0
    skips: int = 0
    seconds: float = 0.0
    pool_prompts: int = 0


def day_of(batch: Batch, at: datetime) -> date:
    """The day in the batch's time zone."""
    return at.astimezone(ZoneInfo(batch.time_zone)).date()


_ADD = Upsert(
    WorkDay,
    ["annotator_id", "batch_id", "objective", "day"],
    # The database adds, so that two tabs of one annotator both count.
    lambda new: {name: getattr(WorkDay, name) + new[name] for name in _COUNTED},
)


def count(
    session: Session, batch: Batch, objective: Objective, annotator_id: UUID, *, at: datetime, work: Work
) -> None:
    """Add to the annotator's day."""
    keys = {"annotator_id": annotator_id, "batch_id": batch.id, "objective": objective, "day": day_of(batch, at)}
    _ADD.run(session, keys | {name: getattr(work, name) for name in _COUNTED})


def progress(session: Session, batch_id: UUID) -> Sequence[ObjectiveProgress]:
    """The objectives that a batch collects, each with its target and what is annotated."""
    annotated = (
        select(func.coalesce(func.sum(WorkDay.comparisons), 0))
        .where(WorkDay.batch_id == BatchTarget.batch_id, WorkDay.objective == BatchTarget.objective)
        .correlate(BatchTarget)
        .scalar_subquery()
    )
    rows = session.execute(
        select(BatchTarget.objective, BatchTarget.target, annotated)
        .where(BatchTarget.batch_id == batch_id, BatchTarget.target > 0)
        .order_by(BatchTarget.objective)
    )
    return [ObjectiveProgress(objective, target, count) for objective, target, count in rows]


def work_of(session: Session, annotator_id: UUID, batch_id: UUID, day: date | None = None) -> Work:
    """What an annotator has done for a batch, in all or on one day."""
    sums = [func.coalesce(func.sum(getattr(WorkDay, name)), 0).label(name) for name in _COUNTED]
    rows = select(*sums).where(WorkDay.annotator_id == annotator_id, WorkDay.batch_id == batch_id)
    if day is not None:
        rows = rows.where(WorkDay.day == day)
    return Work(**session.execute(rows).one()._mapping)  # noqa: SLF001 - the public name of a row's mapping
