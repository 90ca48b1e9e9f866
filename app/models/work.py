"""Leased work: what sampling jobs and training runs have in common, and the workers that do them."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, String, Text
from sqlalchemy.orm import Mapped, MappedAsDataclass, mapped_column

from app.models.base import Base, new_id, now


class WorkState(StrEnum):
    """Where a piece of work stands."""

    QUEUED = "queued"
    LEASED = "leased"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


def lease_check() -> CheckConstraint:
    """A constraint: leased work says until when and by whom, and no other work is leased."""
    return CheckConstraint(
        "(state = 'leased') = (lease_until IS NOT NULL) AND (state <> 'leased' OR worker_id IS NOT NULL)",
        name="lease_belongs_to_leased_work",
    )


class Leased(MappedAsDataclass, kw_only=True):
    """Columns of work that is handed out for a limited time, with the attempt number as fencing."""

    state: Mapped[WorkState] = mapped_column(default=WorkState.QUEUED, index=True)
    attempt: Mapped[int] = mapped_column(default=0)
    """Counts the hand-outs; an answer that names an older one is refused."""
    failures: Mapped[int] = mapped_column(default=0)
    """Hand-outs that came to nothing: the worker was lost, or gave up."""
    worker_id: Mapped[UUID | None] = mapped_column(ForeignKey("workers.id"), default=None)
    """Who holds the work, or held it last."""
    lease_until: Mapped[datetime | None] = mapped_column(default=None)
    queued_at: Mapped[datetime] = mapped_column(default_factory=now)
    started_at: Mapped[datetime | None] = mapped_column(default=None)
    """When the work was first handed out."""
    finished_at: Mapped[datetime | None] = mapped_column(default=None)
    error: Mapped[str | None] = mapped_column(Text, default=None)


class Worker(Base):
    """A model worker process that has introduced itself."""

    __tablename__ = "workers"

    id: Mapped[UUID] = mapped_column(primary_key=True, default_factory=new_id)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    hostname: Mapped[str] = mapped_column(String(200))
    engine: Mapped[str] = mapped_column(String(200))
    device: Mapped[str] = mapped_column(String(100))
    dtype: Mapped[str] = mapped_column(String(40))
    can_sample: Mapped[bool]
    can_train: Mapped[bool]
    versions: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    checkpoints: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    """The chat checkpoints that it samples from: their names in the registry by digest."""
    available: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    """Those that it could sample from: names by digest."""
    refused: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    """Those that it cannot: reasons by digest, or by folder name where the digest is not known."""
    staging: Mapped[str | None] = mapped_column(String(64), default=None)
    """Digest of the checkpoint that it is about to serve."""
    max_pairs: Mapped[int] = mapped_column(default=0)
    free_pairs: Mapped[int] = mapped_column(default=0)
    tokens_per_s: Mapped[float] = mapped_column(default=0.0)
    last_error: Mapped[str | None] = mapped_column(Text, default=None)
    last_error_at: Mapped[datetime | None] = mapped_column(default=None)
    registered_at: Mapped[datetime] = mapped_column(default_factory=now)
    last_seen_at: Mapped[datetime] = mapped_column(default_factory=now)
    stopped_at: Mapped[datetime | None] = mapped_column(default=None)
    """When it said that it stops; empty while it runs, and where it was lost."""
