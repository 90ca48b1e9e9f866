"""Weeks as dates: they follow each other at the same local time, also where the clocks change."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest

from app.batches.local_time import moment_of
from app.batches.weeks import Rhythm, Week, weeks_like

MONDAY = Rhythm(0, time(9), "Europe/Berlin")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def berlin(*when: int) -> datetime:
    return datetime(*when, tzinfo=ZoneInfo("Europe/Berlin")).astimezone(UTC)  # type: ignore[misc, arg-type]


def spans(weeks: Iterator[Week], number: int = 2) -> list[tuple[datetime, datetime]]:
    return [(week.opens_at, week.closes_at) for week in islice(weeks, number)]


@pytest.mark.parametrize(
    ("local", "zone", "moment"),
    [
        ("2027-03-22T09:00", "Europe/Berlin", datetime(2027, 3, 22, 8, 0, tzinfo=UTC)),
        # The clocks go from 02:00 to 03:00: the next minute that there is.
        ("2027-03-28T02:30", "Europe/Berlin", datetime(2027, 3, 28, 1, 0, tzinfo=UTC)),
        # Half past two happens twice: the earlier one.
        ("2026-10-25T02:30", "Europe/Berlin", datetime(2026, 10, 25, 0, 30, tzinfo=UTC)),
        # Half an hour is skipped here.
        ("2026-10-04T02:15", "Australia/Lord_Howe", datetime(2026, 10, 3, 15, 30, tzinfo=UTC)),
        # And here a whole day was.
        ("2011-12-30T12:00", "Pacific/Apia", datetime(2011, 12, 30, 10, 0, tzinfo=UTC)),
    ],
    ids=str,
)
def test_a_time_that_nobody_typed_always_has_a_moment(local: str, zone: str, moment: datetime) -> None:
    assert moment_of(datetime.fromisoformat(local), zone) == moment


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"])
@pytest.mark.parametrize("weekday", [0, 6])
def test_weeks_leave_no_gap_and_keep_their_local_time(zone: str, weekday: int) -> None:
    rhythm = Rhythm(weekday, time(2, 30), zone)
    weeks = list(islice(rhythm.weeks(datetime(2026, 1, 1, tzinfo=UTC)), 200))
    shifted = 0
    for week, following in pairwise(weeks):
        assert week.closes_at == following.opens_at
        assert week.starts_on.weekday() == weekday
        local = week.opens_at.astimezone(ZoneInfo(zone))
        assert local.date() == week.starts_on
        shifted += (local.hour, local.minute) != (2, 30)
        assert abs(week.closes_at - week.opens_at - timedelta(days=7)) <= HOUR
    # The clocks go forward on a Sunday, once a year: only then half past two is moved, to three o'clock.
    # (In Lord Howe by half an hour only, from two o'clock to half past.)
    moves = weekday == 6 and zone in {"Europe/Berlin", "America/New_York"}
    assert shifted == (4 if moves else 0)


@pytest.mark.parametrize("offset", [timedelta(0), timedelta(seconds=1), DAY, timedelta(days=7, seconds=-1)], ids=str)
def test_the_first_week_is_the_one_that_runs(offset: timedelta) -> None:
    week = next(MONDAY.weeks(berlin(2026, 11, 23, 9) + offset))
    assert (week.starts_on, week.opens_at) == (date(2026, 11, 23), berlin(2026, 11, 23, 9))


@pytest.mark.parametrize(
    ("opens_at", "closes_at", "now", "follows"),
    [
        # As planned.
        (berlin(2026, 11, 23, 9), berlin(2026, 11, 30, 9), None, (berlin(2026, 11, 30, 9), berlin(2026, 12, 7, 9))),
        # Closed early: the next week begins when it was to.
        (berlin(2026, 11, 23, 9), berlin(2026, 11, 26, 15), None, (berlin(2026, 11, 30, 9), berlin(2026, 12, 7, 9))),
        # Extended: what is left of the next week.
        (berlin(2026, 11, 23, 9), berlin(2026, 12, 2, 15), None, (berlin(2026, 12, 2, 15), berlin(2026, 12, 7, 9))),
        # Extended so far that less than a day is left of it: not worth a batch.
        (berlin(2026, 11, 23, 9), berlin(2026, 12, 7, 8), None, (berlin(2026, 12, 7, 9), berlin(2026, 12, 14, 9))),
        # Opened and closed at other times than the schedule's, as a first batch does: no gap.
        (berlin(2026, 11, 25, 15), berlin(2026, 12, 2, 15), None, (berlin(2026, 12, 2, 15), berlin(2026, 12, 7, 9))),
        # It opened a little before its week began, and closed early: the week that it belongs to is not used again.
        (berlin(2026, 11, 22, 20), berlin(2026, 11, 24, 9), None, (berlin(2026, 11, 30, 9), berlin(2026, 12, 7, 9))),
        # Nothing ran for a month: the week that runs now.
        (
            berlin(2026, 11, 23, 9),
            berlin(2026, 11, 30, 9),
            berlin(2026, 12, 30, 12),
            (berlin(2026, 12, 28, 9), berlin(2027, 1, 4, 9)),
        ),
    ],
    ids=["planned", "early", "extended", "no rest", "other times", "opened early", "late"],
)
def test_the_week_after_a_batch(
    opens_at: datetime, closes_at: datetime, now: datetime | None, follows: tuple[datetime, datetime]
) -> None:
    weeks = MONDAY.weeks_after(opens_at, closes_at, at=now or closes_at)
    first, second = spans(weeks)
    assert first == follows
    assert second[0] == first[1]


def test_a_day_means_the_week_that_begins_nearest_to_it() -> None:
    for weekday in range(7):
        weeks = list(islice(Rhythm(weekday, time(9), "UTC").weeks(datetime(2026, 11, 1, tzinfo=UTC)), 10))
        meant = [week for week in weeks if week.is_meant_by(date(2026, 11, 23))]
        assert len(meant) == 1
        assert abs(meant[0].starts_on - date(2026, 11, 23)) <= 3 * DAY


def test_without_a_schedule_a_week_is_like_the_one_before() -> None:
    closes_at = berlin(2027, 3, 22, 9)
    assert spans(weeks_like(closes_at, "Europe/Berlin", at=closes_at)) == [
        (closes_at, berlin(2027, 3, 29, 9)),
        (berlin(2027, 3, 29, 9), berlin(2027, 4, 5, 9)),
    ]
