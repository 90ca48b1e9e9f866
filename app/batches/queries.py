"""The SQL of batches: which is open, what it wants, and how far it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.models import Annotation, Batch, BatchState, BatchTarget, BatchVariant, Comparison, ComparisonState, Review
from contract.vocabulary import Objective


@dataclass(frozen=True)
class Progress:
    """How far an objective of a batch is."""

    objective: Objective
    target: int
    annotated: int

    @property
    def share(self) -> float:
        """Annotated comparisons over the target, at most 1."""
        return min(1.0, self.annotated / self.target) if self.target else 1.0


def all_batches(session: Session) -> list[Batch]:
    """Every batch, the newest first."""
    return list(session.scalars(select(Batch).order_by(Batch.number.desc())))


def by_number(session: Session, number: int) -> Batch | None:
    """The batch with this number."""
    return session.scalars(select(Batch).where(Batch.number == number)).one_or_none()


def latest(session: Session) -> Batch | None:
    """The batch with the highest number."""
    return session.scalars(select(Batch).order_by(Batch.number.desc()).limit(1)).one_or_none()


def in_states(session: Session, states: Sequence[BatchState]) -> list[Batch]:
    """The batches in some states, the oldest first."""
    return list(session.scalars(select(Batch).where(Batch.state.in_(states)).order_by(Batch.number)))


def locked(session: Session, batch_id: UUID) -> Batch:
    """A batch, locked and read afresh, so that of two processes only one takes its next step."""
    return session.scalars(
        select(Batch).where(Batch.id == batch_id).with_for_update().execution_options(populate_existing=True)
    ).one()


def targets(session: Session, batch_id: UUID) -> dict[Objective, int]:
    """How many comparisons of each objective a batch wants."""
    rows = session.execute(select(BatchTarget.objective, BatchTarget.target).where(BatchTarget.batch_id == batch_id))
    found = {objective: target for objective, target in rows}
    return {objective: found.get(objective, 0) for objective in Objective}


def variants(session: Session, batch_id: UUID) -> list[BatchVariant]:
    """The model variants of a batch."""
    return list(
        session.scalars(
            select(BatchVariant).where(BatchVariant.batch_id == batch_id).order_by(BatchVariant.position)
        )
    )


def progress(session: Session, batch_id: UUID) -> list[Progress]:
    """Targets and annotated comparisons of each objective that a batch collects."""
    rows = session.execute(
        select(Comparison.objective, func.count())
        .where(Comparison.batch_id == batch_id, Comparison.state == ComparisonState.ANNOTATED)
        .group_by(Comparison.objective)
    ).all()
    annotated = {objective: count for objective, count in rows}
    return [
        Progress(objective=objective, target=target, annotated=annotated.get(objective, 0))
        for objective, target in targets(session, batch_id).items()
        if target or annotated.get(objective)
    ]


def count_by_state(session: Session, batch_id: UUID) -> dict[ComparisonState, int]:
    """How many comparisons of a batch are in each state."""
    rows = session.execute(
        select(Comparison.state, func.count()).where(Comparison.batch_id == batch_id).group_by(Comparison.state)
    ).all()
    return {state: 0 for state in ComparisonState} | {state: count for state, count in rows}


def unfinished_comparisons(session: Session, batch_id: UUID) -> list[Comparison]:
    """Comparisons of a batch that wait for responses or for a judgement."""
    return list(
        session.scalars(
            select(Comparison).where(
                Comparison.batch_id == batch_id,
                Comparison.state.in_([ComparisonState.SAMPLING, ComparisonState.READY]),
            )
        )
    )


def count_reviewed(session: Session, batch_id: UUID) -> tuple[int, int]:
    """How many annotations of a batch there are, and how many of them were reviewed as they stand now."""
    annotations = select(func.count(Annotation.id)).join(Comparison, Comparison.id == Annotation.comparison_id)
    total = session.scalar(annotations.where(Comparison.batch_id == batch_id)) or 0
    reviewed = session.scalar(
        annotations.join(
            Review, (Review.annotation_id == Annotation.id) & (Review.revision == Annotation.revision)
        ).where(Comparison.batch_id == batch_id)
    )
    return total, reviewed or 0
