"""What moves a batch in time: an open one is extended, a week is skipped, and the batch that follows comes along."""

from datetime import date, datetime

from sqlalchemy.orm import Session

from app.accounts import audit
from app.batches import queries, schedule, service
from app.batches.service import BatchSettings
from app.batches.weeks import WEEK, Week, between, day_of, later
from app.errors import ConflictError, InvalidInputError
from app.models import Batch, BatchState, Person, SkippedWeek, now
from app.web.templating import in_zone

WEEKS_AHEAD = 5
"""How many weeks to come are planned, shown, and may be skipped."""


def change(session: Session, batch: Batch, settings: BatchSettings, *, actor: Person) -> None:
    """Change a batch that is not closed yet; where an open one now closes at another time, the next one moves along.

    Raises:
        ConflictError: The batch is closing, closed or frozen.
        InvalidInputError: The settings contradict each other.

    """
    closed_at = batch.closes_at
    service.change(session, batch, settings, actor=actor)
    if settings.closes_at != closed_at:
        _let_next_follow(session, batch, closed_at, actor)


def extend(session: Session, batch: Batch, closes_at: datetime, *, actor: Person) -> None:
    """Keep a batch open for longer; the one that follows moves along.

    Raises:
        ConflictError: The batch is not open.
        InvalidInputError: It would not close later.

    """
    batch = queries.locked(session, batch.id)
    if batch.state is not BatchState.OPEN:
        msg = f"Batch {batch.number} is {batch.state.replace('_', ' ')}, not open."
        raise ConflictError(msg)
    closed_at = batch.closes_at
    if closes_at <= max(closed_at, now()):
        msg = "closes_at: must be later than the batch closes anyway."
        raise InvalidInputError(msg)
    batch.closes_at = closes_at
    session.flush()
    audit.record(
        session,
        "batch.extended",
        f"batch {batch.number}",
        actor=actor,
        closes_at=_local(closes_at, batch.time_zone),
        before=_local(closed_at, batch.time_zone),
    )
    _let_next_follow(session, batch, closed_at, actor)


def skip(session: Session, starts_on: date, *, actor: Person) -> None:
    """Let no batch open in a week to come; one that is scheduled for it moves on to the next. Twice is once.

    Raises:
        ConflictError: The week is not to come, or not planned yet.

    """
    scheduled = _scheduled(session)
    if session.get(SkippedWeek, starts_on) is not None:
        return
    if scheduled is not None and week_of(session, scheduled).starts_on == starts_on:
        week = week_of(session, scheduled)
        _note_skipped(session, week, actor)
        _move(
            session, scheduled, _week_instead(session, scheduled), actor, because=f"the week of {starts_on} is skipped"
        )
        return
    weeks = planned(session) if schedule.get(session) is not None else []
    for week in weeks:
        if week.starts_on == starts_on:
            _note_skipped(session, week, actor)
            return
    msg = f"The week of {starts_on} cannot be skipped: it has begun, or is not planned."
    raise ConflictError(msg)


def take_back_skip(session: Session, starts_on: date, *, actor: Person) -> None:
    """Let a batch open in a week after all; the one that moved on moves back. Twice is once.

    Raises:
        ConflictError: The week is over.

    """
    scheduled = _scheduled(session)
    row = session.get(SkippedWeek, starts_on)
    if row is None:
        return
    if row.closes_at <= now():
        msg = f"The week of {starts_on} is over."
        raise ConflictError(msg)
    week = Week(starts_on, row.opens_at, row.closes_at, row.time_zone)
    session.delete(row)
    session.flush()
    audit.record(session, "week.not_skipped", f"week of {starts_on}", actor=actor)
    if scheduled is None or scheduled.opens_at <= week.opens_at:
        return
    previous = queries.by_number(session, scheduled.number - 1)
    if previous is not None and schedule.get(session) is not None:
        week = schedule.week_after(session, previous, at=now())
    if week.opens_at < scheduled.opens_at and (previous is None or previous.closes_at <= week.opens_at):
        _move(session, scheduled, week, actor, because=f"the week of {starts_on} is no longer skipped")


def planned(session: Session) -> list[Week]:
    """The next weeks that have no batch yet but will get one, those that are skipped left out."""
    newest = queries.latest(session)
    if newest is None or not schedule.follows(session):
        return []
    skipped = [row.starts_on for row in queries.skipped_weeks(session)] if schedule.get(session) is not None else []
    found: list[Week] = []
    for week in schedule.weeks_after(session, newest, at=now()):
        if not any(week.is_meant_by(day) for day in skipped):
            found.append(week)
        if len(found) == WEEKS_AHEAD:
            break
    return found


def week_of(session: Session, batch: Batch) -> Week:
    """The week that a batch takes up, with the batch's own dates."""
    plan = schedule.get(session)
    own = plan.rhythm.week_of(batch.opens_at).starts_on if plan is not None else day_of(batch.opens_at, batch.time_zone)
    return Week(own, batch.opens_at, batch.closes_at, batch.time_zone)


def _scheduled(session: Session) -> Batch | None:
    """The batch that waits to open, locked: while its week is looked at, it does not open."""
    newest = queries.latest(session)
    if newest is None:
        return None
    newest = queries.locked(session, newest.id)
    return newest if newest.state is BatchState.SCHEDULED else None


def _note_skipped(session: Session, week: Week, actor: Person) -> None:
    row = SkippedWeek(
        starts_on=week.starts_on,
        opens_at=week.opens_at,
        closes_at=week.closes_at,
        time_zone=week.time_zone,
        skipped_by=actor.id,
    )
    session.add(row)
    session.flush()
    audit.record(session, "week.skipped", f"week of {week.starts_on}", actor=actor)


def _week_instead(session: Session, batch: Batch) -> Week:
    if schedule.get(session) is not None:
        return schedule.week_after(session, batch, at=now())
    return Week(
        day_of(batch.opens_at, batch.time_zone) + WEEK,
        later(batch.opens_at, WEEK, batch.time_zone),
        later(batch.closes_at, WEEK, batch.time_zone),
        batch.time_zone,
    )


def _let_next_follow(session: Session, batch: Batch, closed_at: datetime, actor: Person) -> None:
    """Move the batch that is scheduled after an open one, so that neither a gap nor an overlap arises."""
    following = _scheduled(session)
    if following is None or following.number != batch.number + 1:
        return
    if following.opens_at != closed_at and following.opens_at >= batch.closes_at:
        return
    if schedule.get(session) is not None:
        week = schedule.week_after(session, batch, at=now())
    else:
        by = between(closed_at, batch.closes_at, following.time_zone)
        closes_at = later(following.closes_at, by, following.time_zone)
        week = Week(day_of(batch.closes_at, following.time_zone), batch.closes_at, closes_at, following.time_zone)
    _move(session, following, week, actor, because=f"batch {batch.number} closes at another time")


def _move(session: Session, batch: Batch, week: Week, actor: Person, *, because: str) -> None:
    batch.opens_at, batch.closes_at, batch.time_zone = week.opens_at, week.closes_at, week.time_zone
    session.flush()
    audit.record(
        session,
        "batch.moved",
        f"batch {batch.number}",
        actor=actor,
        opens_at=_local(week.opens_at, week.time_zone),
        closes_at=_local(week.closes_at, week.time_zone),
        because=because,
    )


def _local(moment: datetime, time_zone: str) -> str:
    """A moment as a page shows it."""
    return in_zone(moment, time_zone)
