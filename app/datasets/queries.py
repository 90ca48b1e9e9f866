"""The SQL of datasets: what a batch holds, in pieces small enough to work on one after the other."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import NamedTuple, TypeVar
from uuid import UUID

from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from app.models import (
    Annotation,
    Batch,
    Checkpoint,
    Comparison,
    ComparisonState,
    Conversation,
    Freeze,
    Guideline,
    Person,
    PreferenceDataset,
    PromptSource,
    Response,
    Review,
    SplitPrompt,
    Verdict,
    WorkDay,
)
from contract.vocabulary import (
    AttackVector,
    FinishReason,
    Generation,
    Objective,
    RiskCategory,
    Side,
    Split,
    Strength,
)

# Below the number of parameters that both databases take in one statement.
_CHUNK = 5000

ItemT = TypeVar("ItemT")


@dataclass(frozen=True, slots=True)
class Surveyed:
    """One comparison of a batch, with what decides whether it is a row."""

    conversation_id: UUID
    objective: Objective
    turn: int
    prompt: str
    state: ComparisonState
    annotator_id: UUID | None
    chosen_safe: bool | None
    rejected_safe: bool | None
    verdict: Verdict | None


class Annotated(NamedTuple):
    """One judged comparison, with its primary annotation."""

    comparison_id: UUID
    conversation_id: UUID
    objective: Objective
    turn: int
    prompt: str
    risk_category: RiskCategory | None
    attack_vector: AttackVector | None
    annotator_id: UUID
    chosen_response_id: UUID
    guideline_id: UUID
    strength: Strength
    chosen_safe: bool | None
    rejected_safe: bool | None
    seconds: float
    chosen_quality: int | None
    rejected_quality: int | None
    edited_text: str | None
    created_at: datetime
    source: PromptSource


class Sampled(NamedTuple):
    """One finished response, without its tokens."""

    id: UUID
    comparison_id: UUID
    side: Side
    checkpoint_id: UUID
    generation: Generation
    temperature: float
    top_p: float
    top_k: int
    seed: int
    max_new_tokens: int
    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: FinishReason
    engine: str


def chunks(items: Iterable[ItemT], size: int = _CHUNK) -> Iterator[list[ItemT]]:
    """The items in lists of at most ``size``."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def all_datasets(session: Session) -> list[tuple[PreferenceDataset, Batch]]:
    """Every dataset with its batch, the newest first."""
    rows = session.execute(
        select(PreferenceDataset, Batch)
        .join(Batch, Batch.id == PreferenceDataset.batch_id)
        .order_by(Batch.number.desc(), PreferenceDataset.version.desc())
    )
    return [(dataset, batch) for dataset, batch in rows]


def by_name(session: Session, name: str) -> PreferenceDataset | None:
    """The dataset with this name."""
    return session.scalars(select(PreferenceDataset).where(PreferenceDataset.name == name)).one_or_none()


def latest_version(session: Session, batch_id: UUID) -> PreferenceDataset | None:
    """The newest dataset of a batch."""
    return session.scalars(
        select(PreferenceDataset)
        .where(PreferenceDataset.batch_id == batch_id)
        .order_by(PreferenceDataset.version.desc())
        .limit(1)
    ).one_or_none()


def excluded_annotators(session: Session) -> list[UUID]:
    """The people whose work is left out at present."""
    return list(session.scalars(select(Person.id).where(Person.is_excluded).order_by(Person.id)))


def survey(session: Session, batch_id: UUID) -> Iterator[Surveyed]:
    """Every comparison of a batch, in no order, read piece by piece."""
    rows = session.execute(
        select(
            Comparison.conversation_id,
            Comparison.objective,
            Comparison.turn,
            Comparison.prompt,
            Comparison.state,
            Annotation.annotator_id,
            Annotation.chosen_safe,
            Annotation.rejected_safe,
            Review.verdict,
        )
        .outerjoin(Annotation, (Annotation.comparison_id == Comparison.id) & Annotation.is_primary)
        .outerjoin(Review, (Review.annotation_id == Annotation.id) & (Review.revision == Annotation.revision))
        .where(Comparison.batch_id == batch_id),
        execution_options={"yield_per": _CHUNK},
    )
    for row in rows:
        yield Surveyed(*row)


def settled_prompts(session: Session, prompts: Iterable[str]) -> dict[str, Split]:
    """The sides of those of the prompts that an earlier freeze settled."""
    settled: dict[str, Split] = {}
    for chunk in chunks(prompts):
        rows = session.execute(
            select(SplitPrompt.prompt_hash, SplitPrompt.split).where(SplitPrompt.prompt_hash.in_(chunk))
        )
        settled.update((prompt, split) for prompt, split in rows)
    return settled


def settle_prompts(session: Session, batch_id: UUID, sides: Sequence[tuple[str, Split]]) -> None:
    """Settle the sides of some prompts for ever."""
    session.execute(
        insert(SplitPrompt),
        [{"prompt_hash": prompt, "split": split, "batch_id": batch_id} for prompt, split in sides],
    )


