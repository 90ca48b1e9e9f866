"""Moments as people type them: local time in a batch's time zone, without a zone of their own."""

from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

_FORMAT = "%Y-%m-%dT%H:%M"
# Near the ends of what a datetime holds, another time zone or the next week would be beyond it.
_YEARS = range(2000, 3000)


@cache
def time_zones() -> tuple[str, ...]:
    """The names that a time zone can have, in order."""
    return tuple(sorted(available_timezones()))


def to_local(moment: datetime, time_zone: str) -> str:
    """A moment as the browser's field for local times wants it, to the minute."""
    return moment.astimezone(ZoneInfo(time_zone)).strftime(_FORMAT)


def from_local(typed: str, time_zone: str) -> datetime:
    """The moment of a local time; where the clocks go back, the earlier of the two.

    Raises:
        ValueError: It is not a local time, or the clocks skip it.

    """
    try:
        local = datetime.strptime(typed[: len("2026-01-01T00:00")], _FORMAT)  # noqa: DTZ007 - the zone follows
    except ValueError:
        msg = "must be a date and a time, such as 2026-11-30T09:00"
        raise ValueError(msg) from None
    if local.year not in _YEARS:
        msg = f"must be in the years {_YEARS[0]} to {_YEARS[-1]}"
        raise ValueError(msg)
    moment = local.replace(tzinfo=ZoneInfo(time_zone)).astimezone(UTC)
    if to_local(moment, time_zone) != local.strftime(_FORMAT):
        msg = f"does not exist in {time_zone}: the clocks skip it"
        raise ValueError(msg)
    return moment


def moment_of(local: datetime, time_zone: str) -> datetime:
    """The moment of a local time that nobody typed for this day, such as every Sunday at half past two.

    Where the clocks go back, it is the earlier of the two; where they skip it, the next minute that there is.
    """
    zone = ZoneInfo(time_zone)
    while True:
        moment = local.replace(tzinfo=zone).astimezone(UTC)
        if moment.astimezone(zone).replace(tzinfo=None) == local:
            return moment
        local += timedelta(minutes=1)
