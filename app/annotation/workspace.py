"""What an annotator's screen shows, decided from the database alone: signing in again returns to the same place."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from sqlalchemy.orm import Session

from app.annotation import queries, service
from app.annotation.answers import SafetyAnswer, rating_value
from app.annotation.queries import ObjectiveProgress
from app.batches import guidelines
from app.conversations.history import prompts_with_context
from app.models import Annotation, Batch, Comparison, ComparisonState, Guideline, Person, Response
from contract.conversation import Message
from contract.vocabulary import Objective, Role, Side, Strength


class Screen(StrEnum):
    """The states of the workspace."""

    CLOSED = "closed"
    WRITE = "write"
    WAITING = "waiting"
    JUDGE = "judge"
    CONTINUE = "continue"
    FAILED = "failed"


@dataclass(frozen=True)
class Point:
    """One of the eight points of the row, from A significantly better to B significantly better."""

    value: str
    side: Side
    strength: Strength
    key: int
    """The digit that chooses it on the keyboard."""


@dataclass(frozen=True)
class Draft:
    """What is in the forms: what was sent and came back, or an annotation that is being changed."""

    prompt: str = ""
    rating: str = ""
    safety: str = ""
    rationale: str = ""


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """Everything that one screen shows. Nothing in it says which model or setting made a response."""

    screen: Screen
    batch: Batch | None = None
    """The open batch; where none is open, the one that opens next."""
    objective: Objective = Objective.HELPFULNESS
    objectives: Sequence[ObjectiveProgress] = ()
    guideline: Guideline | None = None
    conversation_id: UUID | None = None
    comparison_id: UUID | None = None
    turn: int = 1
    messages: Sequence[Message] = ()
    """The conversation so far, with the prompt that was asked last."""
    responses: Sequence[Response] = ()
    points: Sequence[Point] = ()
    annotation: Annotation | None = None
    chosen_side: Side | None = None
    are_equal: bool = False
    """Nothing failed: both responses came out the same."""
    is_first_look: bool = False
    changeable_id: UUID | None = None
    """The comparison judged last, if its choice may still be changed."""
    draft: Draft = Draft()


def workspace(session: Session, annotator: Person, wanted: Objective | None = None) -> Workspace:
    """Where the annotator stands. ``wanted`` is the objective of the next conversation, if they said one."""
    live = service.live(session, annotator)
    if live is None:
        return _between_conversations(session, annotator, wanted)
    return _in_conversation(session, annotator, live.batch, live.comparison)


def workspace_to_change(session: Session, annotator: Person, comparison: Comparison) -> Workspace:
    """The screen on which a choice that was made can be changed; where that is too late, the usual one."""
    annotation = queries.annotation_of(session, comparison.id, annotator.id)
    if annotation is None or not service.is_changeable(session, comparison):
        return workspace(session, annotator)
    return _judge(session, queries.batch(session, comparison.batch_id), comparison, annotation)


def _between_conversations(session: Session, annotator: Person, wanted: Objective | None) -> Workspace:
    opening = service.opening(session)
    changeable = service.changeable(session, annotator)
    changeable_id = changeable.id if changeable is not None else None
    if opening.batch is None or not opening.has_model:
        upcoming = opening.batch or queries.next_batch(session)
        return Workspace(screen=Screen.CLOSED, batch=upcoming, changeable_id=changeable_id)
    objectives = queries.progress(session, opening.batch.id)
    objective = _objective(objectives, wanted)
    return Workspace(
        screen=Screen.WRITE,
        batch=opening.batch,
        objective=objective,
        objectives=objectives,
        guideline=guidelines.current(session, objective),
        changeable_id=changeable_id,
    )


def _objective(objectives: Sequence[ObjectiveProgress], wanted: Objective | None) -> Objective:
    """What was asked for, or else what the batch is furthest from having enough of."""
    if any(row.objective is wanted for row in objectives):
        return wanted or Objective.HELPFULNESS
    return min(objectives, key=lambda row: row.share).objective


def _in_conversation(session: Session, annotator: Person, batch: Batch, latest: Comparison) -> Workspace:
    if latest.state is ComparisonState.READY:
        return _judge(session, batch, latest, None)
    if latest.state is ComparisonState.ANNOTATED:
        return _continue(session, annotator, batch, latest)
    is_waiting = latest.state is ComparisonState.SAMPLING
    return Workspace(
        screen=Screen.WAITING if is_waiting else Screen.FAILED,
        batch=batch,
        objective=latest.objective,
        guideline=guidelines.current(session, latest.objective),
        conversation_id=latest.conversation_id,
        comparison_id=latest.id,
        turn=latest.turn,
        messages=_messages(session, latest),
        are_equal=latest.state is ComparisonState.EQUAL_RESPONSES,
    )


def _judge(session: Session, batch: Batch, comparison: Comparison, annotation: Annotation | None) -> Workspace:
    return Workspace(
        screen=Screen.JUDGE,
        batch=batch,
        objective=comparison.objective,
        guideline=guidelines.current(session, comparison.objective),
        conversation_id=comparison.conversation_id,
        comparison_id=comparison.id,
        turn=comparison.turn,
        messages=_messages(session, comparison),
        responses=comparison.responses,
        points=_points(comparison),
        annotation=annotation,
        is_first_look=comparison.shown_at is None,
        draft=_draft_of(comparison, annotation) if annotation is not None else Draft(),
    )


def _continue(session: Session, annotator: Person, batch: Batch, latest: Comparison) -> Workspace:
    annotation = queries.annotation_of(session, latest.id, annotator.id)
    chosen = _chosen(latest, annotation) if annotation is not None else None
    answer = (Message(role=Role.ASSISTANT, content=chosen.text),) if chosen is not None else ()
    return Workspace(
        screen=Screen.CONTINUE,
        batch=batch,
        objective=latest.objective,
        guideline=guidelines.current(session, latest.objective),
        conversation_id=latest.conversation_id,
        comparison_id=latest.id,
        turn=latest.turn + 1,
        messages=(*_messages(session, latest), *answer),
        annotation=annotation,
        chosen_side=chosen.side if chosen is not None else None,
        changeable_id=latest.id,
    )


def _points(comparison: Comparison) -> list[Point]:
    """The row from A significantly better over the two weakest in the middle to B significantly better."""
    row = [(Side.A, strength) for strength in Strength] + [(Side.B, strength) for strength in reversed(Strength)]
    return [
        Point(rating_value(comparison.response(side).id, strength), side, strength, key)
        for key, (side, strength) in enumerate(row, start=1)
    ]


def _draft_of(comparison: Comparison, annotation: Annotation) -> Draft:
    safety = ""
    if annotation.chosen_safe is not None and annotation.rejected_safe is not None:
        safety = SafetyAnswer.of(
            chosen=_chosen(comparison, annotation).side,
            chosen_safe=annotation.chosen_safe,
            rejected_safe=annotation.rejected_safe,
        )
    rating = rating_value(annotation.chosen_response_id, annotation.strength)
    return Draft(rating=rating, safety=safety, rationale=annotation.rationale)


def _chosen(comparison: Comparison, annotation: Annotation) -> Response:
    return next(row for row in comparison.responses if row.id == annotation.chosen_response_id)


def _messages(session: Session, comparison: Comparison) -> list[Message]:
    """The conversation as people see it: without the system prompt."""
    messages = prompts_with_context(session, [comparison])[comparison.id]
    return [message for message in messages if message.role is not Role.SYSTEM]
