"""The SQL of the workspace: an annotator's own conversations and comparisons, and how far the batch is."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, aliased, contains_eager, selectinload

from app.models import (
    Annotation,
    Batch,
    BatchState,
    BatchTarget,
    Comparison,
    ComparisonState,
    Conversation,
    ConversationState,
    Person,
    Response,
    Skip,
)
from contract.vocabulary import Objective

# Only what the screen shows is read. Touching anything else of a response, such as its temperature, fails.
_SHOWN = selectinload(Comparison.responses).load_only(
    Response.comparison_id, Response.side, Response.text, raiseload=True
)


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
class Live:
    """A conversation that is under way, with its batch and its latest comparison."""

    conversation: Conversation
    batch: Batch
    comparison: Comparison


def progress(session: Session, batch_id: UUID) -> list[ObjectiveProgress]:
    """The objectives that a batch collects, each with its target and what is annotated."""
    annotated = (
        select(func.count())
        .where(
            Comparison.batch_id == BatchTarget.batch_id,
            Comparison.objective == BatchTarget.objective,
            Comparison.state == ComparisonState.ANNOTATED,
        )
        .correlate(BatchTarget)
        .scalar_subquery()
    )
    rows = session.execute(
        select(BatchTarget.objective, BatchTarget.target, annotated)
        .where(BatchTarget.batch_id == batch_id, BatchTarget.target > 0)
        .order_by(BatchTarget.objective)
    )
    return [ObjectiveProgress(objective, target, count) for objective, target, count in rows]


def next_batch(session: Session) -> Batch | None:
    """The batch that opens next."""
    return session.scalars(
        select(Batch).where(Batch.state == BatchState.SCHEDULED).order_by(Batch.opens_at).limit(1)
    ).one_or_none()


def live(session: Session, annotator_id: UUID) -> Live | None:
    """The annotator's latest unfinished conversation of a batch that is open or closing."""
    row = session.execute(
        select(Conversation, Batch)
        .join(Batch, Batch.id == Conversation.batch_id)
        .where(
            Conversation.annotator_id == annotator_id,
            Conversation.state == ConversationState.ACTIVE,
            Batch.state.in_([BatchState.OPEN, BatchState.CLOSING]),
        )
        .order_by(Conversation.created_at.desc())
        .limit(1)
    ).one_or_none()
    if row is None:
        return None
    return Live(row[0], row[1], latest_comparison(session, row[0].id))


def latest_comparison(session: Session, conversation_id: UUID) -> Comparison:
    """The comparison of a conversation's last turn, with its responses as far as they are shown."""
    return session.scalars(
        select(Comparison)
        .where(Comparison.conversation_id == conversation_id)
        .order_by(Comparison.turn.desc())
        .limit(1)
        .options(_SHOWN)
    ).one()


def locked_annotator(session: Session, annotator_id: UUID) -> Person:
    """An annotator, locked: of two conversations that begin at once, the second sees the first."""
    return session.scalars(select(Person).where(Person.id == annotator_id).with_for_update(key_share=True)).one()


def own_comparison(session: Session, annotator_id: UUID, comparison_id: UUID) -> Comparison | None:
    """An annotator's own comparison with its conversation and its responses as far as they are shown."""
    return session.scalars(
        select(Comparison)
        .join(Comparison.conversation)
        .where(Comparison.id == comparison_id, Conversation.annotator_id == annotator_id)
        .options(contains_eager(Comparison.conversation), _SHOWN)
    ).one_or_none()


def own_conversation(session: Session, annotator_id: UUID, conversation_id: UUID) -> Conversation | None:
    """An annotator's own conversation, locked."""
    return session.scalars(
        select(Conversation)
        .where(Conversation.id == conversation_id, Conversation.annotator_id == annotator_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one_or_none()


def held_batch(session: Session, batch_id: UUID) -> Batch:
    """A batch that cannot close until this transaction ends; annotators do not wait for each other."""
    return session.scalars(
        select(Batch)
        .where(Batch.id == batch_id)
        .with_for_update(read=True, key_share=True)
        .execution_options(populate_existing=True)
    ).one()


def batch(session: Session, batch_id: UUID) -> Batch:
    """A batch as it stands."""
    return session.get_one(Batch, batch_id)


def annotation_of(session: Session, comparison_id: UUID, annotator_id: UUID) -> Annotation | None:
    """What an annotator has said about a comparison."""
    return session.scalars(
        select(Annotation).where(Annotation.comparison_id == comparison_id, Annotation.annotator_id == annotator_id)
    ).one_or_none()


def skip_of(session: Session, comparison_id: UUID, annotator_id: UUID) -> Skip | None:
    """An annotator's refusal to rate a comparison."""
    return session.scalars(
        select(Skip).where(Skip.comparison_id == comparison_id, Skip.annotator_id == annotator_id)
    ).one_or_none()


def last_annotated(session: Session, annotator_id: UUID) -> Comparison | None:
    """The comparison that an annotator judged last, with its conversation."""
    return session.scalars(
        select(Comparison)
        .join(Annotation, Annotation.comparison_id == Comparison.id)
        .join(Comparison.conversation)
        .where(Annotation.annotator_id == annotator_id, Conversation.annotator_id == annotator_id)
        .order_by(Annotation.created_at.desc())
        .limit(1)
        .options(contains_eager(Comparison.conversation))
    ).one_or_none()


def has_later_turn(session: Session, comparison: Comparison) -> bool:
    """Whether the conversation has gone on after a comparison."""
    later = aliased(Comparison)
    found = select(later.id).where(later.conversation_id == comparison.conversation_id, later.turn > comparison.turn)
    return session.scalars(found.limit(1)).one_or_none() is not None


def stale_conversations(session: Session, annotator_id: UUID) -> Sequence[Conversation]:
    """The annotator's conversations that were never finished."""
    return session.scalars(
        select(Conversation).where(
            Conversation.annotator_id == annotator_id, Conversation.state == ConversationState.ACTIVE
        )
    ).all()


def mark_shown(session: Session, comparison_id: UUID, *, at: datetime) -> None:
    """Note when both responses were first on the screen; later looks change nothing."""
    session.execute(
        update(Comparison).where(Comparison.id == comparison_id, Comparison.shown_at.is_(None)).values(shown_at=at)
    )


def load_all_of_responses(session: Session, comparison: Comparison) -> None:
    """Read the responses of a comparison in full, to sample them again."""
    session.scalars(
        select(Response).where(Response.comparison_id == comparison.id).execution_options(populate_existing=True)
    ).all()
