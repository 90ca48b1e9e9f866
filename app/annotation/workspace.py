"""What an annotator's screen shows, decided from the database alone: signing in again returns to the same place."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from uuid import UUID

from sqlalchemy.orm import Session

from app.annotation import days, drafts, queries, service
from app.annotation.answers import SafetyAnswer, rating_value
from app.annotation.days import ObjectiveProgress
from app.annotation.desk import Desk
from app.annotation.drafts import Filling
from app.annotation.progress import SamplingProgress, sampling_progress
from app.annotation.queries import Held, UnderWay
from app.comparisons.turns import most_turns
from app.conversations.history import conversation_so_far
from app.models import Annotation, Batch, Comparison, ComparisonState, Guideline, Person, Response
from contract.conversation import Message
from contract.vocabulary import Objective, Role, Side, Strength

_TOKEN_CHARACTERS = 12


class Screen(StrEnum):
    """The states of the workspace."""

    CLOSED = "closed"
    PREPARING = "preparing"
    """The batch works from the prompt pool, and nothing is in stock yet."""
    WRITE = "write"
    WAITING = "waiting"
    JUDGE = "judge"
    CONTINUE = "continue"
    FAILED = "failed"


class TrayState(StrEnum):
    """Where a comparison on the annotator's desk stands."""

    WAITING = "waiting"
    STREAMING = "streaming"
    READY = "ready"
    CONTINUE = "continue"
    FAILED = "failed"


@dataclass(frozen=True)
class TrayItem:
    """One of the comparisons on the annotator's desk."""

    comparison_id: UUID
    conversation_id: UUID
    excerpt: str
    state: TrayState
    is_current: bool


@dataclass(frozen=True)
class Point:
    """One of the eight points of the row, from A significantly better to B significantly better."""

    value: str
    side: Side
    strength: Strength
    key: int
    """The digit that chooses it on the keyboard."""


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """Everything that one screen shows. Nothing in it says which model or setting made a response."""

    screen: Screen
    batch: Batch | None = None
    """The open batch; where none is open, the one that opens next."""
    objective: Objective = Objective.HELPFULNESS
    objectives: Sequence[ObjectiveProgress] = ()
    guideline: Guideline | None = None
    guideline_notice: str = ""
    """``new`` where the annotator has read no version yet, ``changed`` where they have read an older one."""
    tray: Sequence[TrayItem] = ()
    can_begin_another: bool = False
    is_own: bool = True
    """Whether the annotator writes this conversation's prompts."""
    form_id: UUID | None = None
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
    """The comparison whose choice can be changed from here."""
    progress: SamplingProgress | None = None
    draft: Filling = field(default_factory=Filling)

    @property
    def most_turns(self) -> int:
        """The most turns that the conversation on the screen may have."""
        return most_turns(self.batch, self.conversation_id) if self.batch and self.conversation_id else 1

    @property
    def is_target_reached(self) -> bool:
        """Whether the batch has all the comparisons that it wants."""
        return bool(self.objectives) and all(row.annotated >= row.target for row in self.objectives)

    @property
    def tray_seen(self) -> str:
        """Changes whenever the tray does."""
        shown = " ".join(f"{item.comparison_id}{item.state}{item.is_current}" for item in self.tray)
        return hashlib.sha256(shown.encode()).hexdigest()[:_TOKEN_CHARACTERS]


