"""What the annotations of a settled batch say, counted once: a week of 250,000 takes seconds to count."""

from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base


class KeptInsights(Base):
    """The statistics of a batch in which nothing changes any more."""

    __tablename__ = "kept_insights"

    batch_id: Mapped[UUID] = mapped_column(ForeignKey("batches.id"), primary_key=True)
    statistics: Mapped[dict[str, Any]] = mapped_column(repr=False)
    work: Mapped[dict[str, Any]] = mapped_column(repr=False)
