"""The admins' plan for the weeks to come: when batches open, what they are like, and which weeks are skipped."""

from datetime import date, datetime, time
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, now


class Schedule(Base):
    """When batches open, week after week, and the settings that new ones take; there is at most one."""

    __tablename__ = "schedules"
    __table_args__ = (
        CheckConstraint("id = 1", name="there_is_one"),
        CheckConstraint("weekday >= 0 AND weekday <= 6", name="weekday_is_of_a_week"),
    )

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, default=1)
    weekday: Mapped[int]
    """Monday is 0."""
    opens_at: Mapped[time]
    """Local time in the schedule's zone."""
    time_zone: Mapped[str] = mapped_column(String(60))
    follows: Mapped[bool] = mapped_column(default=True)
    """Whether the next batch is scheduled by itself when one closes."""
    template: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    """The settings of a new batch but its dates, as a document: rows of the weeks that do not exist yet."""


class SkippedWeek(Base):
    """A week in which no batch opens."""

    __tablename__ = "skipped_weeks"
    __table_args__ = (CheckConstraint("closes_at > opens_at", name="closes_after_it_opens"),)

    starts_on: Mapped[date] = mapped_column(primary_key=True)
    """The local day on which the week would have begun."""
    opens_at: Mapped[datetime]
    closes_at: Mapped[datetime]
    time_zone: Mapped[str] = mapped_column(String(60))
    skipped_by: Mapped[UUID | None] = mapped_column(ForeignKey("people.id"), default=None)
    skipped_at: Mapped[datetime] = mapped_column(default_factory=now)