@dataclass(frozen=True)
class Room:
    """Builds the screens of one annotator."""

    session: Session
    annotator: Person
    desk: Desk
    most_open: int

    def screen(self, wanted: Objective | None = None) -> Workspace:
        """What the annotator is to look at; ``wanted`` is the objective of a new conversation, if they said one."""
        if self.desk.focus is None:
            return self.new_conversation(wanted)
        held = service.held(self.session, self.annotator, self.desk.focus)
        return self._at(held.batch, held)

    def of(self, held: Held) -> Workspace:
        """The screen of one of the annotator's comparisons, if it has a next step; otherwise the usual one."""
        if all(row.comparison_id != held.comparison.id for row in self.desk.rows):
            return self.screen()
        return replace(self, desk=self.desk.at(held.comparison.id)).screen()

    def change(self, held: Held) -> Workspace:
        """The screen on which a choice that was made can be changed; where that is too late, the usual one."""
        annotation = queries.annotation_of(self.session, held.comparison.id, self.annotator.id)
        batch = queries.batch(self.session, held.comparison.batch_id)
        if annotation is None or not service.is_changeable(
            self.session, batch, held.comparison, is_primary=annotation.is_primary
        ):
            return self.of(held)
        return self._judge(batch, held, annotation)

    def new_conversation(self, wanted: Objective | None = None) -> Workspace:
        """The screen on which a conversation begins, or why none can."""
        opening = service.opening(self.session)
        if opening.batch is None or not opening.has_model:
            upcoming = opening.batch or queries.next_batch(self.session)
            return Workspace(screen=Screen.CLOSED, batch=upcoming, tray=self._tray())
        objectives = days.progress(self.session, opening.batch.id)
        objective = _objective(objectives, wanted)
        if opening.batch.pool_share == 1:
            return self._frame(Screen.PREPARING, opening.batch, objective, objectives=objectives)
        form_id, draft = drafts.first_prompt(self.session, self.annotator, objective)
        return self._frame(Screen.WRITE, opening.batch, objective, objectives=objectives, form_id=form_id, draft=draft)

    def tray_only(self) -> Workspace:
        """Only what the tray shows."""
        opening = service.opening(self.session)
        batch = opening.batch if opening.has_model else None
        return Workspace(
            screen=Screen.WAITING,
            batch=batch,
            tray=self._tray(),
            comparison_id=self.desk.focus,
            can_begin_another=batch is not None and self._can_begin_another(batch),
        )

    def _can_begin_another(self, batch: Batch) -> bool:
        return batch.pool_share < 1 and len(self.desk.own) < self.most_open

    def _at(self, batch: Batch, held: Held) -> Workspace:
        # A second opinion is asked of what somebody else has judged already.
        if held.comparison.state is ComparisonState.READY or not held.is_own:
            return self._judge(batch, held, None)
        if held.comparison.state is ComparisonState.ANNOTATED:
            return self._continue(batch, held)
        return self._wait(batch, held)

    def _wait(self, batch: Batch, held: Held) -> Workspace:
        is_waiting = held.comparison.state is ComparisonState.SAMPLING
        return self._frame(
            Screen.WAITING if is_waiting else Screen.FAILED,
            batch,
            held.comparison.objective,
            **_place(held),
            messages=conversation_so_far(self.session, held.comparison),
            are_equal=held.comparison.state is ComparisonState.EQUAL_RESPONSES,
            progress=sampling_progress(self.session, held.comparison.id, batch.response_display)
            if is_waiting
            else None,
        )

    def _judge(self, batch: Batch, held: Held, annotation: Annotation | None) -> Workspace:
        draft = drafts.find(self.session, self.annotator, held.comparison.id)
        if draft is None:
            draft = _said(held.comparison, annotation) if annotation is not None else Filling()
        return self._frame(
            Screen.JUDGE,
            batch,
            held.comparison.objective,
            **_place(held),
            form_id=held.comparison.id,
            messages=conversation_so_far(self.session, held.comparison),
            responses=held.comparison.responses,
            points=_points(held.comparison),
            annotation=annotation,
            is_first_look=held.assignment.shown_at is None,
            draft=draft,
        )

    def _continue(self, batch: Batch, held: Held) -> Workspace:
        latest = held.comparison
        form_id = drafts.next_prompt_id(latest.conversation_id, latest.turn + 1)
        annotation = queries.annotation_of(self.session, latest.id, self.annotator.id)
        chosen = _chosen(latest, annotation) if annotation is not None else None
        answer = (Message(role=Role.ASSISTANT, content=chosen.text),) if chosen is not None else ()
        tags = Filling(risk_category=latest.risk_category or "", attack_vector=latest.attack_vector or "")
        return self._frame(
            Screen.CONTINUE,
            batch,
            latest.objective,
            **_place(held) | {"turn": latest.turn + 1},
            form_id=form_id,
            messages=(*conversation_so_far(self.session, latest), *answer),
            annotation=annotation,
            chosen_side=chosen.side if chosen is not None else None,
            changeable_id=latest.id,
            draft=drafts.find(self.session, self.annotator, form_id) or tags,
        )

    def _frame(self, screen: Screen, batch: Batch, objective: Objective, **shown: object) -> Workspace:
        """What every screen of a batch has around its own."""
        found = queries.guideline(self.session, self.annotator.id, objective)
        notice = "new" if found.read_version is None else "changed"
        return Workspace(
            screen=screen,
            batch=batch,
            objective=objective,
            guideline=found.guideline,
            guideline_notice="" if found.read_version == found.guideline.version else notice,
            tray=self._tray(),
            can_begin_another=self._can_begin_another(batch),
            **{"changeable_id": self.desk.judged} | shown,  # type: ignore[arg-type]
        )

    def _tray(self) -> Sequence[TrayItem]:
        return [_tray_item(row, is_current=row.comparison_id == self.desk.focus) for row in self.desk.rows]


