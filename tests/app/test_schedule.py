"""The schedule: the next batch takes its time and settings from it; batches are extended, and weeks skipped."""

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from itertools import pairwise

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.batches import moving, schedule, service
from app.batches.local_time import to_local
from app.batches.reconciler import reconcile
from app.batches.schedule import Plan
from app.batches.service import BatchSettings
from app.batches.weeks import Rhythm
from app.database import Database
from app.errors import ConflictError, InvalidInputError
from app.models import AuditEvent, Batch, BatchState, Person, PersonRole, Schedule, SkippedWeek, now
from app.settings import Settings
from contract.vocabulary import Objective
from tests import factories

WEEK = timedelta(days=7)
ZONE = "Europe/Berlin"
WHEN = Rhythm(0, time(9), ZONE)


def make_plan(**settings: object) -> Plan:
    week = next(WHEN.weeks(now()))
    template = BatchSettings(week.opens_at, week.closes_at, ZONE, curriculum="From the template")
    template = replace(template, variants=list(template.variants))
    return Plan(WHEN, follows=True, template=replace(template, **settings))  # type: ignore[arg-type]


def set_up(database: Database, plan: Plan | None) -> None:
    """The week that runs by the schedule, open, and the schedule if there is to be one."""
    with database.write() as session:
        ada = factories.make_person(session, "Ada", PersonRole.ADMIN)
        week = next(WHEN.weeks(now()))
        factories.make_open_batch(session, opens_at=week.opens_at, closes_at=week.closes_at, time_zone=ZONE)
        if plan is not None:
            schedule.save(session, plan, to_scheduled=False, actor=ada)


def ada(session: Session) -> Person:
    return factories.make_person(session, "Ada", PersonRole.ADMIN)


def dates(database: Database) -> list[tuple[datetime, datetime]]:
    with database.read() as session:
        return [(batch.opens_at, batch.closes_at) for batch in session.scalars(select(Batch).order_by(Batch.number))]


def actions(database: Database) -> list[str]:
    with database.read() as session:
        return list(session.scalars(select(AuditEvent.action).order_by(AuditEvent.at, AuditEvent.id)))


def close_week(database: Database, settings: Settings) -> datetime:
    """Let the week end at its time."""
    at = dates(database)[-1][1] + timedelta(seconds=1)
    while reconcile(database, settings, at):
        pass
    return at


def test_the_next_batch_takes_its_time_and_settings_from_the_schedule(database: Database, settings: Settings) -> None:
    targets = {Objective.HELPFULNESS: 7, Objective.SAFETY: 0}
    plan = make_plan(targets=targets, grace_minutes=0, review_share=0.25, multi_turn_share=0.5)
    set_up(database, plan)
    for _ in range(3):
        close_week(database, settings)
    found = dates(database)
    assert all(week[1] == following[0] for week, following in pairwise(found))
    assert {to_local(opens_at, ZONE)[11:] for opens_at, _ in found} == {"09:00"}
    with database.read() as session:
        newest = service.get(session, 4)
        assert newest.state is BatchState.OPEN
        made = service.settings_of(session, newest)
        assert replace(made, opens_at=plan.template.opens_at, closes_at=plan.template.closes_at) == plan.template
        assert schedule.get(session) == plan


def test_a_schedule_is_one_row_and_its_changes_are_noted(database: Database) -> None:
    plan = make_plan()
    set_up(database, plan)
    changed = replace(plan, rhythm=replace(WHEN, weekday=2), template=replace(plan.template, curriculum="Another"))
    with database.write() as session:
        schedule.save(session, changed, to_scheduled=False, actor=ada(session))
        assert session.scalar(select(func.count()).select_from(Schedule)) == 1
        event = session.scalars(
            select(AuditEvent).where(AuditEvent.action == "schedule.saved").order_by(AuditEvent.at.desc())
        ).first()
    assert event is not None
    assert event.detail == {"changed": "weekday, curriculum"}


