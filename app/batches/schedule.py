"""The schedule: when the next batch opens and what it is like, so that batches follow each other by themselves."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy.orm import Session

from app.accounts import audit
from app.batches import queries, service
from app.batches.service import BatchSettings
from app.batches.weeks import Rhythm, Week, weeks_like
from app.errors import ConflictError
from app.models import Batch, BatchState, Person, Schedule, now

_ID = 1
_DATES = frozenset({"opens_at", "closes_at", "time_zone"})
_DOCUMENT = TypeAdapter(BatchSettings)
# Nobody skips more weeks in a row than this; it only keeps a search from going on for ever.
_LONGEST_PAUSE_WEEKS = 520


@dataclass(frozen=True)
class Plan:
    """What admins set for the weeks to come."""

    rhythm: Rhythm
    follows: bool
    template: BatchSettings
    """The settings of new batches; its dates mean nothing."""


def get(session: Session) -> Plan | None:
    """The schedule, where one is saved."""
    row = session.get(Schedule, _ID)
    if row is None:
        return None
    rhythm = Rhythm(row.weekday, row.opens_at, row.time_zone)
    week = next(rhythm.weeks(now()))
    dates = {"opens_at": week.opens_at, "closes_at": week.closes_at, "time_zone": row.time_zone}
    return Plan(rhythm, row.follows, _DOCUMENT.validate_python(row.template | dates))


def save(session: Session, plan: Plan, *, to_scheduled: bool, actor: Person) -> None:
    """Set the schedule; batches that are created from now on follow it.

    With ``to_scheduled`` the batch that waits to open takes its dates and settings, too. Where nothing is open or
    scheduled and batches follow by themselves, the next one is scheduled.

    Raises:
        InvalidInputError: The settings contradict each other.

    """
    service.check(plan.template)
    row = session.get(Schedule, _ID, with_for_update=True)
    before = _said(row)
    if row is None:
        row = Schedule(weekday=plan.rhythm.weekday, opens_at=plan.rhythm.opens_at, time_zone=plan.rhythm.time_zone)
        session.add(row)
    row.weekday, row.opens_at, row.time_zone = plan.rhythm.weekday, plan.rhythm.opens_at, plan.rhythm.time_zone
    row.follows = plan.follows
    row.template = _DOCUMENT.dump_python(plan.template, mode="json", exclude=set(_DATES))
    session.flush()
    audit.record(session, "schedule.saved", "schedule", actor=actor, changed=_changes(before, _said(row)))
    newest = queries.latest(session)
    if newest is None:
        return
    if newest.state is BatchState.SCHEDULED:
        if to_scheduled:
            before_it = queries.by_number(session, newest.number - 1)
            service.change(session, newest, settings_after(session, before_it, at=now()), actor=actor)
    elif newest.state is not BatchState.OPEN:
        ensure_next(session, newest, at=now())


def follows(session: Session) -> bool:
    """Whether batches follow each other by themselves."""
    plan = get(session)
    return plan is None or plan.follows


def weeks_after(session: Session, batch: Batch, *, at: datetime) -> Iterator[Week]:
    """The weeks that may follow a batch, one after the other, those that are skipped among them."""
    plan = get(session)
    if plan is None:
        return weeks_like(batch.closes_at, batch.time_zone, at=at)
    return plan.rhythm.weeks_after(batch.opens_at, batch.closes_at, at=at)


def week_after(session: Session, batch: Batch, *, at: datetime) -> Week:
    """The first week after a batch that is not skipped.

    Raises:
        ConflictError: Ten years are skipped.

    """
    return _first_kept(session, weeks_after(session, batch, at=at))


def settings_after(session: Session, batch: Batch | None, *, at: datetime) -> BatchSettings:
    """The settings of the batch after another one: the schedule's, or those of that batch; without one, the first."""
    plan = get(session)
    if batch is not None:
        week = week_after(session, batch, at=at)
        settings = plan.template if plan is not None else _settings_like(session, batch)
    elif plan is not None:
        week, settings = _first_kept(session, plan.rhythm.weeks(at)), plan.template
        week = replace(week, opens_at=max(week.opens_at, at))
    else:
        return service.first_settings(at)
    return replace(settings, opens_at=week.opens_at, closes_at=week.closes_at, time_zone=week.time_zone)


def schedule_next(session: Session, *, actor: Person) -> Batch:
    """Schedule the week after the newest batch.

    Raises:
        ConflictError: A batch is scheduled already.

    """
    newest = queries.latest(session)
    if newest is not None and newest.state is BatchState.SCHEDULED:
        msg = f"Batch {newest.number} is scheduled already."
        raise ConflictError(msg)
    return service.create(session, settings_after(session, newest, at=now()), actor=actor)


def ensure_next(session: Session, batch: Batch, *, at: datetime) -> None:
    """Schedule the week after a batch that closes, unless there is one, or admins schedule each batch themselves."""
    newest = queries.latest(session)
    if (newest is None or newest.number == batch.number) and follows(session):
        service.create(session, settings_after(session, batch, at=at))


def next_opens_at(session: Session, batch: Batch, *, at: datetime) -> datetime | None:
    """When the next batch opens if this one is closed at a moment; never, where none follows by itself."""
    newest = queries.latest(session)
    if newest is not None and newest.state is BatchState.SCHEDULED:
        return max(newest.opens_at, at)
    plan = get(session)
    if plan is None:
        return at
    return _first_kept(session, plan.rhythm.weeks_after(batch.opens_at, at, at=at)).opens_at if plan.follows else None


def _first_kept(session: Session, weeks: Iterator[Week]) -> Week:
    # Without a schedule there is nothing that a day could be matched with: skipping moves the batch itself.
    days = [row.starts_on for row in queries.skipped_weeks(session)] if get(session) is not None else []
    for week in islice(weeks, _LONGEST_PAUSE_WEEKS):
        if not any(week.is_meant_by(day) for day in days):
            return week
    msg = "Every week of the next ten years is skipped."
    raise ConflictError(msg)


def _settings_like(session: Session, batch: Batch) -> BatchSettings:
    settings = service.settings_of(session, batch)
    # Nothing to wait for was the wish for the batch that was closed early, not for all that follow.
    return replace(settings, grace_minutes=settings.grace_minutes or service.GRACE_MINUTES)


def _changes(before: dict[str, Any], after: dict[str, Any]) -> str:
    """The names of what is different now."""
    return ", ".join(name for name in after if before.get(name) != after[name]) if before else "everything"


def _said(row: Schedule | None) -> dict[str, Any]:
    """Everything that a schedule says, by name."""
    if row is None:
        return {}
    return {name: getattr(row, name) for name in ("weekday", "opens_at", "time_zone", "follows")} | row.template
