"""Frozen preference datasets, and the prompts whose split is settled for ever."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, CheckConstraint, ForeignKey, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, new_id, now
from contract.vocabulary import Split


class PreferenceDataset(Base):
    """A frozen dataset: a folder that never changes, named by the digest of its manifest."""

    __tablename__ = "preference_datasets"
    __table_args__ = (
        UniqueConstraint("batch_id", "version"),
        CheckConstraint("version > 0", name="version_counts_from_one"),
        CheckConstraint("rows >= 0", name="rows_are_not_negative"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default_factory=new_id)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    """Also the name of the folder in the dataset store."""
    batch_id: Mapped[UUID] = mapped_column(ForeignKey("batches.id"))
    version: Mapped[int]
    manifest_sha256: Mapped[str] = mapped_column(String(64))
    manifest: Mapped[dict[str, Any]] = mapped_column(repr=False)
    rows: Mapped[int]
    frozen_at: Mapped[datetime]
    parent_id: Mapped[UUID | None] = mapped_column(ForeignKey("preference_datasets.id"), default=None)
    excluded_annotators: Mapped[list[str]] = mapped_column(JSON, default_factory=list, repr=False)
    """Whose work was excluded at the freeze: making the dataset again must not depend on later exclusions."""


class Freeze(Base):
    """A dataset that is to be written: what it is made of is settled, its files are not there yet.

    One process at a time writes, under a lease; the row goes when the dataset is there.
    """

    __tablename__ = "freezes"
    __table_args__ = (CheckConstraint("version > 0", name="version_counts_from_one"),)

    batch_id: Mapped[UUID] = mapped_column(ForeignKey("batches.id"), primary_key=True)
    version: Mapped[int]
    frozen_at: Mapped[datetime]
    excluded_annotators: Mapped[list[str]] = mapped_column(JSON, default_factory=list, repr=False)
    next_attempt_at: Mapped[datetime] = mapped_column(default_factory=now)
    """While nobody writes: when to try. While somebody does: until when that lease holds."""
    holder: Mapped[str | None] = mapped_column(String(32), default=None)
    """A random name of the process that writes; an older holder's commits are refused."""
    attempts: Mapped[int] = mapped_column(default=0)
    rows_written: Mapped[int] = mapped_column(default=0)
    rows_expected: Mapped[int] = mapped_column(default=0)
    error: Mapped[str | None] = mapped_column(Text, default=None)
    """Why the last attempt failed."""


class SplitPrompt(Base):
    """A prompt, by the hash of its normalised text, whose side was settled by an earlier freeze."""

    __tablename__ = "split_prompts"

    prompt_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    split: Mapped[Split]
    batch_id: Mapped[UUID] = mapped_column(ForeignKey("batches.id"))
