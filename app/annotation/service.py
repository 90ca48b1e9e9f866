"""What an annotator does: begin a conversation, judge its responses, go on, skip, finish.

Every function takes the annotator and reaches only what is theirs: anything else does not exist for them.
Sending the same thing twice, as a double click does, changes nothing and fails nothing.
"""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.orm import Session

from app.annotation import queries
from app.annotation.answers import Answer
from app.batches import guidelines
from app.batches import service as batches
from app.errors import ConflictError, InvalidInputError, NotFoundError
from app.models import (
    Annotation,
    AnnotationRevision,
    Batch,
    BatchState,
    Comparison,
    ComparisonState,
    Conversation,
    ConversationState,
    Person,
    Skip,
    SkipReason,
    now,
)
from app.sampling import service as sampling
from contract.vocabulary import Objective

_RUNNING = frozenset({BatchState.OPEN, BatchState.CLOSING})
_FAILED = frozenset({ComparisonState.FAILED, ComparisonState.EQUAL_RESPONSES})


class BatchClosedError(ConflictError):
    """The batch takes no new prompts, or no more annotations."""

    code = "batch_closed"


class MovedOnError(ConflictError):
    """The conversation is past this step."""

    code = "moved_on"


@dataclass(frozen=True)
class Opening:
    """The batch that takes new prompts, or why there is none."""

    batch: Batch | None
    has_model: bool


def opening(session: Session) -> Opening:
    """Whether a conversation can begin now."""
    batch = batches.open_batch(session)
    if batch is None:
        return Opening(None, has_model=False)
    has_model = all(variant.checkpoint_id is not None for variant in batches.variants(session, batch))
    return Opening(batch, has_model)


def live(session: Session, annotator: Person) -> queries.Live | None:
    """The conversation that the annotator is in, unless nothing is left to do in it."""
    found = queries.live(session, annotator.id)
    return found if found is not None and is_live(found.batch, found.comparison) else None


def is_live(batch: Batch, latest: Comparison) -> bool:
    """Whether a conversation has a next step: its pair is coming, is to be judged, or another prompt may follow."""
    if latest.state in {ComparisonState.SAMPLING, ComparisonState.READY}:
        return batch.state in _RUNNING
    if latest.state is ComparisonState.ANNOTATED:
        return batch.state is BatchState.OPEN and latest.turn < batch.turns_per_conversation
    return latest.state in _FAILED and batch.state is BatchState.OPEN


def own_comparison(session: Session, annotator: Person, comparison_id: UUID) -> Comparison:
    """One of the annotator's own comparisons.

    Raises:
        NotFoundError: There is none of this id, or it is somebody else's.

    """
    comparison = queries.own_comparison(session, annotator.id, comparison_id)
    if comparison is None:
        msg = "There is no such comparison."
        raise NotFoundError(msg)
    return comparison


def mark_shown(session: Session, comparison_id: UUID) -> None:
    """Start the clock of a comparison: its annotator sees both responses from now on. Only the first look counts."""
    queries.mark_shown(session, comparison_id, at=now())


def start_conversation(session: Session, annotator: Person, objective: Objective, prompt: str) -> Comparison:
    """Begin a conversation in the open batch, and ask for the two responses to its first prompt.

    Raises:
        BatchClosedError: No batch is open, or no checkpoint is promoted yet.
        MovedOnError: The annotator is in another conversation.
        InvalidInputError: The batch does not collect this objective.

    """
    queries.locked_annotator(session, annotator.id)
    under_way = live(session, annotator)
    if under_way is not None:
        if _is_repeated(under_way, 1, prompt) and under_way.conversation.objective is objective:
            return under_way.comparison
        msg = "You are in a conversation already. Judge it or finish it before you begin another one."
        raise MovedOnError(msg)
    found = opening(session)
    if found.batch is None or not found.has_model:
        msg = "No batch takes prompts at the moment. Your text was not saved; keep this page open and try again later."
        raise BatchClosedError(msg)
    batch = _open_batch(session, found.batch.id)
    if all(row.objective is not objective for row in queries.progress(session, batch.id)):
        msg = f"objective: batch {batch.number} does not collect {objective}."
        raise InvalidInputError(msg)
    for stale in queries.stale_conversations(session, annotator.id):
        _finish(stale)
    conversation = Conversation(batch_id=batch.id, objective=objective, annotator_id=annotator.id)
    session.add(conversation)
    session.flush()
    return _ask(session, batch, conversation, turn=1, prompt=prompt)


