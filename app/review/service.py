"""Content review: somebody else approves an annotation, or rejects it and says why (Llama 2, appendix A.5.3)."""

from collections import defaultdict
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.orm import Session

from app.accounts import audit
from app.conversations import history
from app.errors import ConflictError, ForbiddenError, InvalidInputError, NotFoundError
from app.models import Annotation, Flag, Person, Response, Review, Verdict
from app.review import queries
from contract.conversation import Message
from contract.vocabulary import Side

PAGE_SIZE = 20


class OwnWorkError(ForbiddenError):
    """Nobody reviews what they wrote themselves."""

    code = "own_work"


class BatchFrozenError(ConflictError):
    """The dataset of the batch is frozen; a verdict would come too late."""

    code = "batch_frozen"


class OtherRevisionError(ConflictError):
    """The annotation was changed after the reviewer read it."""

    code = "other_revision"


class ReviewedAlreadyError(ConflictError):
    """Another reviewer was faster."""

    code = "reviewed_already"


@dataclass(frozen=True)
class Item:
    """An annotation that waits for a verdict, with all that a reviewer needs to see."""

    annotation: Annotation
    batch: int
    prompt: tuple[Message, ...]
    responses: list[Response]
    """As they were shown: A, then B."""
    chosen_side: Side
    flags: list[Flag]
    """What the annotator, or another who saw the comparison, noted about it."""

    def quality(self, side: Side) -> int | None:
        """The quality score of the response on a side."""
        return self.annotation.chosen_quality if side is self.chosen_side else self.annotation.rejected_quality


@dataclass(frozen=True)
class Queue:
    """One page of the annotations that wait."""

    items: list[Item]
    waiting: int
    page: int
    pages: int


def queue(session: Session, reviewer: Person, page: int) -> Queue:
    """The annotations that a reviewer may judge, the oldest batch first, then the oldest annotation."""
    waiting = queries.count_waiting(session, reviewer.id)
    pages = max(1, -(-waiting // PAGE_SIZE))
    page = min(page, pages)
    found = queries.waiting(session, reviewer.id, limit=PAGE_SIZE, offset=(page - 1) * PAGE_SIZE)
    prompts = history.prompts_with_context(session, [annotation.comparison for annotation, _ in found])
    flags: dict[UUID, list[Flag]] = defaultdict(list)
    for flag in queries.flags(session, [annotation.comparison_id for annotation, _ in found]):
        flags[flag.comparison_id].append(flag)
    items = [
        Item(
            annotation=annotation,
            batch=batch.number,
            prompt=prompts[annotation.comparison_id],
            responses=annotation.comparison.responses,
            chosen_side=next(
                response.side
                for response in annotation.comparison.responses
                if response.id == annotation.chosen_response_id
            ),
            flags=flags[annotation.comparison_id],
        )
        for annotation, batch in found
    ]
    return Queue(items=items, waiting=waiting, page=page, pages=pages)


def give_verdict(
    session: Session, reviewer: Person, annotation_id: UUID, verdict: Verdict, *, revision: int, feedback: str
) -> Review:
    """Approve or reject an annotation as it stands.

    Raises:
        NotFoundError: There is no such annotation.
        OwnWorkError: The reviewer made the annotation.
        BatchFrozenError: Its batch is frozen.
        OtherRevisionError: It was changed since the reviewer read it.
        ReviewedAlreadyError: This revision has a verdict.
        InvalidInputError: A rejection does not say what to do better.

    """
    found = queries.annotation_and_batch(session, annotation_id)
    if found is None:
        msg = "There is no such annotation."
        raise NotFoundError(msg)
    annotation, batch = found
    if annotation.annotator_id == reviewer.id:
        msg = "You made this annotation yourself; somebody else must review it."
        raise OwnWorkError(msg)
    if batch.frozen_at is not None:
        msg = f"Batch {batch.number} is frozen; its annotations cannot be reviewed any more."
        raise BatchFrozenError(msg)
    if annotation.revision != revision:
        msg = "The annotator has changed this annotation since you read it. Reload the page and look again."
        raise OtherRevisionError(msg)
    if queries.verdict_on(session, annotation.id, revision) is not None:
        msg = "Somebody has reviewed this annotation already."
        raise ReviewedAlreadyError(msg)
    feedback = feedback.strip()
    if verdict is Verdict.REJECTED and not feedback:
        msg = "feedback: say what the annotator should do better; a rejection needs it."
        raise InvalidInputError(msg)
    review = Review(
        annotation_id=annotation.id, revision=revision, reviewer_id=reviewer.id, verdict=verdict, feedback=feedback
    )
    session.add(review)
    audit.record(session, "annotation.reviewed", f"annotation {annotation.id}", actor=reviewer, verdict=verdict.value)
    session.flush()
    return review
