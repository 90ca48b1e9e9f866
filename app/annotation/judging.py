"""What an annotator says about a comparison: a choice with its strength, changed as long as that is fair, or a skip."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.orm import Session

from app.annotation import days, desk, drafts, queries, service
from app.annotation.answers import Answer
from app.annotation.days import Work
from app.annotation.queries import Held
from app.comparisons import handout
from app.comparisons.turns import most_turns
from app.models import (
    Annotation,
    AnnotationRevision,
    AssignmentState,
    Batch,
    Comparison,
    ComparisonState,
    Flag,
    FlagKind,
    Person,
    Skip,
    SkipPolicy,
    SkipReason,
    now,
)
from app.pool import stock

# These reasons are about the comparison, not about the annotator: somebody else would only find the same.
_FAULTS = frozenset({SkipReason.BOTH_BROKEN, SkipReason.PROMPT_MISTAKE})
_MOST_SKIPS = 3
_JUDGED = ("strength", "chosen_safe", "rejected_safe", "rationale", "chosen_quality", "rejected_quality", "edited_text")


def annotate(
    session: Session, annotator: Person, batch: Batch, held: Held, answer: Answer, *, minutes: float
) -> Annotation:
    """Record a choice, or change it as long as that is fair; every change is a revision.

    ``held`` is locked, ``batch`` is its batch and held open, and ``answer`` was read for it. The first annotation of a
    comparison is primary: it is the dataset's row and the conversation's history; later ones count towards agreement.

    Raises:
        BatchClosedError: The batch takes no more annotations.
        MovedOnError: The comparison is not ready, was skipped or handed to somebody else, or a later prompt builds
            on its choice.

    """
    comparison = held.comparison
    is_known = held.assignment.state is AssignmentState.DONE
    annotation = queries.annotation_of(session, comparison.id, annotator.id) if is_known else None
    if annotation is not None and _says(annotation, answer):
        return annotation
    service.require_running(batch)
    at = now()
    if annotation is None:
        _require_place(held, at=at, minutes=minutes)
        annotation = _create(session, held, answer, at=at)
        _move_on(session, batch, held, annotation)
    elif service.is_changeable(session, batch, comparison, is_primary=annotation.is_primary):
        _revise(session, annotation, answer)
    else:
        msg = "This comparison cannot be judged any more: the conversation has moved on."
        raise service.MovedOnError(msg)
    drafts.drop(session, annotator, comparison.id)
    return annotation


def skip(
    session: Session, annotator: Person, comparison_id: UUID, reason: SkipReason, note: str = "", *, minutes: float
) -> None:
    """Refuse to judge a comparison. What becomes of it is the batch's policy; an own conversation ends.

    Raises:
        NotFoundError: The annotator has no such comparison.
        BatchClosedError: The batch takes no more annotations.
        MovedOnError: The comparison is not waiting to be judged.

    """
    held = service.locked_held(session, annotator, comparison_id)
    if held.assignment.state is AssignmentState.SKIPPED:
        return
    batch = service.running_batch(session, held.comparison.batch_id)
    at = now()
    _require_place(held, at=at, minutes=minutes)
    is_handed_on = (
        batch.skip_policy is SkipPolicy.HAND_ON
        and reason not in _FAULTS
        and queries.count_skips(session, comparison_id) + 1 < _MOST_SKIPS
    )
    session.add(Skip(comparison_id=comparison_id, annotator_id=annotator.id, reason=reason, note=note.strip()))
    held.assignment.state = AssignmentState.SKIPPED
    held.assignment.held_until = None
    if is_handed_on:
        handout.hand_on(held.comparison)
    else:
        handout.retire(session, held.comparison)
    if held.is_own:
        # Without a choice of the author's nothing can follow.
        service.finish(held.conversation)
    days.count(session, batch, held.comparison.objective, annotator.id, at=at, work=Work(skips=1))
    drafts.drop(session, annotator, comparison_id)


def flag(session: Session, annotator: Person, comparison_id: UUID, kind: FlagKind, note: str) -> None:
    """Note something about a comparison for reviewers and admins; saying it again replaces the note.

    Raises:
        NotFoundError: The annotator has no such comparison.

    """
    held = service.locked_held(session, annotator, comparison_id)
    found = queries.flag_of(session, held.comparison.id, annotator.id, kind)
    if found is None:
        session.add(Flag(comparison_id=comparison_id, annotator_id=annotator.id, kind=kind, note=note.strip()))
    else:
        found.note = note.strip()


def _require_place(held: Held, *, at: datetime, minutes: float) -> None:
    """Refuse to judge what does not wait for this annotator; who was idle takes their place again if it is free."""
    is_open = held.comparison.state in {ComparisonState.READY, ComparisonState.ANNOTATED}
    has_place = held.assignment.state is AssignmentState.HELD or (
        held.assignment.state is AssignmentState.GIVEN_BACK
        and handout.retake(held.comparison, held.assignment, at=at, minutes=minutes)
    )
    if is_open and has_place:
        return
    if held.assignment.state is AssignmentState.GIVEN_BACK:
        msg = "You were away for a while, and this comparison was given to somebody else."
    else:
        msg = "This comparison does not wait to be judged. Reload the page to see where it stands."
    raise service.MovedOnError(msg)


def _move_on(session: Session, batch: Batch, held: Held, annotation: Annotation) -> None:
    """What follows from a first annotation by this annotator."""
    comparison = held.comparison
    held.assignment.state = AssignmentState.DONE
    held.assignment.held_until = None
    if annotation.is_primary:
        comparison.state = ComparisonState.ANNOTATED
        if held.is_from_pool:
            stock.follow_up(session, batch, held.conversation, comparison)
        elif held.is_own:
            # Others may judge it only now: the author's choice is the conversation's history.
            comparison.open_places = comparison.annotations_wanted - 1
            if not _can_go_on(batch, comparison):
                service.finish(held.conversation)
    work = Work(
        annotations=1,
        comparisons=int(annotation.is_primary),
        seconds=annotation.seconds,
        pool_prompts=int(annotation.is_primary and held.is_from_pool),
    )
    at = annotation.created_at
    days.count(session, batch, comparison.objective, annotation.annotator_id, at=at, work=work)


def _can_go_on(batch: Batch, comparison: Comparison) -> bool:
    turns = most_turns(batch, comparison.conversation_id)
    return desk.has_next_step(comparison.state, comparison.turn, batch.state, turns, is_own=True)


def _says(annotation: Annotation, answer: Answer) -> bool:
    return annotation.chosen_response_id == answer.chosen.id and all(
        getattr(annotation, name) == getattr(answer, name) for name in _JUDGED
    )


def _create(session: Session, held: Held, answer: Answer, *, at: datetime) -> Annotation:
    comparison = held.comparison
    annotation = Annotation(
        comparison_id=comparison.id,
        objective=comparison.objective,
        annotator_id=held.assignment.annotator_id,
        chosen_response_id=answer.chosen.id,
        guideline_id=queries.guideline_id(session, comparison.objective),
        # Processes on several machines may disagree a little about the time; nobody judges in less than none.
        seconds=max(0.0, (at - (held.assignment.shown_at or at)).total_seconds()),
        is_primary=comparison.state is ComparisonState.READY,
        created_at=at,
        updated_at=at,
        **{name: getattr(answer, name) for name in _JUDGED},
    )
    session.add(annotation)
    _add_revision(session, annotation)
    return annotation


def _revise(session: Session, annotation: Annotation, answer: Answer) -> None:
    """Change an annotation. Its seconds stay: they measure how long the first decision took."""
    annotation.chosen_response_id = answer.chosen.id
    for name in _JUDGED:
        setattr(annotation, name, getattr(answer, name))
    annotation.guideline_id = queries.guideline_id(session, annotation.objective)
    annotation.revision += 1
    annotation.updated_at = now()
    _add_revision(session, annotation)


def _add_revision(session: Session, annotation: Annotation) -> None:
    session.add(
        AnnotationRevision(
            annotation_id=annotation.id,
            revision=annotation.revision,
            chosen_response_id=annotation.chosen_response_id,
            author_id=annotation.annotator_id,
            **{name: getattr(annotation, name) for name in _JUDGED},
        )
    )
