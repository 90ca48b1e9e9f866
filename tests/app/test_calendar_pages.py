"""The admin's pages of weeks: the calendar, the schedule, extending a batch, skipping a week, what happened."""

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from sqlalchemy import select

from app.batches import moving, schedule, service
from app.batches.local_time import to_local
from app.batches.schedule_form import ScheduleForm
from app.database import Database
from app.models import AuditEvent, Batch, BatchState, PersonRole, Schedule, SkippedWeek, now
from tests import factories
from tests.app.batch_form import fields
from tests.app.test_schedule import ZONE, make_plan, set_up
from tests.conftest import Browser

CALENDAR, SCHEDULE = "/admin/batches", "/admin/batches/schedule"


@pytest.fixture
def admin(sign_in: Callable[..., Browser]) -> Browser:
    return sign_in(PersonRole.ADMIN)


def text_of(browser: Browser, path: str) -> str:
    answer = browser.get(path)
    assert answer.status_code == 200, answer.text
    return answer.text


def weeks(text: str) -> list[tuple[str, str]]:
    """The name and the state of every week of the calendar, in order."""
    items = re.findall(r"<h3>(.*?)<span class=\"badge[^\"]*\">(.*?)</span></h3>", text)
    return [(re.sub("<.*?>", "", name).strip(), state) for name, state in items]


def typed_schedule(browser: Browser) -> dict[str, object]:
    return fields(text_of(browser, SCHEDULE), SCHEDULE)


def test_the_calendar_shows_past_current_and_next(database: Database, admin: Browser) -> None:
    set_up(database, make_plan())
    with database.write() as session:
        batch = service.get(session, 1)
        batch.state = BatchState.FROZEN
        running = schedule.schedule_next(session, actor=admin.person)
        running.state = BatchState.OPEN
        schedule.schedule_next(session, actor=admin.person)
        ahead = moving.planned(session)
    text = text_of(admin, CALENDAR)
    planned = [(f"Batch {number}", "planned") for number in range(4, 4 + moving.WEEKS_AHEAD)]
    assert weeks(text) == [("Batch 2", "open"), ("Batch 3", "scheduled"), *planned, ("Batch 1", "frozen")]
    assert "Weeks begin on Monday at 09:00, Europe/Berlin." in text
    assert re.findall(r"<h2 id=[^>]*>(.*?)</h2>", text) == ["Now", "To come", "Past"]
    assert f'<time datetime="{ahead[0].opens_at.isoformat()}">' in text
    assert "Helpfulness: 0 of 200" in text


def test_a_week_is_skipped_and_taken_up_again(database: Database, admin: Browser) -> None:
    set_up(database, make_plan())
    assert weeks(text_of(admin, CALENDAR))[1] == ("Batch 2", "planned")
    with database.read() as session:
        day = moving.planned(session)[0].starts_on.isoformat()
    form = {"starts_on": day, "is_skipped": "true"}
    for _ in range(2):
        answer = admin.post("/admin/batches/skipped", form)
        assert (answer.status_code, answer.headers["location"]) == (303, CALENDAR)
    text = text_of(admin, CALENDAR)
    assert weeks(text)[1:3] == [("No batch", "skipped by test admin"), ("Batch 2", "planned")]
    assert text.count('value="false"') == 1
    assert admin.post("/admin/batches/skipped", form | {"is_skipped": "false"}).status_code == 303
    assert weeks(text_of(admin, CALENDAR))[1] == ("Batch 2", "planned")
    with database.read() as session:
        noted = session.scalars(select(AuditEvent).where(AuditEvent.subject == f"week of {day}")).all()
    assert [(one.action, one.actor_id) for one in noted] == [
        ("week.skipped", admin.person.id),
        ("week.not_skipped", admin.person.id),
    ]
    assert admin.post("/admin/batches/skipped", form | {"starts_on": "2001-01-01"}).status_code == 409
    assert admin.post("/admin/batches/skipped", form | {"starts_on": "soon"}).status_code == 422


