"""An annotator's own day: what they did, what can still be changed, what reviewers said, and what was skipped."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from statistics import median
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from app.annotation import days, queries
from app.annotation.days import ObjectiveProgress, Work
from app.batches import service as batches
from app.models import (
    Annotation,
    Batch,
    BatchState,
    Comparison,
    Person,
    Response,
    Review,
    Skip,
    SkipReason,
    Verdict,
    now,
)
from contract.vocabulary import Objective, Side, Strength

_ENTRIES = 50
_RUNNING = frozenset({BatchState.OPEN, BatchState.CLOSING})


@dataclass(frozen=True)
class HistoryEntry:
    """One of the annotator's choices."""

    comparison_id: UUID
    at: datetime
    objective: Objective
    turn: int
    excerpt: str
    chosen_side: Side
    strength: Strength
    seconds: float
    revision: int
    is_changeable: bool


@dataclass(frozen=True)
class SkippedEntry:
    """One comparison that the annotator skipped."""

    at: datetime
    reason: SkipReason
    note: str
    excerpt: str


@dataclass(frozen=True)
class FeedbackEntry:
    """What a reviewer said about one of the annotator's choices."""

    at: datetime
    verdict: Verdict
    feedback: str
    excerpt: str
    comparison_id: UUID


@dataclass(frozen=True)
class Day:
    """What an annotator may want to know about their work."""

    batch: Batch | None
    """The open batch."""
    time_zone: str
    objectives: Sequence[ObjectiveProgress]
    today: Work
    in_batch: Work
    median_s: float | None
    """Of the last choices."""
    entries: Sequence[HistoryEntry]
    skips: Sequence[SkippedEntry]
    feedback: Sequence[FeedbackEntry]


def day(session: Session, annotator: Person) -> Day:
    """The annotator's day, with their last choices, skips and feedback."""
    batch = batches.open_batch(session)
    entries = _entries(session, annotator.id)
    return Day(
        batch=batch,
        time_zone=batch.time_zone if batch is not None else "UTC",
        objectives=days.progress(session, batch.id) if batch is not None else [],
        today=_work(session, annotator.id, batch, days.day_of(batch, now())) if batch is not None else Work(),
        in_batch=_work(session, annotator.id, batch, None),
        median_s=median(entry.seconds for entry in entries) if entries else None,
        entries=entries,
        skips=_skips(session, annotator.id),
        feedback=_feedback(session, annotator.id),
    )


def _work(session: Session, annotator_id: UUID, batch: Batch | None, on: date | None) -> Work:
    return days.work_of(session, annotator_id, batch.id, on) if batch is not None else Work()


def _entries(session: Session, annotator_id: UUID) -> list[HistoryEntry]:
    later = aliased(Comparison)
    has_later = (
        select(later.id)
        .where(later.conversation_id == Comparison.conversation_id, later.turn > Comparison.turn)
        .exists()
    )
    rows = session.execute(
        select(Annotation, Comparison.turn, Comparison.prompt, Response.side, Batch.state, has_later)
        .join(Comparison, Comparison.id == Annotation.comparison_id)
        .join(Response, Response.id == Annotation.chosen_response_id)
        .join(Batch, Batch.id == Comparison.batch_id)
        .where(Annotation.annotator_id == annotator_id)
        .order_by(Annotation.created_at.desc())
        .limit(_ENTRIES)
    )
    return [
        HistoryEntry(
            comparison_id=annotation.comparison_id,
            at=annotation.created_at,
            objective=annotation.objective,
            turn=turn,
            excerpt=queries.excerpt(prompt),
            chosen_side=side,
            strength=annotation.strength,
            seconds=annotation.seconds,
            revision=annotation.revision,
            is_changeable=state in _RUNNING and not (annotation.is_primary and has_moved_on),
        )
        for annotation, turn, prompt, side, state, has_moved_on in rows
    ]


def _skips(session: Session, annotator_id: UUID) -> list[SkippedEntry]:
    rows = session.execute(
        select(Skip, Comparison.prompt)
        .join(Comparison, Comparison.id == Skip.comparison_id)
        .where(Skip.annotator_id == annotator_id)
        .order_by(Skip.at.desc())
        .limit(_ENTRIES)
    )
    return [SkippedEntry(skip.at, skip.reason, skip.note, queries.excerpt(prompt)) for skip, prompt in rows]


def _feedback(session: Session, annotator_id: UUID) -> list[FeedbackEntry]:
    """Verdicts with words: every rejection has some."""
    rows = session.execute(
        select(Review, Annotation.comparison_id, Comparison.prompt)
        .join(Annotation, Annotation.id == Review.annotation_id)
        .join(Comparison, Comparison.id == Annotation.comparison_id)
        .where(Annotation.annotator_id == annotator_id, Review.feedback != "")
        .order_by(Review.at.desc())
        .limit(_ENTRIES)
    )
    return [
        FeedbackEntry(review.at, review.verdict, review.feedback, queries.excerpt(prompt), comparison_id)
        for review, comparison_id, prompt in rows
    ]
