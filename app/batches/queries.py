"""The SQL of batches: which is open, what it wants, and how far it is."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Select, exists, func, select, update
from sqlalchemy.orm import Session

from app.models import (
    Annotation,
    Assignment,
    AssignmentState,
    AuditEvent,
    Batch,
    BatchState,
    BatchTarget,
    BatchVariant,
    Checkpoint,
    Comparison,
    ComparisonState,
    Conversation,
    Freeze,
    Person,
    PoolPrompt,
    PoolPromptState,
    PreferenceDataset,
    Review,
    Skip,
    SkippedWeek,
)
from contract.vocabulary import Objective

_AT_WORK = (ComparisonState.SAMPLING, ComparisonState.READY, ComparisonState.ANNOTATED)
"""States in which an annotator who holds a place may still judge; an annotated one wants a second opinion."""


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


def skipped_weeks(session: Session) -> list[SkippedWeek]:
    """The weeks that are or were skipped, in order."""
    return list(session.scalars(select(SkippedWeek).order_by(SkippedWeek.starts_on)))


def skippers(session: Session) -> dict[UUID, str]:
    """The names of those who skipped a week."""
    rows = session.execute(select(Person.id, Person.name).join(SkippedWeek, SkippedWeek.skipped_by == Person.id))
    return dict(rows.all())


def targets(session: Session, batch_id: UUID) -> dict[Objective, int]:
    """How many comparisons of each objective a batch wants."""
    rows = session.execute(select(BatchTarget.objective, BatchTarget.target).where(BatchTarget.batch_id == batch_id))
    found = dict(rows.all())
    return {objective: found.get(objective, 0) for objective in Objective}


def variants(session: Session, batch_id: UUID) -> list[BatchVariant]:
    """The model variants of a batch."""
    return list(
        session.scalars(select(BatchVariant).where(BatchVariant.batch_id == batch_id).order_by(BatchVariant.position))
    )


def progress(session: Session, batch_id: UUID) -> list[Progress]:
    """Targets and annotated comparisons of each objective that a batch collects."""
    rows = session.execute(
        select(Comparison.objective, func.count())
        .where(Comparison.batch_id == batch_id, Comparison.state == ComparisonState.ANNOTATED)
        .group_by(Comparison.objective)
    ).all()
    annotated = dict(rows)
    return [
        Progress(objective=objective, target=target, annotated=annotated.get(objective, 0))
        for objective, target in targets(session, batch_id).items()
        if target or annotated.get(objective)
    ]


def progress_by_batch(session: Session) -> dict[UUID, list[Progress]]:
    """Targets and annotated comparisons of every batch."""
    annotated = (
        select(Comparison.batch_id, Comparison.objective, func.count().label("annotated"))
        .where(Comparison.state == ComparisonState.ANNOTATED)
        .group_by(Comparison.batch_id, Comparison.objective)
        .subquery()
    )
    rows = session.execute(
        select(BatchTarget, func.coalesce(annotated.c.annotated, 0))
        .outerjoin(
            annotated,
            (annotated.c.batch_id == BatchTarget.batch_id) & (annotated.c.objective == BatchTarget.objective),
        )
        .order_by(BatchTarget.objective)
    )
    found: dict[UUID, list[Progress]] = defaultdict(list)
    for target, count in rows:
        if target.target or count:
            found[target.batch_id].append(Progress(target.objective, target=target.target, annotated=count))
    return found


def count_by_state(session: Session, batch_id: UUID) -> dict[ComparisonState, int]:
    """How many comparisons of a batch are in each state."""
    rows = session.execute(
        select(Comparison.state, func.count()).where(Comparison.batch_id == batch_id).group_by(Comparison.state)
    ).all()
    return dict.fromkeys(ComparisonState, 0) | dict(rows)


def count_held_places(session: Session, batch_id: UUID) -> int:
    """How many comparisons annotators have before them: waiting for responses, or for their judgement."""
    return session.scalar(select(func.count()).select_from(_held_places(batch_id, _AT_WORK).subquery())) or 0


def has_held_places(session: Session, batch_id: UUID) -> bool:
    """Whether an annotator still has a comparison of a batch to judge; what nobody holds keeps no batch open."""
    return bool(session.scalar(select(_held_places(batch_id, _AT_WORK).exists())))


def held_places(session: Session, batch_id: UUID) -> list[Assignment]:
    """All places that annotators hold at comparisons of a batch, also at those whose sampling failed."""
    return list(session.scalars(_held_places(batch_id, tuple(ComparisonState))))


def _held_places(batch_id: UUID, states: Sequence[ComparisonState]) -> Select[Assignment]:
    return (
        select(Assignment)
        .join(Comparison, Comparison.id == Assignment.comparison_id)
        .where(
            Comparison.batch_id == batch_id,
            Comparison.state.in_(states),
            Assignment.state == AssignmentState.HELD,
        )
    )


def unfinished_comparisons(session: Session, batch_id: UUID) -> list[Comparison]:
    """Comparisons of a batch that wait for responses or for a first judgement, whoever holds them."""
    return list(
        session.scalars(
            select(Comparison).where(
                Comparison.batch_id == batch_id,
                Comparison.state.in_([ComparisonState.SAMPLING, ComparisonState.READY]),
            )
        )
    )


def close_places(session: Session, batch_id: UUID) -> None:
    """Offer no comparison of a batch to anybody any more."""
    session.execute(
        update(Comparison).where(Comparison.batch_id == batch_id, Comparison.open_places > 0).values(open_places=0)
    )


def release_pool_prompts(session: Session, batch_id: UUID) -> int:
    """Let those prompts of the pool wait again that nobody has judged or skipped, and say how many."""
    is_skipped = exists().where(Skip.comparison_id == Comparison.id)
    unseen = (
        select(Conversation.pool_prompt_id)
        .join(Comparison, Comparison.conversation_id == Conversation.id)
        .where(
            Conversation.batch_id == batch_id,
            Conversation.pool_prompt_id.is_not(None),
            Comparison.turn == 1,
            Comparison.state.in_([ComparisonState.ABANDONED, ComparisonState.FAILED]),
            ~is_skipped,
        )
    )
    released = session.execute(
        update(PoolPrompt)
        .where(PoolPrompt.id.in_(unseen), PoolPrompt.state == PoolPromptState.USED)
        .values(state=PoolPromptState.WAITING, used_at=None)
        .returning(PoolPrompt.id)
        .execution_options(synchronize_session=False)
    )
    return len(released.all())


def count_waiting_pool_prompts(session: Session) -> dict[Objective, int]:
    """How many prompts of the pool wait, by objective."""
    rows = session.execute(
        select(PoolPrompt.objective, func.count())
        .where(PoolPrompt.state == PoolPromptState.WAITING)
        .group_by(PoolPrompt.objective)
    ).all()
    return dict.fromkeys(Objective, 0) | dict(rows)


def count_reviewed(session: Session, batch_id: UUID) -> tuple[int, int]:
    """How many primary annotations of a batch there are, and how many of them were reviewed as they stand now."""
    annotations = (
        select(func.count(Annotation.id))
        .join(Comparison, Comparison.id == Annotation.comparison_id)
        .where(Annotation.is_primary)
    )
    total = session.scalar(annotations.where(Comparison.batch_id == batch_id)) or 0
    reviewed = session.scalar(
        annotations.join(
            Review, (Review.annotation_id == Annotation.id) & (Review.revision == Annotation.revision)
        ).where(Comparison.batch_id == batch_id)
    )
    return total, reviewed or 0


def datasets(session: Session, batch_id: UUID) -> list[PreferenceDataset]:
    """The frozen datasets of a batch: the first one and its corrections."""
    return list(
        session.scalars(
            select(PreferenceDataset).where(PreferenceDataset.batch_id == batch_id).order_by(PreferenceDataset.version)
        )
    )


def dataset_names(session: Session) -> dict[UUID, str]:
    """The newest dataset of each batch, by name."""
    rows = session.execute(
        select(PreferenceDataset.batch_id, PreferenceDataset.name).order_by(PreferenceDataset.version)
    )
    return dict(rows.all())


def events(session: Session, batch: Batch) -> list[tuple[AuditEvent, str | None]]:
    """What was done to a batch, the latest first, each with its actor's name."""
    rows = session.execute(
        select(AuditEvent, Person.name)
        .outerjoin(Person, Person.id == AuditEvent.actor_id)
        .where(AuditEvent.subject == f"batch {batch.number}")
        .order_by(AuditEvent.at.desc())
    )
    return [(event, name) for event, name in rows]


def checkpoint_names(session: Session, batch_id: UUID) -> dict[UUID, str]:
    """The names of the checkpoints that a batch's variants sample from."""
    rows = session.execute(
        select(Checkpoint.id, Checkpoint.name)
        .join(BatchVariant, BatchVariant.checkpoint_id == Checkpoint.id)
        .where(BatchVariant.batch_id == batch_id)
    )
    return dict(rows.all())


def freeze_of(session: Session, batch_id: UUID) -> Freeze | None:
    """The dataset of a batch that is being written, or is to be."""
    return session.get(Freeze, batch_id)
