"""Preference data from elsewhere, and the training sets that unite it with our own."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, new_id, now
from contract.external import FileFormat
from contract.vocabulary import Objective


class ExternalDataset(Base):
    """Preference data that was collected elsewhere: a folder of its own, apart from the frozen datasets."""

    __tablename__ = "external_datasets"
    __table_args__ = (CheckConstraint("rows > 0", name="there_are_rows"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default_factory=new_id)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    """Also the name of its folder among the external ones."""
    source_format: Mapped[FileFormat]
    source_sha256: Mapped[str] = mapped_column(String(64))
    """Of the imported file, byte for byte."""
    manifest_sha256: Mapped[str] = mapped_column(String(64))
    manifest: Mapped[dict[str, Any]] = mapped_column(repr=False)
    rows: Mapped[int]
    objective: Mapped[Objective | None] = mapped_column(default=None)
    licence: Mapped[str] = mapped_column(String(200), default="")
    source: Mapped[str] = mapped_column(Text, default="")
    created_by: Mapped[UUID | None] = mapped_column(ForeignKey("people.id"), default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=now)


class TrainingSet(Base):
    """A named union of datasets with a margin scheme and a filter; it never changes."""

    __tablename__ = "training_sets"

    id: Mapped[UUID] = mapped_column(primary_key=True, default_factory=new_id)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    digest: Mapped[str] = mapped_column(String(64))
    """Of the definition."""
    definition: Mapped[dict[str, Any]] = mapped_column(repr=False)
    counts: Mapped[list[dict[str, Any]]] = mapped_column(repr=False)
    created_by: Mapped[UUID | None] = mapped_column(ForeignKey("people.id"), default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=now)
