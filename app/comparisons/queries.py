"""The SQL of the hand-out: which comparisons have an open place, and who holds one."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from app.models import Assignment, AssignmentState, Comparison, ComparisonState


def open_to(session: Session, annotator_id: UUID, batch_id: UUID, *, with_new: bool) -> Comparison | None:
    """The oldest comparison of a batch with a place that an annotator may take, locked.

    They may not have judged or skipped it before; what they gave back is old, and so comes first. Without
    ``with_new`` only those are looked at that somebody has judged already. On PostgreSQL rows that another
    transaction is handing out are passed over.
    """
    states = [ComparisonState.ANNOTATED, *([ComparisonState.READY] if with_new else [])]
    known = exists().where(
        Assignment.comparison_id == Comparison.id,
        Assignment.annotator_id == annotator_id,
        Assignment.state != AssignmentState.GIVEN_BACK,
    )
    return session.scalars(
        select(Comparison)
        .where(Comparison.batch_id == batch_id, Comparison.open_places > 0, Comparison.state.in_(states), ~known)
        .order_by(Comparison.id)
        .limit(1)
        .with_for_update(skip_locked=True, of=Comparison)
        .execution_options(populate_existing=True)
    ).one_or_none()


def assignment(session: Session, comparison_id: UUID, annotator_id: UUID) -> Assignment | None:
    """An annotator's place at a comparison, as it stands now."""
    return session.get(Assignment, (comparison_id, annotator_id), populate_existing=True)


def locked(session: Session, comparison_ids: Sequence[UUID]) -> list[Comparison]:
    """Comparisons, locked in the order of their ids; those that somebody else is changing are passed over."""
    return list(
        session.scalars(
            select(Comparison)
            .where(Comparison.id.in_(comparison_ids))
            .order_by(Comparison.id)
            .with_for_update(skip_locked=True, of=Comparison)
            .execution_options(populate_existing=True)
        )
    )


def handed_to(session: Session, annotator_id: UUID) -> list[UUID]:
    """The comparisons that were handed to an annotator, who has not judged them yet."""
    return list(
        session.scalars(
            select(Assignment.comparison_id).where(
                Assignment.annotator_id == annotator_id,
                Assignment.state == AssignmentState.HELD,
                Assignment.held_until.is_not(None),
            )
        )
    )


def expired(session: Session, at: datetime, *, limit: int) -> list[tuple[UUID, UUID]]:
    """Comparison and annotator of the places whose time is over."""
    rows = session.execute(
        select(Assignment.comparison_id, Assignment.annotator_id)
        .where(Assignment.held_until < at)
        .order_by(Assignment.held_until)
        .limit(limit)
    )
    return [(comparison_id, annotator_id) for comparison_id, annotator_id in rows]
