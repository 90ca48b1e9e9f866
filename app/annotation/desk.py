"""What an annotator does next: the next comparison that is ready, handed out where none of their own is."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.orm import Session

from app.annotation import days, queries
from app.annotation.queries import UnderWay
from app.batches import service as batches
from app.comparisons import handout
from app.models import Batch, BatchState, Comparison, ComparisonState, Person, SkipPolicy, now

_FAILED = frozenset({ComparisonState.FAILED, ComparisonState.EQUAL_RESPONSES})
_PRESENCE = timedelta(minutes=1)


@dataclass(frozen=True)
class Desk:
    """An annotator's comparisons that have a next step, and the one to look at."""

    rows: Sequence[UnderWay]
    focus: UUID | None = None
    """The comparison to show; nothing where a prompt is to be written, or there is nothing to do."""
    judged: UUID | None = None
    """The comparison that was judged just now, whose choice can still be changed."""

    def at(self, comparison_id: UUID | None) -> "Desk":
        """The same desk with another comparison to look at."""
        return replace(self, focus=comparison_id)

    @property
    def is_to_judge(self) -> bool:
        """Whether the comparison to look at waits to be judged."""
        return any(row.comparison_id == self.focus and is_to_judge(row) for row in self.rows)

    @property
    def own(self) -> Sequence[UnderWay]:
        """The comparisons of the annotator's own conversations."""
        return [row for row in self.rows if row.is_own]


def is_to_judge(row: UnderWay) -> bool:
    """Whether a comparison waits for the annotator's choice: what was handed out always does."""
    return not row.is_own or row.state is ComparisonState.READY


def has_next_step(state: ComparisonState, turn: int, batch_state: BatchState, turns: int, *, is_own: bool) -> bool:
    """Whether there is something to wait for, to judge, or to go on with."""
    if not is_own:
        return True
    if state in {ComparisonState.SAMPLING, ComparisonState.READY}:
        return batch_state in {BatchState.OPEN, BatchState.CLOSING}
    if state is ComparisonState.ANNOTATED:
        return batch_state is BatchState.OPEN and turn < turns
    return state in _FAILED and batch_state is BatchState.OPEN


def look(session: Session, annotator: Person) -> Desk:
    """The desk as it is, with the comparison that is most worth looking at; nothing is handed out."""
    rows = [
        row
        for row in queries.under_way(session, annotator.id)
        if has_next_step(row.state, row.turn, row.batch_state, row.most_turns, is_own=row.is_own)
    ]
    return Desk(rows, _to_judge(rows))


def resume(session: Session, annotator: Person) -> Desk:
    """The desk as it is, with the comparison to show where nothing is handed out."""
    desk = look(session, annotator)
    return desk if desk.focus is not None else desk.at(_to_go_on_with(desk.rows, None))


def next_step(
    session: Session, annotator: Person, *, minutes: float, asked: UUID | None = None, batch: Batch | None = None
) -> Desk:
    """The desk after something was done: what is ready comes first, and where nothing is, something is handed out.

    ``asked`` is the comparison that the annotator was busy with, which is shown where nothing waits to be judged, and
    ``batch`` its batch if it is at hand.
    """
    at = now()
    _note_presence(session, annotator, at)
    desk = look(session, annotator)
    if desk.focus is None:
        is_open = batch is not None and batch.state is BatchState.OPEN
        open_batch = batch if is_open else batches.open_batch(session)
        handed = _hand_out(session, annotator, open_batch, at=at, minutes=minutes)
        if handed is not None:
            return Desk([*desk.rows, handed], handed.comparison_id)
        return desk.at(_to_go_on_with(desk.rows, asked))
    queries.mark_shown(session, desk.focus, annotator.id, at=at)
    return desk


def may_hand_out(session: Session) -> bool:
    """Whether the open batch has anything that is handed out at all; a look that takes no lock."""
    batch = batches.open_batch(session)
    return batch is not None and _hands_out(batch)


def _hands_out(batch: Batch) -> bool:
    return batch.pool_share > 0 or batch.overlap_share > 0 or batch.skip_policy is SkipPolicy.HAND_ON


def _hand_out(
    session: Session, annotator: Person, batch: Batch | None, *, at: datetime, minutes: float
) -> UnderWay | None:
    if batch is None or not _hands_out(batch):
        return None
    with_new = _is_for_the_pool(session, annotator, batch)
    comparison = handout.hand_out(session, annotator, batch, with_new=with_new, at=at, minutes=minutes)
    return _row(batch, comparison) if comparison is not None else None


def _is_for_the_pool(session: Session, annotator: Person, batch: Batch) -> bool:
    """Whether it is the pool's turn, so that the annotator's work in this batch has its share of both kinds."""
    if batch.pool_share in {0.0, 1.0}:
        # Without a pool the only new comparisons that are open are those that somebody handed on.
        return True
    work = days.work_of(session, annotator.id, batch.id)
    return work.pool_prompts < batch.pool_share * (work.comparisons + 1)


def _row(batch: Batch, comparison: Comparison) -> UnderWay:
    return UnderWay(
        comparison_id=comparison.id,
        conversation_id=comparison.conversation_id,
        batch_id=batch.id,
        batch_state=batch.state,
        turns_per_conversation=batch.turns_per_conversation,
        multi_turn_share=batch.multi_turn_share,
        state=comparison.state,
        turn=comparison.turn,
        excerpt=queries.excerpt(comparison.prompt),
        is_own=False,
        is_growing=True,
        asked_at=comparison.created_at,
    )


def _to_judge(rows: Iterable[UnderWay]) -> UUID | None:
    """What waits to be judged: the annotator's own first, since they remember what it was about."""
    return next((row.comparison_id for row in rows if is_to_judge(row)), None)


def _to_go_on_with(rows: Sequence[UnderWay], asked: UUID | None) -> UUID | None:
    """What the annotator was busy with, or else the conversation that waits for them, or that they wait for."""
    if any(row.comparison_id == asked for row in rows):
        return asked
    yet_to_come = [row for row in rows if row.state is ComparisonState.SAMPLING]
    to_go_on_with = [row for row in rows if row.state is not ComparisonState.SAMPLING]
    latest = (to_go_on_with or yet_to_come)[-1:]
    return latest[0].comparison_id if latest else None


def _note_presence(session: Session, annotator: Person, at: datetime) -> None:
    if annotator.last_seen_at is None or annotator.last_seen_at + _PRESENCE <= at:
        queries.note_presence(session, annotator.id, at=at)
