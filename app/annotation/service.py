"""How a conversation goes: begin it, go on, try again, finish. ``judging`` holds what is said about its pairs.

Every function takes the annotator and reaches only what is theirs: anything else does not exist for them.
Sending the same thing twice, as a double click does, changes nothing and fails nothing.
"""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.orm import Session

from app.annotation import queries
from app.batches import service as batches
from app.errors import ConflictError, InvalidInputError, NotFoundError
from app.models import (
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
        finish(stale)
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
    conversation = own_conversation(session, annotator, conversation_id)
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
    conversation = own_conversation(session, annotator, conversation_id)
    latest = queries.latest_comparison(session, conversation.id)
    if latest.state in {ComparisonState.SAMPLING, ComparisonState.READY}:
        msg = "Judge or skip the comparison first; then the conversation can be finished."
        raise MovedOnError(msg)
    finish(conversation)


def retry(session: Session, annotator: Person, comparison: Comparison) -> None:
    """Draw the responses once more after sampling failed, or after both came out the same.

    Raises:
        BatchClosedError: The batch takes no new prompts.
        MovedOnError: Nothing has failed, or the conversation is finished.

    """
    conversation = own_conversation(session, annotator, comparison.conversation_id)
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


def own_conversation(session: Session, annotator: Person, conversation_id: UUID) -> Conversation:
    """One of the annotator's own conversations, locked.

    Raises:
        NotFoundError: There is none of this id, or it is somebody else's.

    """
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


def running_batch(session: Session, batch_id: UUID) -> Batch:
    """A batch that still takes annotations, and cannot close before this transaction ends.

    Raises:
        BatchClosedError: It takes none any more.

    """
    batch = queries.held_batch(session, batch_id)
    if batch.state not in _RUNNING:
        msg = f"Batch {batch.number} has closed, so this comparison cannot be judged any more."
        raise BatchClosedError(msg)
    return batch


def finish(conversation: Conversation) -> None:
    """End a conversation, if it has not ended."""
    if conversation.state is not ConversationState.FINISHED:
        conversation.state = ConversationState.FINISHED
        conversation.finished_at = now()
