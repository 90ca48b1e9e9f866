"""Prepares a week of work for benchmarks: an open batch, half of it annotated, the rest ready to be judged."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import cycle, islice

from sqlalchemy.orm import Session

from app.accounts import service as accounts
from app.batches import guidelines
from app.batches import service as batches
from app.batches.service import BatchSettings
from app.checkpoints import service as checkpoints
from app.database import Database
from app.models import (
    Annotation,
    AnnotationRevision,
    Base,
    Batch,
    BatchState,
    Checkpoint,
    Comparison,
    ComparisonState,
    Conversation,
    ConversationState,
    Guideline,
    Person,
    PersonRole,
    Response,
    now,
)
from contract.checkpoint_files import CheckpointFiles
from contract.vocabulary import FinishReason, Objective, Side, Strength

_CHUNK = 500
# About as long as a response of Llama 2's data: 200 tokens and more.
_TEXT = "Warm the pot, add one spoon of leaves for each cup, pour on water that has just boiled, and wait. " * 9


@dataclass(frozen=True)
class Crowd:
    """Annotators who work at the same time: a sign-in link for each."""

    links: tuple[str, ...]


@dataclass(frozen=True)
class _Week:
    batch: Batch
    checkpoint: Checkpoint
    guideline: Guideline


def prepare_week(database: Database, *, comparisons: int, sizes: Sequence[int]) -> list[Crowd]:
    """Fill an empty database. Half of the comparisons are annotated, the others are spread over the crowds."""
    with database.write() as session:
        week = _open_week(session)
        crowds = [_people(session, place, size) for place, size in enumerate(sizes)]
        links = [
            Crowd(tuple(f"/sign-in/{accounts.issue_sign_in_link(session, person, hours=1)}" for person in people))
            for people in crowds
        ]
    everybody = [person for people in crowds for person in people]
    waiting = (comparisons + 1) // 2
    # Each crowd gets the same share, each of its annotators too, and none fewer than it needs to begin.
    owners = [
        person for people in crowds for person in islice(cycle(people), max(waiting // len(crowds), 4 * len(people)))
    ]
    _store(database, week, owners, is_annotated=False)
    _store(database, week, list(islice(cycle(everybody), comparisons - waiting)), is_annotated=True)
    return links


def _open_week(session: Session) -> _Week:
    digest = hashlib.sha256(b"benchmark").hexdigest()
    files = CheckpointFiles(
        name="chat",
        architecture="LlamaForCausalLM",
        digest=digest,
        tokenizer_digest=digest,
        template_digest=digest,
        weight_bytes=1,
    )
    checkpoint = checkpoints.promote(session, checkpoints.register(session, files), for_open_batch=True)
    opens_at = now() - timedelta(hours=1)
    batch = batches.create(session, BatchSettings(opens_at=opens_at, closes_at=opens_at + timedelta(days=7)))
    batches.pin_checkpoint(session, batch, checkpoint)
    batch.state = BatchState.OPEN
    batch.opened_at = opens_at
    return _Week(batch, checkpoint, guidelines.current(session, Objective.HELPFULNESS))


def _people(session: Session, crowd: int, size: int) -> list[Person]:
    names = [f"annotator {crowd}-{number}" for number in range(size)]
    return [accounts.get_or_create_person(session, name, PersonRole.ANNOTATOR) for name in names]


def _store(database: Database, week: _Week, owners: Sequence[Person], *, is_annotated: bool) -> None:
    for start in range(0, len(owners), _CHUNK):
        conversations = [
            _conversation(week, owner, f"How do I make tea number {number}?", is_annotated=is_annotated)
            for number, owner in enumerate(owners[start : start + _CHUNK], start=start)
        ]
        with database.write() as session:
            # Table after table, in the order of their keys.
            for rows in zip(*conversations, strict=True):
                session.add_all(row for of_one in rows for row in of_one)
                session.flush()


def _conversation(week: _Week, owner: Person, prompt: str, *, is_annotated: bool) -> Iterator[list[Base]]:
    conversation = Conversation(
        batch_id=week.batch.id,
        objective=Objective.HELPFULNESS,
        annotator_id=owner.id,
        state=ConversationState.FINISHED if is_annotated else ConversationState.ACTIVE,
    )
    comparison = Comparison(
        conversation_id=conversation.id,
        batch_id=week.batch.id,
        objective=Objective.HELPFULNESS,
        turn=1,
        prompt=prompt,
        state=ComparisonState.ANNOTATED if is_annotated else ComparisonState.READY,
        ready_at=now(),
        shown_at=now(),
    )
    responses = [_response(week, comparison, side) for side in Side]
    yield [conversation]
    yield [comparison]
    yield [*responses]
    if is_annotated:
        yield from _annotation(week, owner, comparison, responses[0])


def _response(week: _Week, comparison: Comparison, side: Side) -> Response:
    return Response(
        comparison_id=comparison.id,
        side=side,
        checkpoint_id=week.checkpoint.id,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        seed=1,
        max_new_tokens=512,
        text=f"{_TEXT}{side}",
        token_ids=list(range(200)),
        prompt_tokens=20,
        completion_tokens=200,
        finish_reason=FinishReason.STOP,
        engine="benchmark",
    )


def _annotation(week: _Week, owner: Person, comparison: Comparison, chosen: Response) -> Iterator[list[Base]]:
    annotation = Annotation(
        comparison_id=comparison.id,
        objective=comparison.objective,
        annotator_id=owner.id,
        chosen_response_id=chosen.id,
        guideline_id=week.guideline.id,
        seconds=20.0,
        strength=Strength.BETTER,
    )
    yield [annotation]
    yield [
        AnnotationRevision(
            annotation_id=annotation.id,
            revision=1,
            chosen_response_id=chosen.id,
            author_id=owner.id,
            strength=Strength.BETTER,
        )
    ]
