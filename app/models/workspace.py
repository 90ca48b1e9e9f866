"""What the workspace keeps for annotators between two screens: drafts, and which guidelines they have read."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, now


class DraftKind(StrEnum):
    """Which form a draft belongs to."""

    FIRST_PROMPT = "first_prompt"
    NEXT_PROMPT = "next_prompt"
    JUDGEMENT = "judgement"


class Draft(Base):
    """What an annotator has typed and pressed in a form but not sent."""

    __tablename__ = "drafts"

    annotator_id: Mapped[UUID] = mapped_column(ForeignKey("people.id"), primary_key=True)
    form_id: Mapped[UUID] = mapped_column(primary_key=True)
    """The comparison that is judged, or the comparison that a prompt will become."""
    kind: Mapped[DraftKind]
    fields: Mapped[dict[str, Any]]
    """The form's fields by name."""
    updated_at: Mapped[datetime] = mapped_column(default_factory=now)


class GuidelineRead(Base):
    """An annotator has read a version of a guideline: it is folded from then on."""

    __tablename__ = "guideline_reads"

    annotator_id: Mapped[UUID] = mapped_column(ForeignKey("people.id"), primary_key=True)
    guideline_id: Mapped[UUID] = mapped_column(ForeignKey("guidelines.id"), primary_key=True)
    at: Mapped[datetime] = mapped_column(default_factory=now)