def test_a_template_that_contradicts_itself_is_refused(database: Database) -> None:
    with database.write() as session:
        person = ada(session)
        for wrong in (make_plan(variants=[]), make_plan(targets={Objective.HELPFULNESS: 0})):
            with pytest.raises(InvalidInputError):
                schedule.save(session, wrong, to_scheduled=False, actor=person)


def test_the_batch_that_waits_may_take_the_new_schedule(database: Database) -> None:
    set_up(database, None)
    with database.write() as session:
        schedule.schedule_next(session, actor=ada(session))
        later = replace(WHEN, weekday=2, opens_at=time(14))
        plan = replace(make_plan(), rhythm=later)
        schedule.save(session, plan, to_scheduled=False, actor=ada(session))
        assert service.get(session, 2).curriculum == ""
        schedule.save(session, plan, to_scheduled=True, actor=ada(session))
        batch = service.get(session, 2)
        assert batch.curriculum == "From the template"
        assert batch.opens_at == service.get(session, 1).closes_at
        assert to_local(batch.closes_at, ZONE)[11:] == "14:00"
        assert batch.closes_at.weekday() == 2


def test_batches_follow_by_themselves_only_if_they_are_to(database: Database, settings: Settings) -> None:
    set_up(database, replace(make_plan(), follows=False))
    at = close_week(database, settings)
    assert len(dates(database)) == 1
    with database.write() as session:
        assert moving.planned(session) == []
        # Once they are to, the next one is scheduled at once: no batch is left that would begin it by closing.
        schedule.save(session, make_plan(), to_scheduled=False, actor=ada(session))
        assert service.get(session, 2).opens_at <= at


def test_an_extended_batch_takes_the_next_one_along(database: Database, settings: Settings) -> None:
    set_up(database, make_plan(grace_minutes=0))
    (_, closes_at), week_after = dates(database)[0], timedelta(days=7)
    with database.write() as session:
        person, batch = ada(session), service.get(session, 1)
        schedule.schedule_next(session, actor=person)
        moving.extend(session, batch, closes_at + timedelta(days=2), actor=person)
        with pytest.raises(InvalidInputError, match="later"):
            moving.extend(session, batch, closes_at + timedelta(days=2), actor=person)
    assert reconcile(database, settings, closes_at + timedelta(days=1)) == 0
    first, second = dates(database)
    assert first[1] == second[0] == closes_at + timedelta(days=2)
    assert abs(second[1] - closes_at - week_after) <= timedelta(hours=1)
    assert actions(database)[-2:] == ["batch.extended", "batch.moved"]
    close_week(database, settings)
    assert to_local(dates(database)[2][0], ZONE)[11:] == "09:00"


def test_without_a_schedule_the_next_one_keeps_its_length(database: Database) -> None:
    set_up(database, None)
    with database.write() as session:
        person, batch = ada(session), service.get(session, 1)
        schedule.schedule_next(session, actor=person)
        before = service.settings_of(session, service.get(session, 2))
        # By the settings form as by the page that extends it.
        closes_at = batch.closes_at + timedelta(hours=5)
        moving.change(session, batch, replace(service.settings_of(session, batch), closes_at=closes_at), actor=person)
    first, second = dates(database)
    assert second == (first[1], before.closes_at + timedelta(hours=5))


def test_a_batch_that_is_not_open_cannot_be_extended(database: Database, settings: Settings) -> None:
    set_up(database, make_plan())
    at = close_week(database, settings)
    for number in (1, 2):
        with database.write() as session:
            batch = service.get(session, number)
            if batch.state is BatchState.OPEN:
                continue
            with pytest.raises(ConflictError, match="not open"):
                moving.extend(session, batch, at + WEEK, actor=ada(session))


