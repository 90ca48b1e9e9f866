"""Weeks as dates: one follows the other at the same local time, whatever the clocks do in between."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import count
from zoneinfo import ZoneInfo

from app.batches.local_time import moment_of

WEEK = timedelta(days=7)
# What is left of a week after a batch that was extended must be longer to be worth a batch of its own.
_SHORTEST = timedelta(days=1)
# Half a week: a day that was skipped means the week nearest to it, also after the weekday has changed.
_NEAREST_DAYS = 3


@dataclass(frozen=True)
class Week:
    """When a batch is open, or would be."""

    starts_on: date
    """The local day on which the week begins; its batch may open later, if the one before was extended."""
    opens_at: datetime
    closes_at: datetime
    time_zone: str

    def is_meant_by(self, day: date) -> bool:
        """Whether this is the week that begins nearest to a day; of weeks in a row, one is."""
        return abs((self.starts_on - day).days) <= _NEAREST_DAYS


@dataclass(frozen=True)
class Rhythm:
    """When weeks begin."""

    weekday: int
    """Monday is 0."""
    opens_at: time
    time_zone: str

    def weeks(self, at: datetime) -> Iterator[Week]:
        """The week that runs at a moment, and all that follow."""
        local = at.astimezone(ZoneInfo(self.time_zone))
        first = local.date() - timedelta(days=(local.weekday() - self.weekday) % 7)
        if self._begin(first) > at:
            first -= WEEK
        for number in count():
            day = first + number * WEEK
            yield Week(day, self._begin(day), self._begin(day + WEEK), self.time_zone)

    def week_of(self, opens_at: datetime) -> Week:
        """The week that a batch belongs to which opens then; one may open some hours early, or days late."""
        return next(self.weeks(opens_at + _SHORTEST))

    def weeks_after(self, opens_at: datetime, closes_at: datetime, *, at: datetime) -> Iterator[Week]:
        """The weeks that may follow a batch, of which enough is left after it and after now.

        The first may have begun already, if the batch was extended into it: it opens when the batch closes.
        """
        own, free_from = self.week_of(opens_at), max(closes_at, at)
        for week in self.weeks(free_from):
            if week.opens_at > own.opens_at and week.closes_at > free_from + _SHORTEST:
                yield replace(week, opens_at=max(week.opens_at, closes_at))

    def _begin(self, day: date) -> datetime:
        return moment_of(datetime.combine(day, self.opens_at), self.time_zone)


def later(moment: datetime, by: timedelta, time_zone: str) -> datetime:
    """A moment so much later by the clocks of a time zone: a day later is the same hour."""
    return (moment.astimezone(ZoneInfo(time_zone)) + by).astimezone(UTC)


def between(earlier: datetime, moment: datetime, time_zone: str) -> timedelta:
    """How much later a moment is by the clocks of a time zone."""
    zone = ZoneInfo(time_zone)
    return moment.astimezone(zone).replace(tzinfo=None) - earlier.astimezone(zone).replace(tzinfo=None)


def day_of(moment: datetime, time_zone: str) -> date:
    """The local day of a moment."""
    return moment.astimezone(ZoneInfo(time_zone)).date()


def weeks_like(closes_at: datetime, time_zone: str, *, at: datetime) -> Iterator[Week]:
    """The weeks after a batch where there is no schedule: each a local week after the one before.

    The first opens when the batch closes, or at once where that is past, and closes a week after the batch does.
    Where that is past too, since nothing ran for so long, it closes at the same local time of a later week.
    """
    # Weeks are added in local time, so that the hour stays the same when the clocks change.
    opens, closes = max(closes_at, at), closes_at.astimezone(ZoneInfo(time_zone)) + WEEK
    while closes.astimezone(UTC) <= at:
        closes += WEEK
    while True:
        yield Week(day_of(opens, time_zone), opens, closes.astimezone(UTC), time_zone)
        opens, closes = closes.astimezone(UTC), closes + WEEK
