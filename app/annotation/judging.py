"""What an annotator says about a pair: a choice with its strength, changed as long as that is fair, or a skip."""

from sqlalchemy.orm import Session

from app.annotation import queries, service
from app.annotation.answers import Answer
from app.batches import guidelines
from app.models import (
    Annotation,
    AnnotationRevision,
    Comparison,
    ComparisonState,
    Person,
    Skip,
    SkipReason,
    now,
)


def annotate(session: Session, annotator: Person, comparison: Comparison, answer: Answer) -> Annotation:
    """Record a choice, or change it as long as the conversation has not moved on; every change is a revision.

    ``comparison`` is the annotator's own, and ``answer`` one that was read for it.

    Raises:
        BatchClosedError: The batch takes no more annotations.
        MovedOnError: The comparison is not ready, was skipped, or a later prompt builds on its choice.

    """
    conversation = service.own_conversation(session, annotator, comparison.conversation_id)
    session.refresh(comparison, ["state"])
    annotation = queries.annotation_of(session, comparison.id, annotator.id)
    if annotation is not None and _says(annotation, answer):
        return annotation
    batch = service.running_batch(session, comparison.batch_id)
    if annotation is not None and not queries.has_later_turn(session, comparison):
        _revise(session, annotation, answer)
    elif annotation is None and comparison.state is ComparisonState.READY:
        annotation = _create(session, annotator, comparison, answer)
        comparison.state = ComparisonState.ANNOTATED
        if not service.is_live(batch, comparison):
            service.finish(conversation)
    else:
        msg = "This comparison cannot be judged any more: the conversation has moved on."
        raise service.MovedOnError(msg)
    return annotation


def skip(session: Session, annotator: Person, comparison: Comparison, reason: SkipReason, note: str = "") -> None:
    """Refuse to rate a comparison. Without a choice nothing can follow, so the conversation ends.

    Raises:
        BatchClosedError: The batch takes no more annotations.
        MovedOnError: The comparison is not waiting to be judged.

    """
    conversation = service.own_conversation(session, annotator, comparison.conversation_id)
    session.refresh(comparison, ["state"])
    if queries.skip_of(session, comparison.id, annotator.id) is not None:
        return
    service.running_batch(session, comparison.batch_id)
    if comparison.state is not ComparisonState.READY:
        msg = "This comparison does not wait to be judged, so it cannot be skipped."
        raise service.MovedOnError(msg)
    session.add(Skip(comparison_id=comparison.id, annotator_id=annotator.id, reason=reason, note=note.strip()))
    comparison.state = ComparisonState.SKIPPED
    service.finish(conversation)


def _says(annotation: Annotation, answer: Answer) -> bool:
    return (
        annotation.chosen_response_id == answer.chosen.id
        and annotation.strength is answer.strength
        and annotation.chosen_safe is answer.chosen_safe
        and annotation.rejected_safe is answer.rejected_safe
        and annotation.rationale == answer.rationale
    )


def _create(session: Session, annotator: Person, comparison: Comparison, answer: Answer) -> Annotation:
    at = now()
    annotation = Annotation(
        comparison_id=comparison.id,
        objective=comparison.objective,
        annotator_id=annotator.id,
        chosen_response_id=answer.chosen.id,
        guideline_id=guidelines.current(session, comparison.objective).id,
        # Processes on several machines may disagree a little about the time; nobody judges in less than none.
        seconds=max(0.0, (at - (comparison.shown_at or at)).total_seconds()),
        strength=answer.strength,
        chosen_safe=answer.chosen_safe,
        rejected_safe=answer.rejected_safe,
        rationale=answer.rationale,
    )
    session.add(annotation)
    session.flush()
    _add_revision(session, annotation)
    return annotation


def _revise(session: Session, annotation: Annotation, answer: Answer) -> None:
    """Change an annotation. Its seconds stay: they measure how long the first decision took."""
    annotation.chosen_response_id = answer.chosen.id
    annotation.strength = answer.strength
    annotation.chosen_safe = answer.chosen_safe
    annotation.rejected_safe = answer.rejected_safe
    annotation.rationale = answer.rationale
    annotation.guideline_id = guidelines.current(session, annotation.objective).id
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
            strength=annotation.strength,
            chosen_safe=annotation.chosen_safe,
            rejected_safe=annotation.rejected_safe,
            rationale=annotation.rationale,
        )
    )
