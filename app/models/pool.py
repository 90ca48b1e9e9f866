"""The prompt pool: prompts that nobody has to write, sampled ahead of the annotators who will judge them."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, new_id, now
from contract.vocabulary import AttackVector, Objective, RiskCategory


class PoolPromptState(StrEnum):
    """Whether a prompt of the pool can still be used."""

    WAITING = "waiting"
    USED = "used"
    RETIRED = "retired"


class PoolPrompt(Base):
    """A prompt of the pool: one or more turns, of which each later one follows a chosen response."""

    __tablename__ = "pool_prompts"
    __table_args__ = (
        UniqueConstraint("objective", "digest"),
        Index("ix_pool_prompts_objective_state", "objective", "state", "id"),
        CheckConstraint(
            "objective = 'safety' OR risk_category IS NULL AND attack_vector IS NULL", name="only_safety_has_risks"
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default_factory=new_id)
    objective: Mapped[Objective]
    turns: Mapped[list[str]]
    """What the user says, turn after turn."""
    digest: Mapped[str] = mapped_column(String(64))
    """The sha256 of the normalised turns: the same prompt is not taken twice."""
    source: Mapped[str] = mapped_column(String(200), default="")
    """Where it came from, such as the name of the file."""
    risk_category: Mapped[RiskCategory | None] = mapped_column(default=None)
    attack_vector: Mapped[AttackVector | None] = mapped_column(default=None)
    tags: Mapped[list[str]] = mapped_column(default_factory=list, server_default="[]")
    """Words of the admin's own, such as a topic or a language, by which prompts are found again."""
    state: Mapped[PoolPromptState] = mapped_column(default=PoolPromptState.WAITING)
    added_by: Mapped[UUID | None] = mapped_column(ForeignKey("people.id"), default=None)
    added_at: Mapped[datetime] = mapped_column(default_factory=now)
    used_at: Mapped[datetime | None] = mapped_column(default=None)