def test_a_planned_week_is_skipped_and_taken_up_again(database: Database, settings: Settings) -> None:
    set_up(database, make_plan(grace_minutes=0))
    with database.write() as session:
        weeks = moving.planned(session)
        assert len(weeks) == moving.WEEKS_AHEAD
        for _ in range(2):
            moving.skip(session, weeks[0].starts_on, actor=ada(session))
        moving.skip(session, weeks[2].starts_on, actor=ada(session))
        assert moving.planned(session)[0] == weeks[1]
    assert actions(database).count("week.skipped") == 2
    close_week(database, settings)
    first, second = dates(database)
    assert (second[0], second[1]) == (weeks[1].opens_at, weeks[1].closes_at)
    assert first[1] == weeks[0].opens_at
    # Nothing opens in the week that is skipped, and the number is the next one.
    assert reconcile(database, settings, weeks[0].opens_at + timedelta(days=3)) == 0
    with database.write() as session:
        assert [batch.number for batch in service.opened(session)] == [1]
        for _ in range(2):
            moving.take_back_skip(session, weeks[0].starts_on, actor=ada(session))
    assert dates(database)[1] == (weeks[0].opens_at, weeks[0].closes_at)
    assert actions(database).count("week.not_skipped") == 1
    with database.read() as session:
        assert session.scalars(select(SkippedWeek.starts_on)).all() == [weeks[2].starts_on]


@pytest.mark.parametrize("has_schedule", [True, False], ids=["scheduled", "without"])
def test_the_batch_of_a_skipped_week_moves_on_and_back(database: Database, *, has_schedule: bool) -> None:
    set_up(database, make_plan() if has_schedule else None)
    with database.write() as session:
        person = ada(session)
        batch = schedule.schedule_next(session, actor=person)
        before, week = (batch.opens_at, batch.closes_at), moving.week_of(session, batch)
        # A second press of the button does not skip another week.
        for _ in range(2):
            moving.skip(session, week.starts_on, actor=person)
        moved = (batch.opens_at, batch.closes_at)
        assert moved[0] == before[1]
        assert moving.week_of(session, batch).starts_on == week.starts_on + WEEK
        moving.skip(session, week.starts_on + WEEK, actor=person)
        assert batch.opens_at == moved[1]
        moving.take_back_skip(session, week.starts_on + WEEK, actor=person)
        assert (batch.opens_at, batch.closes_at) == moved
        moving.take_back_skip(session, week.starts_on, actor=person)
        assert (batch.opens_at, batch.closes_at) == before
    assert actions(database).count("batch.moved") == 4


def test_a_week_that_has_begun_cannot_be_skipped(database: Database) -> None:
    set_up(database, make_plan())
    with database.write() as session:
        this_week = next(WHEN.weeks(now())).starts_on
        for day in (this_week, this_week - WEEK, this_week + 500 * WEEK):
            with pytest.raises(ConflictError, match="cannot be skipped"):
                moving.skip(session, day, actor=ada(session))
        past = SkippedWeek(
            starts_on=this_week - WEEK, opens_at=now() - 2 * WEEK, closes_at=now() - WEEK, time_zone=ZONE
        )
        session.add(past)
        session.flush()
        with pytest.raises(ConflictError, match="is over"):
            moving.take_back_skip(session, past.starts_on, actor=ada(session))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_hour_survives_the_change_of_clocks(database: Database, settings: Settings) -> None:
    opens_at = datetime(2027, 3, 15, 8, 0, tzinfo=UTC)
    with database.write() as session:
        person = ada(session)
        factories.make_open_batch(session, opens_at=opens_at, closes_at=opens_at + WEEK, time_zone=ZONE)
        schedule.save(session, make_plan(grace_minutes=0), to_scheduled=False, actor=person)
    for _ in range(2):
        close_week(database, settings)
    # The clocks go forward on 28 March 2027: nine o'clock in Berlin is an hour earlier then.
    assert dates(database)[1:] == [
        (datetime(2027, 3, 22, 8, 0, tzinfo=UTC), datetime(2027, 3, 29, 7, 0, tzinfo=UTC)),
        (datetime(2027, 3, 29, 7, 0, tzinfo=UTC), datetime(2027, 4, 5, 7, 0, tzinfo=UTC)),
    ]
