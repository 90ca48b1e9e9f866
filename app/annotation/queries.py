"""The SQL of the workspace: an annotator's conversations and comparisons, read and locked."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BindParameter, Select, Uuid, bindparam, func, literal, select, union_all, update
from sqlalchemy.orm import Session, aliased, contains_eager, joinedload

from app.comparisons.turns import drawn_turns
from app.models import (
    Annotation,
    Assignment,
    AssignmentState,
    Batch,
    BatchState,
    Comparison,
    ComparisonState,
    Conversation,
    ConversationState,
    Flag,
    FlagKind,
    Guideline,
    GuidelineRead,
    Person,
    PromptSource,
    Response,
    Skip,
)
from contract.vocabulary import Objective

# The statements that every screen needs are built once: building one costs more than running it.
_ANNOTATOR: BindParameter[UUID] = bindparam("annotator_id", type_=Uuid())
_COMPARISON: BindParameter[UUID] = bindparam("comparison_id", type_=Uuid())
_OBJECTIVE: BindParameter[Objective] = bindparam("objective", type_=Guideline.objective.type)
_RUNNING = (BatchState.OPEN, BatchState.CLOSING)
_EXCERPT_CHARACTERS = 80
# Only what the screen shows is read. Touching anything else of a response, such as its temperature, fails.
# They come with the comparison, in the same statement: two rows are not worth a statement of their own.
_SHOWN = joinedload(Comparison.responses, innerjoin=True).load_only(
    Response.comparison_id, Response.side, Response.text, raiseload=True
)
_SIDES = joinedload(Comparison.responses, innerjoin=True).load_only(
    Response.comparison_id, Response.side, raiseload=True
)


@dataclass(frozen=True)
class UnderWay:
    """A comparison on an annotator's desk: the latest of a conversation of theirs, or one that was handed to them."""

    comparison_id: UUID
    conversation_id: UUID
    batch_id: UUID
    batch_state: BatchState
    turns_per_conversation: int
    multi_turn_share: float
    state: ComparisonState
    turn: int
    excerpt: str
    """The beginning of its prompt."""
    is_own: bool
    is_growing: bool
    """Whether some text of its responses is there."""
    asked_at: datetime

    @property
    def most_turns(self) -> int:
        """The most turns that its conversation may have."""
        return drawn_turns(self.conversation_id, self.turns_per_conversation, self.multi_turn_share)


def excerpt(prompt: str) -> str:
    """The beginning of a prompt."""
    return prompt[:_EXCERPT_CHARACTERS]


def _desk(*, is_own: bool) -> Select[*tuple[Any, ...]]:
    grows = select(Response.id).where(Response.comparison_id == Comparison.id, Response.text != "").exists()
    return (
        select(
            Comparison.id.label("comparison_id"),
            Comparison.conversation_id,
            Comparison.batch_id,
            Batch.state.label("batch_state"),
            Batch.turns_per_conversation,
            Batch.multi_turn_share,
            Comparison.state,
            Comparison.turn,
            func.substr(Comparison.prompt, 1, _EXCERPT_CHARACTERS).label("excerpt"),
            literal(is_own).label("is_own"),
            grows.label("is_growing"),
            Comparison.created_at.label("asked_at"),
        )
        .join(Batch, Batch.id == Comparison.batch_id)
        .where(Batch.state.in_(_RUNNING))
    )


def _own() -> Select[*tuple[Any, ...]]:
    later = aliased(Comparison)
    has_later = select(later.id).where(
        later.conversation_id == Comparison.conversation_id, later.turn > Comparison.turn
    )
    return (
        _desk(is_own=True)
        .join(Conversation, Conversation.id == Comparison.conversation_id)
        .where(
            Conversation.annotator_id == _ANNOTATOR,
            Conversation.state == ConversationState.ACTIVE,
            ~has_later.exists(),
        )
    )


def _handed() -> Select[*tuple[Any, ...]]:
    return (
        _desk(is_own=False)
        .join(Assignment, Assignment.comparison_id == Comparison.id)
        .where(
            Assignment.annotator_id == _ANNOTATOR,
            Assignment.state == AssignmentState.HELD,
            Assignment.held_until.is_not(None),
            Comparison.state.in_([ComparisonState.READY, ComparisonState.ANNOTATED]),
        )
    )


_UNDER_WAY = union_all(_own(), _handed())


