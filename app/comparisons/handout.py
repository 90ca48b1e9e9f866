"""Hands comparisons out: each to as many annotators as are wanted and to none twice, and takes them back from the idle.

A comparison has open places. Taking one and giving it back change ``open_places`` in the same transaction as the
annotator's ``Assignment``, and a CHECK keeps it from going below none: however many processes hand out at once,
nobody is let in beyond the overlap.
"""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.orm import Session

from app.comparisons import queries
from app.database import Database
from app.models import Assignment, AssignmentState, Batch, Comparison, ComparisonState, Person

_EXPIRED_AT_ONCE = 200


def hand_out(
    session: Session, annotator: Person, batch: Batch, *, with_new: bool, at: datetime, minutes: float
) -> Comparison | None:
    """Give the annotator a place at a comparison of an open batch, if there is one for them.

    The oldest comes first, and so what they gave back themselves: signing in again leads to the same place.
    ``with_new`` includes comparisons that nobody has judged yet.
    """
    comparison = queries.open_to(session, annotator.id, batch.id, with_new=with_new)
    if comparison is None:
        return None
    comparison.open_places -= 1
    queries.hold(session, comparison.id, annotator.id, at=at, until=at + timedelta(minutes=minutes))
    return comparison


def retake(comparison: Comparison, assignment: Assignment, *, at: datetime, minutes: float) -> bool:
    """Give an idle annotator their place at a comparison back, if nobody has taken it. The comparison is locked."""
    if not comparison.open_places:
        return False
    comparison.open_places -= 1
    assignment.state = AssignmentState.HELD
    assignment.held_until = at + timedelta(minutes=minutes)
    return True


def keep(assignment: Assignment, *, at: datetime, minutes: float) -> None:
    """Extend the time of an annotator who is doing something."""
    if assignment.state is AssignmentState.HELD and assignment.held_until is not None:
        assignment.held_until = at + timedelta(minutes=minutes)


def give_back(session: Session, annotator: Person) -> int:
    """Offer what an annotator was handed and has not judged to others, as when they sign out."""
    handed = [(comparison_id, annotator.id) for comparison_id in queries.handed_to(session, annotator.id)]
    return _take_back(session, handed, idle_since=None)


def expire(database: Database, at: datetime) -> int:
    """Take places back from annotators who have been idle for too long; says how many."""
    with database.read() as session:
        if not queries.expired(session, at, limit=1):
            return 0
    with database.write() as session:
        return _take_back(session, queries.expired(session, at, limit=_EXPIRED_AT_ONCE), idle_since=at)


def _take_back(session: Session, places: list[tuple[UUID, UUID]], *, idle_since: datetime | None) -> int:
    """Open places again. The comparison is locked first, as judging does, so that neither waits for the other."""
    comparison_ids = sorted({place[0] for place in places})
    # Whoever signs out is not there any more to try again; what the idle hold is looked at every few seconds.
    rows = queries.locked(session, comparison_ids, passes_over=idle_since is not None)
    comparisons = {row.id: row for row in rows}
    taken_back = 0
    for comparison_id, annotator_id in places:
        assignment = queries.assignment(session, comparison_id, annotator_id)
        comparison = comparisons.get(comparison_id)
        if comparison is None or assignment is None or not _is_returned(assignment, idle_since):
            continue
        assignment.state = AssignmentState.GIVEN_BACK
        assignment.held_until = None
        comparison.open_places += 1
        taken_back += 1
    return taken_back


def _is_returned(assignment: Assignment, idle_since: datetime | None) -> bool:
    """Whether a place is still held, and, where only the idle lose theirs, not used again meanwhile."""
    if assignment.state is not AssignmentState.HELD or assignment.held_until is None:
        return False
    return idle_since is None or assignment.held_until < idle_since


def hand_on(comparison: Comparison) -> None:
    """Open the place of an annotator who skipped: somebody else may judge."""
    comparison.open_places += 1


def retire(session: Session, comparison: Comparison) -> None:
    """Close the place of an annotator who skipped, and hand the comparison to nobody new while it is unjudged.

    Those who hold a place may still judge it; where nobody does, it is skipped for good. The comparison is locked.
    """
    if comparison.state is ComparisonState.ANNOTATED:
        comparison.annotations_wanted -= 1
        return
    comparison.open_places = 0
    comparison.annotations_wanted = queries.count_held(session, comparison.id)
    if not comparison.annotations_wanted:
        comparison.state = ComparisonState.SKIPPED
