"""What the calendar shows: weeks that are over, the one that runs, those to come; and the pages that change them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.orm import Session

from app.batches import moving, queries, schedule, service
from app.batches.forms import ExtendForm, VariantText
from app.batches.local_time import time_zones, to_local
from app.batches.pages import SPARE_VARIANT, BatchRow, batch_rows
from app.batches.queries import Progress
from app.batches.schedule import Plan
from app.batches.schedule_form import WEEKDAYS, ScheduleForm
from app.batches.variant_rows import VariantRows
from app.batches.weeks import Rhythm, Week, later
from app.models import Batch, BatchState, SkippedWeek, now
from app.web.templating import Page

_RUNNING = frozenset({BatchState.OPEN, BatchState.CLOSING})
_TONES = {BatchState.OPEN: "good", BatchState.CLOSING: "warn", BatchState.IN_REVIEW: "warn"}
_A_DAY = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class CalendarWeek:
    """A week in the calendar: that of a batch, one that is planned, or one that is skipped."""

    name: str
    opens_at: datetime
    closes_at: datetime
    time_zone: str
    state: str
    tone: str = ""
    number: int | None = None
    """Of its batch, where it has one."""
    progress: tuple[Progress, ...] = ()
    dataset: str = ""
    starts_on: str = ""
    """Names the week where it can be skipped, or is skipped and can be taken up again."""
    is_skipped: bool = False


@dataclass(frozen=True, kw_only=True)
class CalendarPage(Page):
    """All weeks: past, current, next."""

    title: str = "Batches"
    plan: Plan | None
    weekday: str
    follows: bool
    can_schedule: bool
    sections: list[tuple[str, list[CalendarWeek]]]


@dataclass(frozen=True, kw_only=True)
class SchedulePage(Page):
    """When batches open, and what new ones are like, as a form."""

    title: str = "Schedule"
    is_saved: bool
    scheduled: Batch | None
    """The batch that waits to open, which may take the new settings."""
    form: ScheduleForm
    rows: list[VariantText]
    variants: VariantRows
    problems: dict[str, str]
    time_zones: tuple[str, ...]
    weekdays: list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class ExtendPage(Page):
    """Asks until when a batch stays open."""

    batch: Batch
    typed: str
    problems: dict[str, str]


def calendar_page(session: Session) -> CalendarPage:
    """All weeks: those that run, those to come with the nearest first, and those that are over, the latest first."""
    at = now()
    plan = schedule.get(session)
    rows = batch_rows(session, queries.all_batches(session), at)
    names = queries.skippers(session)
    skipped = [_skipped(row, names, at) for row in queries.skipped_weeks(session)]
    running = [_of_batch(session, row, at) for row in rows if row.batch.state in _RUNNING]
    coming = [_of_batch(session, row, at) for row in rows if row.batch.state is BatchState.SCHEDULED]
    first = rows[0].batch.number + 1 if rows else 1
    coming += [
        _planned(week, number, can_skip=plan is not None) for number, week in enumerate(moving.planned(session), first)
    ]
    coming += [week for week in skipped if week.closes_at > at]
    over = [_of_batch(session, row, at) for row in rows if row.batch.state not in _RUNNING | {BatchState.SCHEDULED}]
    over += [week for week in skipped if week.closes_at <= at]
    sections = [
        ("Now", running),
        ("To come", sorted(coming, key=lambda week: week.opens_at)),
        ("Past", sorted(over, key=lambda week: week.opens_at, reverse=True)),
    ]
    return CalendarPage(
        plan=plan,
        weekday=WEEKDAYS[plan.rhythm.weekday] if plan is not None else "",
        follows=schedule.follows(session),
        can_schedule=not any(row.batch.state is BatchState.SCHEDULED for row in rows),
        sections=[(title, weeks) for title, weeks in sections if weeks],
    )


def schedule_page(
    session: Session, form: ScheduleForm | None = None, problems: dict[str, str] | None = None
) -> SchedulePage:
    """The schedule as a form; with a form that was refused, that form again."""
    plan = schedule.get(session)
    newest = queries.latest(session)
    form = form or ScheduleForm.of_plan(plan or _first_plan(session, newest))
    return SchedulePage(
        is_saved=plan is not None,
        scheduled=newest if newest is not None and newest.state is BatchState.SCHEDULED else None,
        form=form,
        rows=[*form.rows(), SPARE_VARIANT],
        variants=VariantRows([]),
        problems=problems or {},
        time_zones=time_zones(),
        weekdays=[(str(number), name) for number, name in enumerate(WEEKDAYS)],
    )


def extend_page(batch: Batch, form: ExtendForm | None = None, problems: dict[str, str] | None = None) -> ExtendPage:
    """Asks until when a batch stays open: a day longer, unless something else is typed."""
    proposal = to_local(later(max(batch.closes_at, now()), _A_DAY, batch.time_zone), batch.time_zone)
    return ExtendPage(
        title=f"Extend batch {batch.number}",
        batch=batch,
        typed=form.closes_at if form is not None else proposal,
        problems=problems or {},
    )


def _first_plan(session: Session, newest: Batch | None) -> Plan:
    """What a schedule begins with: weeks like the newest batch."""
    settings = service.settings_of(session, newest) if newest is not None else service.first_settings(now())
    local = to_local(settings.closes_at, settings.time_zone)
    moment = datetime.fromisoformat(local)
    return Plan(Rhythm(moment.weekday(), moment.time(), settings.time_zone), follows=True, template=settings)


def _of_batch(session: Session, row: BatchRow, at: datetime) -> CalendarWeek:
    batch = row.batch
    week = CalendarWeek(
        name=f"Batch {batch.number}",
        opens_at=batch.opens_at,
        closes_at=batch.closes_at,
        time_zone=batch.time_zone,
        state=row.state,
        tone=_TONES.get(batch.state, ""),
        number=batch.number,
        progress=tuple(row.progress),
        dataset=row.dataset,
    )
    if batch.state is BatchState.SCHEDULED and batch.opens_at > at:
        return replace(week, starts_on=moving.week_of(session, batch).starts_on.isoformat())
    return week


def _planned(week: Week, number: int, *, can_skip: bool) -> CalendarWeek:
    return CalendarWeek(
        name=f"Batch {number}",
        opens_at=week.opens_at,
        closes_at=week.closes_at,
        time_zone=week.time_zone,
        state="planned",
        starts_on=week.starts_on.isoformat() if can_skip else "",
    )


def _skipped(row: SkippedWeek, names: Mapping[UUID, str], at: datetime) -> CalendarWeek:
    who = names.get(row.skipped_by, "") if row.skipped_by is not None else ""
    return CalendarWeek(
        name="No batch",
        opens_at=row.opens_at,
        closes_at=row.closes_at,
        time_zone=row.time_zone,
        state=f"skipped by {who}" if who else "skipped",
        starts_on=row.starts_on.isoformat() if row.closes_at > at else "",
        is_skipped=True,
    )