def test_the_scheduled_batch_is_skipped_where_there_is_no_schedule(database: Database, admin: Browser) -> None:
    set_up(database, None)
    admin.post(CALENDAR)
    text = text_of(admin, CALENDAR)
    assert "Each week is like the one before it." in text
    # Weeks that have no batch yet have nothing that would remember that they are skipped.
    assert text.count("<button") == 1 + text.count(">Sign out</button>")
    day = re.search(r'name="starts_on" value="([^"]*)"', text)
    assert day is not None
    admin.post("/admin/batches/skipped", {"starts_on": day[1], "is_skipped": "true"})
    assert weeks(text_of(admin, CALENDAR))[1][0] == "No batch"
    page = text_of(admin, "/admin/batches/2")
    assert f"because: the week of {day[1]} is skipped" in page
    assert "<strong>test admin</strong> moved it" in page


def test_a_schedule_begins_like_the_newest_batch(database: Database, admin: Browser) -> None:
    set_up(database, None)
    typed = typed_schedule(admin)
    assert (typed["weekday"], typed["starts_at"], typed["time_zone"]) == ("0", "09:00", ZONE)
    assert typed["follows"] == "true"
    assert "not saved yet" in text_of(admin, SCHEDULE)
    answer = admin.post(SCHEDULE, typed)
    assert (answer.status_code, answer.headers["location"]) == (303, CALENDAR)
    with database.read() as session:
        plan = schedule.get(session)
        batch = service.settings_of(session, service.get(session, 1))
    assert plan is not None
    assert replace(plan.template, opens_at=batch.opens_at, closes_at=batch.closes_at) == batch
    # It is saved as it was shown, and shown as it was saved.
    assert typed_schedule(admin) == typed


def test_every_part_of_the_schedule_can_be_changed(database: Database, admin: Browser) -> None:
    set_up(database, make_plan())
    admin.post(CALENDAR)
    text = text_of(admin, SCHEDULE)
    assert "Also change batch 2" in text
    typed = fields(text, SCHEDULE)
    del typed["follows"]
    changed = {
        "weekday": "3",
        "starts_at": "17:30:00",
        "time_zone": "Asia/Tokyo",
        "target_helpfulness": "9",
        "multi_turn_share": "0.25",
        "curriculum": "Cooking",
        "to_scheduled": "true",
    }
    assert admin.post(SCHEDULE, typed | changed).status_code == 303
    with database.read() as session:
        plan, row = schedule.get(session), session.scalars(select(Schedule)).one()
        batch = service.get(session, 2)
        assert service.settings_of(session, batch).multi_turn_share == 0.25
    assert plan is not None
    assert (row.weekday, row.opens_at.isoformat(), row.time_zone, row.follows) == (3, "17:30:00", "Asia/Tokyo", False)
    assert (plan.template.curriculum, batch.curriculum) == ("Cooking", "Cooking")
    assert to_local(batch.closes_at, "Asia/Tokyo")[11:] == "17:30"
    assert "Batches do not follow by themselves" in text_of(admin, CALENDAR)
    assert "planned" not in text_of(admin, CALENDAR)