def under_way(session: Session, annotator_id: UUID) -> list[UnderWay]:
    """What is on an annotator's desk in the batches that are running: their own comparisons, then those handed out.

    What waited longest comes first.
    """
    rows = session.execute(_UNDER_WAY, {"annotator_id": annotator_id}).all()
    found = [UnderWay(*row) for row in rows]
    return sorted(found, key=lambda row: (not row.is_own, row.asked_at))


def next_batch(session: Session) -> Batch | None:
    """The batch that opens next."""
    return session.scalars(
        select(Batch).where(Batch.state == BatchState.SCHEDULED).order_by(Batch.opens_at).limit(1)
    ).one_or_none()


def locked_annotator(session: Session, annotator_id: UUID) -> Person:
    """An annotator, locked: of two conversations that begin at once, the second sees the first."""
    return session.scalars(select(Person).where(Person.id == annotator_id).with_for_update(key_share=True)).one()


def note_presence(session: Session, annotator_id: UUID, *, at: datetime) -> None:
    """Note that an annotator is here."""
    session.execute(
        update(Person)
        .where(Person.id == annotator_id)
        .values(last_seen_at=at)
        .execution_options(synchronize_session=False)
    )


@dataclass(frozen=True)
class Held:
    """A comparison with its conversation, and the annotator's place at it."""

    comparison: Comparison
    conversation: Conversation
    assignment: Assignment

    @property
    def is_own(self) -> bool:
        """Whether the annotator writes its prompts."""
        return self.conversation.annotator_id == self.assignment.annotator_id

    @property
    def is_from_pool(self) -> bool:
        """Whether its prompt came from the pool."""
        return self.conversation.source is PromptSource.POOL


@dataclass(frozen=True)
class HeldInBatch(Held):
    """The same, with the batch as it stands."""

    batch: Batch


_AT_PLACE = (
    select(Assignment, Comparison)
    .join(Comparison, Comparison.id == Assignment.comparison_id)
    .join(Comparison.conversation)
    .where(Assignment.comparison_id == _COMPARISON, Assignment.annotator_id == _ANNOTATOR)
    .options(contains_eager(Comparison.conversation))
)
_HELD = _AT_PLACE.add_columns(Batch).join(Batch, Batch.id == Comparison.batch_id).options(_SHOWN)
_LOCK = select(Comparison.id).where(Comparison.id == _COMPARISON).with_for_update()
_HELD_AFRESH = _AT_PLACE.options(_SIDES).execution_options(populate_existing=True)


def held(session: Session, annotator_id: UUID, comparison_id: UUID) -> HeldInBatch | None:
    """A comparison that the annotator has a place at, with its responses as far as they are shown."""
    keys = {"annotator_id": annotator_id, "comparison_id": comparison_id}
    row = session.execute(_HELD, keys).unique().one_or_none()
    return None if row is None else HeldInBatch(row[1], row[1].conversation, row[0], row[2])


def locked_held(session: Session, annotator_id: UUID, comparison_id: UUID) -> Held | None:
    """A comparison that the annotator has a place at, locked, with the responses' sides but not their texts.

    The comparison is locked first and all is read after it: a single statement that had waited for the lock would
    show the place as it was before.
    """
    keys = {"annotator_id": annotator_id, "comparison_id": comparison_id}
    session.scalar(_LOCK, keys)
    row = session.execute(_HELD_AFRESH, keys).unique().one_or_none()
    return None if row is None else Held(row[1], row[1].conversation, row[0])


def comparison(session: Session, comparison_id: UUID) -> Comparison | None:
    """A comparison, whoever's it is."""
    return session.get(Comparison, comparison_id)


