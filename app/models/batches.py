"""The weekly batch: its life cycle, its targets, the variants that responses are drawn from, and guidelines."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, new_id, now
from contract.vocabulary import Generation, MarginScheme, Objective


class BatchState(StrEnum):
    """The life of a batch, in order."""

    SCHEDULED = "scheduled"
    OPEN = "open"
    CLOSING = "closing"
    """No new prompts; comparisons that are running finish within the grace time."""
    IN_REVIEW = "in_review"
    FROZEN = "frozen"


class ResponseDisplay(StrEnum):
    """When annotators see the responses that are being sampled."""

    TOGETHER = "together"
    """Both at once, when both are complete."""
    AS_MADE = "as_made"
    """While they grow, both by the same amount, so that neither's speed shows."""


class SkipPolicy(StrEnum):
    """What happens to a comparison that an annotator skips."""

    RETIRE = "retire"
    HAND_ON = "hand_on"
    """Somebody else gets it, unless the reason is a fault of the comparison itself."""


class RationaleMode(StrEnum):
    """Whether annotators give a reason for their choice."""

    OFF = "off"
    OPTIONAL = "optional"
    REQUIRED = "required"


class Batch(Base):
    """A week's set of comparisons (Llama 2, section 3.2.1: "collected in batches on a weekly basis")."""

    __tablename__ = "batches"
    __table_args__ = (
        CheckConstraint("closes_at > opens_at", name="closes_after_it_opens"),
        CheckConstraint("number > 0", name="number_is_positive"),
        CheckConstraint("turns_per_conversation > 0", name="turns_are_positive"),
        CheckConstraint("multi_turn_share >= 0 AND multi_turn_share <= 1", name="multi_turn_share_is_a_share"),
        CheckConstraint("max_new_tokens > 0", name="max_new_tokens_is_positive"),
        CheckConstraint("review_share >= 0 AND review_share <= 1", name="review_share_is_a_share"),
        CheckConstraint("held_out_share >= 0 AND held_out_share <= 1", name="held_out_share_is_a_share"),
        CheckConstraint("held_out_max >= 0", name="held_out_max_is_not_negative"),
        CheckConstraint("grace_minutes >= 0", name="grace_is_not_negative"),
        CheckConstraint("pool_share >= 0 AND pool_share <= 1", name="pool_share_is_a_share"),
        CheckConstraint("overlap_share >= 0 AND overlap_share <= 1", name="overlap_share_is_a_share"),
        CheckConstraint("overlap_annotations >= 2", name="overlap_is_of_two_or_more"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default_factory=new_id)
    number: Mapped[int] = mapped_column(unique=True)
    opens_at: Mapped[datetime]
    closes_at: Mapped[datetime]
    time_zone: Mapped[str] = mapped_column(String(60), default="UTC")
    """The zone that the dates were set in and are shown in."""
    state: Mapped[BatchState] = mapped_column(default=BatchState.SCHEDULED, index=True)
    grace_minutes: Mapped[int] = mapped_column(default=10)
    turns_per_conversation: Mapped[int] = mapped_column(default=6)
    """The most turns that a conversation may have."""
    multi_turn_share: Mapped[float] = mapped_column(default=1.0)
    """The share of conversations that may have more than one turn, drawn by conversation."""
    max_new_tokens: Mapped[int] = mapped_column(default=256)
    system_prompt: Mapped[str] = mapped_column(Text, default="")
    curriculum: Mapped[str] = mapped_column(Text, default="")
    """What kind of prompts this week (Llama 2, appendix A.3.2: a curriculum annotation strategy)."""
    margin_scheme: Mapped[MarginScheme] = mapped_column(default=MarginScheme.SMALL)
    review_share: Mapped[float] = mapped_column(default=0.0)
    """The share of annotations that a reviewer must approve before the batch freezes."""
    pool_share: Mapped[float] = mapped_column(default=0.0)
    """The share of conversations that begin with a prompt from the pool; annotators write the others."""
    overlap_share: Mapped[float] = mapped_column(default=0.0)
    """The share of comparisons that several annotators judge, to measure their agreement (LLAMA2.md, C15)."""
    overlap_annotations: Mapped[int] = mapped_column(default=3)
    """How many annotators judge such a comparison (the paper's human evaluation used three)."""
    skip_policy: Mapped[SkipPolicy] = mapped_column(default=SkipPolicy.RETIRE)
    response_display: Mapped[ResponseDisplay] = mapped_column(default=ResponseDisplay.TOGETHER)
    rationale_mode: Mapped[RationaleMode] = mapped_column(default=RationaleMode.OPTIONAL)
    asks_edit: Mapped[bool] = mapped_column(default=False)
    """Whether annotators may improve the chosen response (edited > chosen > rejected, as in Llama 3)."""
    asks_quality: Mapped[bool] = mapped_column(default=False)
    """Whether each response gets a quality score from 1 to 7 (the scale of Llama 2's appendix A.3.6)."""
    held_out_share: Mapped[float] = mapped_column(default=0.1)
    held_out_max: Mapped[int] = mapped_column(default=1000)
    """Llama 2 holds out 1,000 comparisons of each batch (section 3.2.2)."""
    opened_at: Mapped[datetime | None] = mapped_column(default=None)
    closing_at: Mapped[datetime | None] = mapped_column(default=None)
    closed_at: Mapped[datetime | None] = mapped_column(default=None)
    frozen_at: Mapped[datetime | None] = mapped_column(default=None)
    """When its content was settled for ever; it is in review until its dataset is written, then frozen."""


class BatchTarget(Base):
    """How many comparisons of an objective a batch wants."""

    __tablename__ = "batch_targets"
    __table_args__ = (CheckConstraint("target >= 0", name="target_is_not_negative"),)

    batch_id: Mapped[UUID] = mapped_column(ForeignKey("batches.id"), primary_key=True)
    objective: Mapped[Objective] = mapped_column(primary_key=True)
    target: Mapped[int]


class BatchVariant(Base):
    """One model variant of a batch. A pair is drawn from two different ones (Llama 2, section 3.2.1)."""

    __tablename__ = "batch_variants"
    __table_args__ = (
        UniqueConstraint("batch_id", "position"),
        CheckConstraint("temperature >= 0 AND temperature <= 10", name="temperature_is_in_range"),
        CheckConstraint("top_p > 0 AND top_p <= 1", name="top_p_is_in_range"),
        CheckConstraint("top_k >= 0", name="top_k_is_not_negative"),
        CheckConstraint("weight > 0", name="weight_is_positive"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default_factory=new_id)
    batch_id: Mapped[UUID] = mapped_column(ForeignKey("batches.id"))
    position: Mapped[int]
    temperature: Mapped[float]
    top_p: Mapped[float]
    top_k: Mapped[int] = mapped_column(default=0)
    checkpoint_id: Mapped[UUID | None] = mapped_column(ForeignKey("checkpoints.id"), default=None)
    """Empty until the batch opens: it then takes the promoted checkpoint of its generation."""
    weight: Mapped[float] = mapped_column(default=1.0)
    generation: Mapped[Generation] = mapped_column(default=Generation.NEWEST)


class Guideline(Base):
    """One version of the text that annotators follow for an objective; versions are added, never edited."""

    __tablename__ = "guidelines"
    __table_args__ = (UniqueConstraint("objective", "version"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default_factory=new_id)
    objective: Mapped[Objective]
    version: Mapped[int]
    text: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(default_factory=now)