@pytest.mark.parametrize(
    ("field", "typed", "message"),
    [
        ("weekday", "7", "must be less than or equal to 6"),
        ("weekday", "Monday", "must be a valid integer"),
        ("starts_at", "nine", "must be a time of day, such as 09:00"),
        ("starts_at", "", "is missing."),
        ("time_zone", "Mars/Olympus", "must be a name such as Europe/Berlin"),
        ("multi_turn_share", "2", "must be less than or equal to 1"),
        ("target_helpfulness", "many", "must be a valid integer."),
        ("temperature", ["1", "1"], "equal variants would draw equal responses"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_mistake_in_the_schedule_is_named(field: str, typed: object, message: str) -> None:
    form = ScheduleForm.of_plan(make_plan()).model_copy(update={field: typed})
    plan, problems = form.read_plan()
    assert plan is None
    assert [message in problem for problem in problems.values()] == [True]


def test_mistakes_in_the_schedule_are_shown_with_what_was_typed(database: Database, admin: Browser) -> None:
    set_up(database, None)
    wrong = {"weekday": "9", "starts_at": "", "curriculum": "Kept <b>too</b>.", "review_share": "50"}
    answer = admin.post(SCHEDULE, typed_schedule(admin) | wrong)
    assert answer.status_code == 422
    assert "Nothing was saved" in answer.text
    assert answer.text.count('aria-invalid="true"') == 3
    assert "Kept &lt;b&gt;too&lt;/b&gt;." in answer.text
    with database.read() as session:
        assert schedule.get(session) is None


def test_a_batch_is_extended(database: Database, admin: Browser) -> None:
    set_up(database, make_plan())
    assert 'href="/admin/batches/1/extend"' in text_of(admin, "/admin/batches/1")
    with database.read() as session:
        before = service.get(session, 1).closes_at
    proposal = re.search(
        r'name="closes_at" type="datetime-local" value="([^"]*)"', text_of(admin, "/admin/batches/1/extend")
    )
    assert proposal is not None
    assert datetime.fromisoformat(proposal[1]) - datetime.fromisoformat(to_local(before, ZONE)) == timedelta(days=1)
    answer = admin.post("/admin/batches/1/extend", {"closes_at": proposal[1]})
    assert (answer.status_code, answer.headers["location"]) == (303, "/admin/batches/1")
    with database.read() as session:
        assert to_local(service.get(session, 1).closes_at, ZONE) == proposal[1]
    assert "<strong>test admin</strong> extended it <code>batch.extended</code>" in text_of(admin, "/admin/batches/1")
    for typed, message in ((proposal[1], "must be later"), ("never", "must be a date and a time")):
        refused = admin.post("/admin/batches/1/extend", {"closes_at": typed})
        assert refused.status_code == 422
        assert message in refused.text
        assert f'value="{typed}"' in refused.text


def test_the_page_that_closes_says_what_follows(database: Database, admin: Browser) -> None:
    set_up(database, make_plan())
    assert "The next one opens Mon" in text_of(admin, "/admin/batches/1/close")
    with database.write() as session:
        schedule.save(session, replace(make_plan(), follows=False), to_scheduled=False, actor=admin.person)
    assert "None follows by itself." in text_of(admin, "/admin/batches/1/close")


def test_old_skipped_weeks_stay_in_the_calendar(database: Database, admin: Browser) -> None:
    with database.write() as session:
        closes_at = now() - timedelta(days=1)
        factories.make_open_batch(session)
        opens_at = closes_at - timedelta(days=7)
        session.add(SkippedWeek(starts_on=opens_at.date(), opens_at=opens_at, closes_at=closes_at, time_zone="UTC"))
    assert weeks(text_of(admin, CALENDAR))[-1] == ("No batch", "skipped")


@pytest.mark.parametrize("state", list(BatchState), ids=str)
def test_every_state_has_its_place(database: Database, admin: Browser, state: BatchState) -> None:
    set_up(database, make_plan())
    with database.write() as session:
        session.scalars(select(Batch)).one().state = state
    assert [name for name, _ in weeks(text_of(admin, CALENDAR))].count("Batch 1") == 1
    assert text_of(admin, SCHEDULE)


@pytest.mark.parametrize("role", [PersonRole.ANNOTATOR, PersonRole.REVIEWER, PersonRole.TRAINER], ids=str)
def test_others_may_not(sign_in: Callable[..., Browser], role: PersonRole) -> None:
    browser = sign_in(role)
    for path in (SCHEDULE, "/admin/batches/1/extend"):
        assert browser.get(path).status_code == 403
    for path in (SCHEDULE, "/admin/batches/skipped", "/admin/batches/1/extend"):
        assert browser.post(path).status_code == 403
