"""How a conversation goes: begin it, go on, try again, finish. ``judging`` holds what is said about its comparisons.

Every function takes the annotator and reaches only what is theirs: anything else does not exist for them.
Sending the same thing twice, as a double click does, changes nothing and fails nothing.
"""

from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

from sqlalchemy.orm import Session

from app.annotation import days, drafts, queries
from app.annotation.answers import Prompt
from app.batches import service as batches
from app.comparisons.asking import ask
from app.comparisons.turns import most_turns
from app.errors import ConflictError, InvalidInputError, NotFoundError
from app.models import (
    Assignment,
    AssignmentState,
    Batch,
    BatchState,
    Comparison,
    ComparisonState,
    Conversation,
    ConversationState,
    Person,
    now,
)
from app.sampling import service as sampling
from contract.vocabulary import Objective

_RUNNING = frozenset({BatchState.OPEN, BatchState.CLOSING})
HeldT = TypeVar("HeldT", bound=queries.Held)

_FAILED = frozenset({ComparisonState.FAILED, ComparisonState.EQUAL_RESPONSES})
_UNJUDGED = frozenset({ComparisonState.SAMPLING, ComparisonState.READY})


class BatchClosedError(ConflictError):
    """The batch takes no new prompts, or no more annotations."""

    code = "batch_closed"


class MovedOnError(ConflictError):
    """The conversation is past this step."""

    code = "moved_on"


class TooManyOpenError(ConflictError):
    """The annotator has as many conversations under way as are allowed."""

    code = "too_many_open"


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


def held(session: Session, annotator: Person, comparison_id: UUID) -> queries.HeldInBatch:
    """A comparison that the annotator has a place at.

    Raises:
        NotFoundError: There is none of this id, or it is somebody else's.

    """
    return _known(queries.held(session, annotator.id, comparison_id))


def held_complete(session: Session, annotator: Person, comparison_id: UUID) -> queries.Held:
    """The same, with both responses complete: until then nothing of them is shown but what the batch allows.

    Raises:
        NotFoundError: There is none of this id, or it is somebody else's.
        MovedOnError: Its responses are still being sampled, or sampling failed.

    """
    found = held(session, annotator, comparison_id)
    if found.comparison.state not in {ComparisonState.READY, ComparisonState.ANNOTATED}:
        msg = "The responses of this comparison are not complete."
        raise MovedOnError(msg)
    return found


def latest_of(session: Session, annotator: Person, conversation_id: UUID) -> queries.Held:
    """The latest comparison of one of the annotator's conversations.

    Raises:
        NotFoundError: The annotator has no such conversation.

    """
    return held(session, annotator, queries.latest_comparison(session, conversation_id).id)


def batch_of(session: Session, found: queries.Held) -> Batch:
    """The batch of a comparison, which cannot close before this transaction ends."""
    return queries.held_batch(session, found.comparison.batch_id)


def start_conversation(
    session: Session, annotator: Person, objective: Objective, prompt: Prompt, *, form_id: UUID, most_open: int
) -> Comparison:
    """Begin a conversation in the open batch, and ask for the two responses to its first prompt.

    ``form_id`` becomes the comparison's id, so that a form that is sent twice begins one conversation.

    Raises:
        BatchClosedError: No batch is open, or no checkpoint is promoted yet.
        TooManyOpenError: ``most_open`` conversations of the annotator are under way.
        MovedOnError: The form was sent before, with another prompt.
        InvalidInputError: The batch does not collect this objective.

    """
    queries.locked_annotator(session, annotator.id)
    sent = _sent_before(session, annotator, form_id, prompt)
    if sent is not None:
        return sent
    found = opening(session)
    if found.batch is None or not found.has_model:
        msg = "No batch takes prompts at the moment. Your text was not saved; keep this page open and try again later."
        raise BatchClosedError(msg)
    batch = _open_batch(session, found.batch.id)
    if all(row.objective is not objective for row in days.progress(session, batch.id)):
        msg = f"objective: batch {batch.number} does not collect {objective}."
        raise InvalidInputError(msg)
    for stale in queries.stale_conversations(session, annotator.id):
        finish(stale)
    if sum(row.is_own for row in queries.under_way(session, annotator.id)) >= most_open:
        msg = f"You have {most_open} conversations under way. Judge or finish one before you begin another."
        raise TooManyOpenError(msg)
    conversation = Conversation(batch_id=batch.id, objective=objective, annotator_id=annotator.id)
    session.add(conversation)
    session.flush()
    return _ask(session, batch, conversation, annotator, turn=1, prompt=prompt, form_id=form_id)


