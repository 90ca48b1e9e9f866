"""What the annotations of a batch say, counted beforehand: a week of 250,000 takes seconds to count."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base


class KeptInsights(Base):
    """The statistics of a batch in which nothing changes any more, or of a large one as it was a while ago."""

    __tablename__ = "kept_insights"

    batch_id: Mapped[UUID] = mapped_column(ForeignKey("batches.id"), primary_key=True)
    counted_at: Mapped[datetime]
    took_s: Mapped[float]
    statistics: Mapped[dict[str, Any]] = mapped_column(repr=False)
    work: Mapped[dict[str, Any]] = mapped_column(repr=False)
