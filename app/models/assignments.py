"""Who judges what: the places that annotators hold at comparisons, and what each has done on a day."""

from datetime import date, datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.models.base import Base, now
from app.models.comparisons import Comparison
from contract.vocabulary import Objective


class AssignmentState(StrEnum):
    """What became of an annotator's place at a comparison."""

    HELD = "held"
    DONE = "done"
    SKIPPED = "skipped"
    GIVEN_BACK = "given_back"
    """Signed out or idle for too long; somebody else may take the place, or the same annotator again."""


class Assignment(Base):
    """An annotator's place at a comparison. There is at most one: nobody gets the same comparison twice."""

    __tablename__ = "assignments"
    __table_args__ = (
        CheckConstraint("held_until IS NULL OR state = 'held'", name="only_held_places_expire"),
        Index("ix_assignments_annotator_id_state", "annotator_id", "state"),
        Index(
            "ix_assignments_held_until",
            "held_until",
            sqlite_where=text("held_until IS NOT NULL"),
            postgresql_where=text("held_until IS NOT NULL"),
        ),
    )

    comparison_id: Mapped[UUID] = mapped_column(ForeignKey("comparisons.id"), primary_key=True)
    annotator_id: Mapped[UUID] = mapped_column(ForeignKey("people.id"), primary_key=True)
    state: Mapped[AssignmentState] = mapped_column(default=AssignmentState.HELD)
    held_until: Mapped[datetime | None] = mapped_column(default=None)
    """When an idle annotator loses the place; empty for their own prompts, which nobody else waits for."""
    shown_at: Mapped[datetime | None] = mapped_column(default=None)
    """When the annotator first saw both responses."""
    created_at: Mapped[datetime] = mapped_column(default_factory=now)

    comparison: Mapped[Comparison] = relationship(lazy="raise", init=False, repr=False)


class WorkDay(Base):
    """What one annotator did for one objective of a batch on one day.

    Sums over these rows give a batch's progress at any size: one annotator never waits for another's row.
    """

    __tablename__ = "work_days"
    __table_args__ = (
        CheckConstraint("comparisons <= annotations", name="comparisons_are_annotated"),
        Index("ix_work_days_batch_id", "batch_id"),
    )

    annotator_id: Mapped[UUID] = mapped_column(ForeignKey("people.id"), primary_key=True)
    batch_id: Mapped[UUID] = mapped_column(ForeignKey("batches.id"), primary_key=True)
    objective: Mapped[Objective] = mapped_column(primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    """In the batch's time zone."""
    annotations: Mapped[int] = mapped_column(default=0)
    comparisons: Mapped[int] = mapped_column(default=0)
    """Those of the annotations that are primary: each makes one more comparison of the batch annotated."""
    skips: Mapped[int] = mapped_column(default=0)
    seconds: Mapped[float] = mapped_column(default=0.0)
    """Spent on the annotations, in all."""
    pool_prompts: Mapped[int] = mapped_column(default=0)
    """Annotations of comparisons whose prompt came from the pool and that nobody had judged before."""