def set_splits(session: Session, conversations: Sequence[UUID], split: Split) -> None:
    """Note on some conversations which side they are on."""
    session.execute(update(Conversation).where(Conversation.id.in_(conversations)).values(split=split))


def pending_freezes(session: Session) -> list[Freeze]:
    """The datasets that are to be written, those first that failed least, then the oldest."""
    order = (Freeze.attempts, Freeze.frozen_at, Freeze.batch_id)
    return list(session.scalars(select(Freeze).order_by(*order)))


def locked_freezes(session: Session) -> list[Freeze]:
    """The same, locked: one process at a time takes its pick."""
    return list(
        session.scalars(
            select(Freeze).order_by(Freeze.batch_id).with_for_update().execution_options(populate_existing=True)
        )
    )


def held_freeze(session: Session, batch_id: UUID, holder: str) -> Freeze | None:
    """The freeze of a batch, locked, if this holder still has it."""
    return session.scalars(
        select(Freeze)
        .where(Freeze.batch_id == batch_id, Freeze.holder == holder)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one_or_none()


def have_work_in(session: Session, people: Iterable[UUID], batch_id: UUID) -> bool:
    """Whether any of these people judged anything in a batch."""
    counted = select(WorkDay.annotator_id).where(WorkDay.batch_id == batch_id, WorkDay.annotator_id.in_(list(people)))
    return session.scalars(counted.where(WorkDay.annotations > 0).limit(1)).first() is not None


def newest_datasets(session: Session) -> list[tuple[PreferenceDataset, Batch]]:
    """The newest version of each batch's dataset, where no newer one is on its way."""
    newest = (
        select(PreferenceDataset.batch_id, func.max(PreferenceDataset.version).label("version"))
        .group_by(PreferenceDataset.batch_id)
        .subquery()
    )
    rows = session.execute(
        select(PreferenceDataset, Batch)
        .join(
            newest,
            (newest.c.batch_id == PreferenceDataset.batch_id) & (newest.c.version == PreferenceDataset.version),
        )
        .join(Batch, Batch.id == PreferenceDataset.batch_id)
        .outerjoin(Freeze, Freeze.batch_id == Batch.id)
        .where(Freeze.batch_id.is_(None))
        .order_by(Batch.number)
    )
    return [(dataset, batch) for dataset, batch in rows]


def splits(session: Session, batch_id: UUID) -> dict[UUID, Split]:
    """The sides of a batch's conversations, where they have one."""
    rows = session.execute(
        select(Conversation.id, Conversation.split).where(
            Conversation.batch_id == batch_id, Conversation.split.is_not(None)
        ),
        execution_options={"yield_per": _CHUNK},
    )
    return {conversation_id: split for conversation_id, split in rows if split is not None}


def annotated(session: Session, conversation_ids: Sequence[UUID]) -> list[Annotated]:
    """The judged comparisons of some conversations, by conversation and turn."""
    rows = session.execute(
        select(
            Comparison.id,
            Comparison.conversation_id,
            Comparison.objective,
            Comparison.turn,
            Comparison.prompt,
            Comparison.risk_category,
            Comparison.attack_vector,
            Annotation.annotator_id,
            Annotation.chosen_response_id,
            Annotation.guideline_id,
            Annotation.strength,
            Annotation.chosen_safe,
            Annotation.rejected_safe,
            Annotation.seconds,
            Annotation.chosen_quality,
            Annotation.rejected_quality,
            Annotation.edited_text,
            Annotation.created_at,
            Conversation.source,
        )
        .join(Annotation, (Annotation.comparison_id == Comparison.id) & Annotation.is_primary)
        .join(Conversation, Conversation.id == Comparison.conversation_id)
        .where(Comparison.conversation_id.in_(conversation_ids))
        .order_by(Comparison.conversation_id, Comparison.turn)
    )
    return [Annotated._make(row) for row in rows]


def responses(session: Session, comparison_ids: Sequence[UUID]) -> Iterator[Sampled]:
    """The finished responses of some comparisons."""
    for chunk in chunks(comparison_ids):
        rows = session.execute(
            select(*(getattr(Response, name) for name in Sampled._fields)).where(
                Response.comparison_id.in_(chunk), Response.finish_reason.is_not(None)
            )
        )
        yield from map(Sampled._make, rows)


def other_choices(session: Session, comparison_ids: Sequence[UUID]) -> list[tuple[UUID, UUID, UUID]]:
    """Comparison, annotator and chosen response of the annotations that are not rows but count for agreement."""
    rows = session.execute(
        select(Annotation.comparison_id, Annotation.annotator_id, Annotation.chosen_response_id).where(
            Annotation.comparison_id.in_(comparison_ids), ~Annotation.is_primary
        )
    )
    return [(comparison_id, annotator_id, response_id) for comparison_id, annotator_id, response_id in rows]


def checkpoints(session: Session) -> dict[UUID, Checkpoint]:
    """All chat checkpoints."""
    return {checkpoint.id: checkpoint for checkpoint in session.scalars(select(Checkpoint))}


def guidelines(session: Session) -> dict[UUID, Guideline]:
    """All guideline versions."""
    return {guideline.id: guideline for guideline in session.scalars(select(Guideline))}