def continue_conversation(
    session: Session, annotator: Person, conversation_id: UUID, prompt: Prompt, *, form_id: UUID
) -> Comparison:
    """Write the next prompt of a conversation; the chosen response is the history it builds on.

    Raises:
        NotFoundError: The annotator has no such conversation.
        BatchClosedError: Its batch takes no new prompts.
        MovedOnError: It waits for something else, is finished, or has all the turns that it may have.

    """
    conversation = own_conversation(session, annotator, conversation_id)
    sent = _sent_before(session, annotator, form_id, prompt)
    if sent is not None:
        return sent
    latest = queries.latest_comparison(session, conversation.id)
    batch = _open_batch(session, conversation.batch_id)
    is_next = latest.state is ComparisonState.ANNOTATED and conversation.state is ConversationState.ACTIVE
    if not is_next or latest.turn >= most_turns(batch, conversation.id):
        msg = "This conversation cannot take another prompt now. Reload the page to see where it stands."
        raise MovedOnError(msg)
    prompt = prompt.with_tags_of(latest)
    return _ask(session, batch, conversation, annotator, turn=latest.turn + 1, prompt=prompt, form_id=form_id)


def finish_conversation(session: Session, annotator: Person, conversation_id: UUID) -> None:
    """End a conversation.

    Raises:
        NotFoundError: The annotator has no such conversation.
        MovedOnError: Its responses are being sampled or wait to be judged.

    """
    conversation = own_conversation(session, annotator, conversation_id)
    latest = queries.latest_comparison(session, conversation.id)
    if latest.state in _UNJUDGED and conversation.state is ConversationState.ACTIVE:
        msg = "Judge or skip the comparison first; then the conversation can be finished."
        raise MovedOnError(msg)
    drafts.drop(session, annotator, drafts.next_prompt_id(conversation.id, latest.turn + 1))
    finish(conversation)


def retry(session: Session, annotator: Person, comparison_id: UUID) -> None:
    """Draw the responses once more after sampling failed, or after both came out the same.

    Raises:
        NotFoundError: The annotator has no such comparison.
        BatchClosedError: The batch takes no new prompts.
        MovedOnError: Nothing has failed, or the conversation is finished.

    """
    found = locked_held(session, annotator, comparison_id)
    if found.comparison.state is ComparisonState.SAMPLING:
        return
    _open_batch(session, found.comparison.batch_id)
    if found.comparison.state not in _FAILED or found.conversation.state is ConversationState.FINISHED:
        msg = "Only a comparison whose sampling failed can be sampled again."
        raise MovedOnError(msg)
    queries.load_all_of_responses(session, found.comparison)
    sampling.retry(session, found.comparison)


def locked_held(session: Session, annotator: Person, comparison_id: UUID) -> queries.Held:
    """A comparison that the annotator has a place at, locked.

    Raises:
        NotFoundError: There is none of this id, or it is somebody else's.

    """
    return _known(queries.locked_held(session, annotator.id, comparison_id))


def _known(found: HeldT | None) -> HeldT:
    if found is None:
        msg = "There is no such comparison."
        raise NotFoundError(msg)
    return found


def is_changeable(session: Session, batch: Batch, comparison: Comparison, *, is_primary: bool) -> bool:
    """Whether a choice may still be changed: until the conversation builds on it, or its batch has closed."""
    return batch.state in _RUNNING and not (is_primary and queries.has_later_turn(session, comparison))


def _ask(
    session: Session,
    batch: Batch,
    conversation: Conversation,
    annotator: Person,
    *,
    turn: int,
    prompt: Prompt,
    form_id: UUID,
) -> Comparison:
    comparison = ask(
        session,
        batch,
        conversation,
        turn=turn,
        prompt=prompt.text,
        comparison_id=form_id,
        risk_category=prompt.risk_category,
        attack_vector=prompt.attack_vector,
    )
    # Nobody else waits for it, so the author's place does not expire.
    session.add(Assignment(comparison_id=comparison.id, annotator_id=annotator.id, state=AssignmentState.HELD))
    drafts.drop(session, annotator, form_id)
    return comparison


def _sent_before(session: Session, annotator: Person, form_id: UUID, prompt: Prompt) -> Comparison | None:
    """The comparison that this form has become already, if it was sent before."""
    comparison = queries.comparison(session, form_id)
    if comparison is None:
        return None
    found = queries.held(session, annotator.id, form_id)
    if found is None or not found.is_own or found.comparison.prompt != prompt.text:
        msg = "This form was sent before with another prompt. Reload the page to see where the conversation stands."
        raise MovedOnError(msg)
    return found.comparison


def own_conversation(session: Session, annotator: Person, conversation_id: UUID) -> Conversation:
    """One of the annotator's own conversations, locked.

    Raises:
        NotFoundError: There is none of this id, or it is somebody else's.

    """
    conversation = queries.locked_conversation(session, annotator.id, conversation_id)
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


def running_batch(session: Session, batch_id: UUID) -> Batch:
    """A batch that still takes annotations, and cannot close before this transaction ends.

    Raises:
        BatchClosedError: It takes none any more.

    """
    batch = queries.held_batch(session, batch_id)
    require_running(batch)
    return batch


def require_running(batch: Batch) -> None:
    """Refuse where a batch takes no annotations any more.

    Raises:
        BatchClosedError: It takes none.

    """
    if batch.state not in _RUNNING:
        msg = f"Batch {batch.number} has closed, so this comparison cannot be judged any more."
        raise BatchClosedError(msg)


def finish(conversation: Conversation) -> None:
    """End a conversation, if it has not ended."""
    if conversation.state is not ConversationState.FINISHED:
        conversation.state = ConversationState.FINISHED
        conversation.finished_at = now()