def locked_conversation(session: Session, annotator_id: UUID, conversation_id: UUID) -> Conversation | None:
    """An annotator's own conversation, locked."""
    return session.scalars(
        select(Conversation)
        .where(Conversation.id == conversation_id, Conversation.annotator_id == annotator_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one_or_none()


def latest_comparison(session: Session, conversation_id: UUID) -> Comparison:
    """The comparison of a conversation's last turn."""
    return session.scalars(
        select(Comparison)
        .where(Comparison.conversation_id == conversation_id)
        .order_by(Comparison.turn.desc())
        .limit(1)
        .execution_options(populate_existing=True)
    ).one()


_HELD_BATCH = (
    select(Batch)
    .where(Batch.id == bindparam("batch_id", type_=Uuid()))
    .with_for_update(read=True, key_share=True)
    .execution_options(populate_existing=True)
)


def held_batch(session: Session, batch_id: UUID) -> Batch:
    """A batch that cannot close until this transaction ends; annotators do not wait for each other."""
    return session.scalars(_HELD_BATCH, {"batch_id": batch_id}).one()


def batch(session: Session, batch_id: UUID) -> Batch:
    """A batch as it stands."""
    return session.get_one(Batch, batch_id)


def annotation_of(session: Session, comparison_id: UUID, annotator_id: UUID) -> Annotation | None:
    """What an annotator has said about a comparison."""
    return session.scalars(
        select(Annotation).where(Annotation.comparison_id == comparison_id, Annotation.annotator_id == annotator_id)
    ).one_or_none()


def count_skips(session: Session, comparison_id: UUID) -> int:
    """How many annotators have skipped a comparison."""
    return session.scalar(select(func.count(Skip.id)).where(Skip.comparison_id == comparison_id)) or 0


def flag_of(session: Session, comparison_id: UUID, annotator_id: UUID, kind: FlagKind) -> Flag | None:
    """An annotator's remark of one kind on a comparison."""
    return session.scalars(
        select(Flag).where(Flag.comparison_id == comparison_id, Flag.annotator_id == annotator_id, Flag.kind == kind)
    ).one_or_none()


@dataclass(frozen=True)
class GuidelineShown:
    """The newest version of a guideline, and the newest that the annotator has read."""

    guideline: Guideline
    read_version: int | None


def _guideline() -> Select[Guideline, int | None]:
    read = aliased(Guideline)
    read_version = (
        select(func.max(read.version))
        .join(GuidelineRead, GuidelineRead.guideline_id == read.id)
        .where(GuidelineRead.annotator_id == _ANNOTATOR, read.objective == Guideline.objective)
        .scalar_subquery()
    )
    newest_first = Guideline.version.desc()
    return select(Guideline, read_version).where(Guideline.objective == _OBJECTIVE).order_by(newest_first).limit(1)


_GUIDELINE = _guideline()
_GUIDELINE_ID = (
    select(Guideline.id).where(Guideline.objective == _OBJECTIVE).order_by(Guideline.version.desc()).limit(1)
)


def guideline(session: Session, annotator_id: UUID, objective: Objective) -> GuidelineShown:
    """The guideline of an objective as an annotator sees it."""
    row = session.execute(_GUIDELINE, {"annotator_id": annotator_id, "objective": objective}).one()
    return GuidelineShown(row[0], row[1])


def guideline_id(session: Session, objective: Objective) -> UUID:
    """The newest version of the guideline for an objective."""
    return session.scalars(_GUIDELINE_ID, {"objective": objective}).one()


def note_guideline_read(session: Session, annotator_id: UUID, guideline_id: UUID, *, at: datetime) -> None:
    """Note that an annotator has read a version of a guideline; once is enough."""
    if session.get(GuidelineRead, (annotator_id, guideline_id)) is None:
        session.add(GuidelineRead(annotator_id=annotator_id, guideline_id=guideline_id, at=at))


def has_later_turn(session: Session, comparison: Comparison) -> bool:
    """Whether the conversation has gone on after a comparison."""
    later = select(Comparison.id).where(
        Comparison.conversation_id == comparison.conversation_id, Comparison.turn > comparison.turn
    )
    return session.scalars(later.limit(1)).one_or_none() is not None


def stale_conversations(session: Session, annotator_id: UUID) -> Sequence[Conversation]:
    """Conversations of an annotator that never finished, of batches that do not run any more."""
    return session.scalars(
        select(Conversation)
        .join(Batch, Batch.id == Conversation.batch_id)
        .where(
            Conversation.annotator_id == annotator_id,
            Conversation.state == ConversationState.ACTIVE,
            Batch.state.not_in(_RUNNING),
        )
    ).all()


def mark_shown(session: Session, comparison_id: UUID, annotator_id: UUID, *, at: datetime) -> None:
    """Note when an annotator first saw both responses; later looks change nothing."""
    session.execute(
        update(Assignment)
        .where(
            Assignment.comparison_id == comparison_id,
            Assignment.annotator_id == annotator_id,
            Assignment.shown_at.is_(None),
        )
        .values(shown_at=at)
        .execution_options(synchronize_session=False)
    )


def load_all_of_responses(session: Session, comparison: Comparison) -> None:
    """Read the responses of a comparison in full, to sample them again."""
    session.scalars(
        select(Response).where(Response.comparison_id == comparison.id).execution_options(populate_existing=True)
    ).all()
