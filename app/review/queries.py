"""The SQL of reviews: which annotations wait for a verdict."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session, defer, joinedload

from app.models import Annotation, Batch, Comparison, Flag, Response, Review


def _waiting(reviewer_id: UUID) -> tuple[ColumnElement[bool], ...]:
    """Primary annotations of batches that are not frozen, by others, whose present revision has no verdict.

    A second opinion is no row of a dataset, so nobody needs to approve it.
    """
    has_verdict = (
        select(Review.id).where(Review.annotation_id == Annotation.id, Review.revision == Annotation.revision).exists()
    )
    is_by_other = Annotation.annotator_id != reviewer_id
    return (Annotation.is_primary.is_(True), Batch.frozen_at.is_(None), is_by_other, ~has_verdict)


def count_waiting(session: Session, reviewer_id: UUID) -> int:
    """How many annotations wait for a verdict."""
    return (
        session.scalar(
            select(func.count(Annotation.id))
            .join(Comparison, Comparison.id == Annotation.comparison_id)
            .join(Batch, Batch.id == Comparison.batch_id)
            .where(*_waiting(reviewer_id))
        )
        or 0
    )


def waiting(session: Session, reviewer_id: UUID, *, limit: int, offset: int) -> list[tuple[Annotation, Batch]]:
    """The annotations that wait for a verdict, the oldest first, each with its comparison and responses."""
    rows = session.execute(
        select(Annotation, Batch)
        .join(Comparison, Comparison.id == Annotation.comparison_id)
        .join(Batch, Batch.id == Comparison.batch_id)
        .where(*_waiting(reviewer_id))
        .order_by(Batch.number, Annotation.created_at, Annotation.id)
        .options(
            joinedload(Annotation.comparison)
            .selectinload(Comparison.responses)
            .options(defer(Response.token_ids, raiseload=True))
        )
        .limit(limit)
        .offset(offset)
    )
    return [(annotation, batch) for annotation, batch in rows]


def flags(session: Session, comparison_ids: Sequence[UUID]) -> list[Flag]:
    """What annotators noted about some comparisons, the earliest first."""
    return list(session.scalars(select(Flag).where(Flag.comparison_id.in_(comparison_ids)).order_by(Flag.at, Flag.id)))


def annotation_and_batch(session: Session, annotation_id: UUID) -> tuple[Annotation, Batch] | None:
    """An annotation and its batch, which is locked: a freeze waits for the verdict, or the verdict for the freeze."""
    row = session.execute(
        select(Annotation, Batch)
        .join(Comparison, Comparison.id == Annotation.comparison_id)
        .join(Batch, Batch.id == Comparison.batch_id)
        .where(Annotation.id == annotation_id)
        .with_for_update(of=Batch, read=True)
        .execution_options(populate_existing=True)
    ).one_or_none()
    return None if row is None else (row[0], row[1])


def verdict_on(session: Session, annotation_id: UUID, revision: int) -> Review | None:
    """The verdict on one revision of an annotation."""
    return session.scalars(
        select(Review).where(Review.annotation_id == annotation_id, Review.revision == revision)
    ).one_or_none()