def continue_conversation(session: Session, annotator: Person, conversation_id: UUID, prompt: str) -> Comparison:
    """Write the next prompt of a conversation; the chosen response is the history it builds on.

    Raises:
        NotFoundError: The annotator has no such conversation.
        BatchClosedError: Its batch takes no new prompts.
        MovedOnError: It waits for something else, is finished, or has all the turns that it may have.

    """
    conversation = _own_conversation(session, annotator, conversation_id)
    latest = queries.latest_comparison(session, conversation.id)
    batch = queries.batch(session, conversation.batch_id)
    if latest.turn > 1 and _is_repeated(queries.Live(conversation, batch, latest), latest.turn, prompt):
        return latest
    batch = _open_batch(session, conversation.batch_id)
    is_next = latest.state is ComparisonState.ANNOTATED and conversation.state is ConversationState.ACTIVE
    if not is_next or latest.turn >= batch.turns_per_conversation:
        msg = "This conversation cannot take another prompt now. Reload the page to see where it stands."
        raise MovedOnError(msg)
    return _ask(session, batch, conversation, turn=latest.turn + 1, prompt=prompt)


def finish_conversation(session: Session, annotator: Person, conversation_id: UUID) -> None:
    """End a conversation.

    Raises:
        NotFoundError: The annotator has no such conversation.
        MovedOnError: Its responses are being sampled or wait to be judged.

    """
    conversation = _own_conversation(session, annotator, conversation_id)
    latest = queries.latest_comparison(session, conversation.id)
    if latest.state in {ComparisonState.SAMPLING, ComparisonState.READY}:
        msg = "Judge or skip the comparison first; then the conversation can be finished."
        raise MovedOnError(msg)
    _finish(conversation)


def annotate(session: Session, annotator: Person, comparison: Comparison, answer: Answer) -> Annotation:
    """Record a choice, or change it as long as the conversation has not moved on; every change is a revision.

    ``comparison`` is the annotator's own, and ``answer`` one that was read for it.

    Raises:
        BatchClosedError: The batch takes no more annotations.
        MovedOnError: The comparison is not ready, was skipped, or a later prompt builds on its choice.

    """
    conversation = _own_conversation(session, annotator, comparison.conversation_id)
    session.refresh(comparison, ["state"])
    annotation = queries.annotation_of(session, comparison.id, annotator.id)
    if annotation is not None and _says(annotation, answer):
        return annotation
    batch = _running_batch(session, comparison.batch_id)
    if annotation is not None and not queries.has_later_turn(session, comparison):
        _revise(session, annotation, answer)
    elif annotation is None and comparison.state is ComparisonState.READY:
        annotation = _create(session, annotator, comparison, answer)
        comparison.state = ComparisonState.ANNOTATED
        if not is_live(batch, comparison):
            _finish(conversation)
    else:
        msg = "This comparison cannot be judged any more: the conversation has moved on."
        raise MovedOnError(msg)
    return annotation