def _tray_item(row: UnderWay, *, is_current: bool) -> TrayItem:
    return TrayItem(row.comparison_id, row.conversation_id, row.excerpt, _tray_state(row), is_current)


def _tray_state(row: UnderWay) -> TrayState:
    if row.state is ComparisonState.SAMPLING:
        return TrayState.STREAMING if row.is_growing else TrayState.WAITING
    if row.state is ComparisonState.READY or not row.is_own:
        return TrayState.READY
    return TrayState.CONTINUE if row.state is ComparisonState.ANNOTATED else TrayState.FAILED


def _objective(objectives: Sequence[ObjectiveProgress], wanted: Objective | None) -> Objective:
    """What was asked for, or else what the batch is furthest from having enough of."""
    if any(row.objective is wanted for row in objectives):
        return wanted or Objective.HELPFULNESS
    return min(objectives, key=lambda row: row.share).objective


def _place(held: Held) -> dict[str, object]:
    return {
        "is_own": held.is_own,
        "conversation_id": held.conversation.id,
        "comparison_id": held.comparison.id,
        "turn": held.comparison.turn,
    }


def _points(comparison: Comparison) -> list[Point]:
    """The row from A significantly better over the two weakest in the middle to B significantly better."""
    row = [(Side.A, strength) for strength in Strength] + [(Side.B, strength) for strength in reversed(Strength)]
    return [
        Point(rating_value(comparison.response(side).id, strength), side, strength, key)
        for key, (side, strength) in enumerate(row, start=1)
    ]


def _said(comparison: Comparison, annotation: Annotation) -> Filling:
    """An annotation as the form that would say it again."""
    side = _chosen(comparison, annotation).side
    safety = ""
    if annotation.chosen_safe is not None and annotation.rejected_safe is not None:
        safety = SafetyAnswer.of(
            chosen=side, chosen_safe=annotation.chosen_safe, rejected_safe=annotation.rejected_safe
        )
    quality = {side: annotation.chosen_quality or "", side.other: annotation.rejected_quality or ""}
    return Filling(
        rating=rating_value(annotation.chosen_response_id, annotation.strength),
        safety=safety,
        rationale=annotation.rationale,
        quality_a=str(quality[Side.A]),
        quality_b=str(quality[Side.B]),
        edited_text=annotation.edited_text or "",
        edited_of=str(annotation.chosen_response_id) if annotation.edited_text else "",
    )


def _chosen(comparison: Comparison, annotation: Annotation) -> Response:
    return next(row for row in comparison.responses if row.id == annotation.chosen_response_id)
