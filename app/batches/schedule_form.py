"""The form of the schedule: when weeks begin, and the settings of a batch without its dates."""

from datetime import time
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, Field

from app.batches import service
from app.batches.forms import TICKED, BatchForm, Box, TimeZone
from app.batches.schedule import Plan
from app.batches.weeks import Rhythm
from app.models import now
from app.web.fields import read_fields

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


class ScheduleForm(BatchForm):
    """The schedule, as typed."""

    weekday: str = ""
    starts_at: str = ""
    follows: str = ""
    to_scheduled: str = ""

    @classmethod
    def of_plan(cls, plan: Plan) -> Self:
        """The form that shows a schedule."""
        shown = cls.of(plan.template)
        return shown.model_copy(
            update={
                "weekday": str(plan.rhythm.weekday),
                "starts_at": plan.rhythm.opens_at.strftime("%H:%M"),
                "time_zone": plan.rhythm.time_zone,
                "follows": TICKED if plan.follows else "",
            }
        )

    def read_plan(self) -> tuple[Plan | None, dict[str, str]]:
        """The schedule, or a message for each field that makes no sense."""
        when, problems = read_fields(_WhenFields, self.model_dump())
        read, more = self.read_settings()
        problems |= more
        if when is None or read is None:
            return None, problems
        rhythm = Rhythm(when.weekday, when.starts_at, when.time_zone)
        week = next(rhythm.weeks(now()))
        template = read.settings(week.opens_at, week.closes_at)
        problems = service.problems(template)
        return (None, problems) if problems else (Plan(rhythm, when.follows, template), {})


def _time(typed: Any) -> Any:
    """A time of day as browsers send it: some leave the seconds out, some do not."""
    try:
        return time.fromisoformat(typed).replace(second=0, microsecond=0, tzinfo=None)
    except ValueError:
        if not typed:
            return typed
        msg = "must be a time of day, such as 09:00"
        raise ValueError(msg) from None


class _WhenFields(BaseModel):
    """What the fields must say."""

    weekday: int = Field(ge=0, le=6)
    starts_at: Annotated[time, BeforeValidator(_time)]
    time_zone: TimeZone
    follows: Box