def skip(session: Session, annotator: Person, comparison: Comparison, reason: SkipReason, note: str = "") -> None:
    """Refuse to rate a comparison. Without a choice nothing can follow, so the conversation ends.

    Raises:
        BatchClosedError: The batch takes no more annotations.
        MovedOnError: The comparison is not waiting to be judged.

    """
    conversation = _own_conversation(session, annotator, comparison.conversation_id)
    session.refresh(comparison, ["state"])
    if queries.skip_of(session, comparison.id, annotator.id) is not None:
        return
    _running_batch(session, comparison.batch_id)
    if comparison.state is not ComparisonState.READY:
        msg = "This comparison does not wait to be judged, so it cannot be skipped."
        raise MovedOnError(msg)
    session.add(Skip(comparison_id=comparison.id, annotator_id=annotator.id, reason=reason, note=note.strip()))
    comparison.state = ComparisonState.SKIPPED
    _finish(conversation)


def retry(session: Session, annotator: Person, comparison: Comparison) -> None:
    """Draw the responses once more after sampling failed, or after both came out the same.

    Raises:
        BatchClosedError: The batch takes no new prompts.
        MovedOnError: Nothing has failed, or the conversation is finished.

    """
    conversation = _own_conversation(session, annotator, comparison.conversation_id)
    session.refresh(comparison, ["state"])
    if comparison.state is ComparisonState.SAMPLING:
        return
    _open_batch(session, comparison.batch_id)
    if comparison.state not in _FAILED or conversation.state is ConversationState.FINISHED:
        msg = "Only a comparison whose sampling failed can be sampled again."
        raise MovedOnError(msg)
    queries.load_all_of_responses(session, comparison)
    sampling.retry(session, comparison)


def changeable(session: Session, annotator: Person) -> Comparison | None:
    """The comparison that the annotator judged last, if that choice may still be changed."""
    comparison = queries.last_annotated(session, annotator.id)
    return comparison if comparison is not None and is_changeable(session, comparison) else None


def is_changeable(session: Session, comparison: Comparison) -> bool:
    """Whether a choice may still be changed."""
    return (
        comparison.state is ComparisonState.ANNOTATED
        and queries.batch(session, comparison.batch_id).state in _RUNNING
        and not queries.has_later_turn(session, comparison)
    )


def _ask(session: Session, batch: Batch, conversation: Conversation, *, turn: int, prompt: str) -> Comparison:
    comparison = Comparison(
        conversation_id=conversation.id,
        batch_id=batch.id,
        objective=conversation.objective,
        turn=turn,
        prompt=prompt,
    )
    session.add(comparison)
    session.flush()
    variants = batches.variants(session, batch)
    sampling.request_pair(session, comparison, variants, max_new_tokens=batch.max_new_tokens)
    return comparison


def _is_repeated(under_way: queries.Live, turn: int, prompt: str) -> bool:
    """Whether a prompt is the one that was asked last, sent twice."""
    latest = under_way.comparison
    is_unjudged = latest.state in {ComparisonState.SAMPLING, ComparisonState.READY}
    return is_unjudged and latest.turn == turn and latest.prompt == prompt


def _own_conversation(session: Session, annotator: Person, conversation_id: UUID) -> Conversation:
    conversation = queries.own_conversation(session, annotator.id, conversation_id)
    if conversation is None:
        msg = "There is no such conversation."
        raise NotFoundError(msg)
    return conversation


def _open_batch(session: Session, batch_id: UUID) -> Batch:
    batch = queries.held_batch(session, batch_id)
    if batch.state is not BatchState.OPEN:
        msg = f"Batch {batch.number} takes no new prompts: it has closed. Reload the page to go on with the next one."
        raise BatchClosedError(msg)
    return batch


def _running_batch(session: Session, batch_id: UUID) -> Batch:
    batch = queries.held_batch(session, batch_id)
    if batch.state not in _RUNNING:
        msg = f"Batch {batch.number} has closed, so this comparison cannot be judged any more."
        raise BatchClosedError(msg)
    return batch


def _finish(conversation: Conversation) -> None:
    if conversation.state is not ConversationState.FINISHED:
        conversation.state = ConversationState.FINISHED
        conversation.finished_at = now()


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
