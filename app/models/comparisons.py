"""Conversations, their comparisons, and the two responses of each comparison."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.models.base import Base, new_id, now
from app.models.checkpoints import Checkpoint
from app.models.work import Leased, lease_check
from contract.vocabulary import AttackVector, FinishReason, Generation, Objective, RiskCategory, Side, Split


class ConversationState(StrEnum):
    """Whether a conversation can go on."""

    ACTIVE = "active"
    FINISHED = "finished"


class PromptSource(StrEnum):
    """Where a conversation's first prompt came from."""

    WRITTEN = "written"
    POOL = "pool"


class ComparisonState(StrEnum):
    """Where a comparison stands."""

    SAMPLING = "sampling"
    READY = "ready"
    ANNOTATED = "annotated"
    SKIPPED = "skipped"
    FAILED = "failed"
    EQUAL_RESPONSES = "equal_responses"
    """Both variants said the same, again and again: there is nothing to compare."""
    ABANDONED = "abandoned"
    """Its batch closed before anybody judged it."""


class Conversation(Base):
    """An ordered exchange between an annotator and the model; each assistant turn is one comparison."""

    __tablename__ = "conversations"
    __table_args__ = (
        UniqueConstraint("id", "batch_id", "objective"),
        Index("ix_conversations_annotator_id_state", "annotator_id", "state"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default_factory=new_id)
    batch_id: Mapped[UUID] = mapped_column(ForeignKey("batches.id"), index=True)
    objective: Mapped[Objective]
    annotator_id: Mapped[UUID | None] = mapped_column(ForeignKey("people.id"))
    """Who writes the prompts; empty where they come from the pool."""
    pool_prompt_id: Mapped[UUID | None] = mapped_column(ForeignKey("pool_prompts.id"), default=None)
    source: Mapped[PromptSource] = mapped_column(default=PromptSource.WRITTEN)
    state: Mapped[ConversationState] = mapped_column(default=ConversationState.ACTIVE)
    split: Mapped[Split | None] = mapped_column(default=None)
    """Drawn once when the batch freezes, then permanent."""
    created_at: Mapped[datetime] = mapped_column(default_factory=now)
    finished_at: Mapped[datetime | None] = mapped_column(default=None)

    comparisons: Mapped[list["Comparison"]] = relationship(
        lazy="raise", order_by="Comparison.turn", back_populates="conversation", init=False, repr=False
    )


class Comparison(Base):
    """One prompt with two responses, offered for judgement."""

    __tablename__ = "comparisons"
    __table_args__ = (
        UniqueConstraint("conversation_id", "turn"),
        # Batch and objective stand here too, so that counting a batch needs no join; the key keeps them true.
        ForeignKeyConstraint(
            ["conversation_id", "batch_id", "objective"],
            ["conversations.id", "conversations.batch_id", "conversations.objective"],
            name="fk_comparisons_conversation",
        ),
        UniqueConstraint("id", "objective"),
        # Covers the counting of a batch's progress, which every page of the workspace does.
        Index("ix_comparisons_batch_id_state_objective", "batch_id", "state", "objective"),
        # The comparisons that can be handed out: few at any time, however many there are in all.
        Index(
            "ix_comparisons_open_places",
            "batch_id",
            "id",
            sqlite_where=text("open_places > 0"),
            postgresql_where=text("open_places > 0"),
        ),
        CheckConstraint("turn > 0", name="turn_counts_from_one"),
        # However many processes hand out at once, the database itself says no beyond the overlap.
        CheckConstraint("open_places >= 0 AND open_places <= annotations_wanted", name="open_places_are_wanted"),
        CheckConstraint(
            "objective = 'safety' OR risk_category IS NULL AND attack_vector IS NULL", name="only_safety_has_risks"
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default_factory=new_id)
    conversation_id: Mapped[UUID]
    batch_id: Mapped[UUID] = mapped_column(ForeignKey("batches.id"))
    objective: Mapped[Objective]
    turn: Mapped[int]
    prompt: Mapped[str] = mapped_column(Text)
    """What the user says in this turn; the context before it is the earlier turns with their chosen responses."""
    risk_category: Mapped[RiskCategory | None] = mapped_column(default=None)
    """Of a safety prompt; no prompt of another objective has one."""
    attack_vector: Mapped[AttackVector | None] = mapped_column(default=None)
    state: Mapped[ComparisonState] = mapped_column(default=ComparisonState.SAMPLING)
    annotations_wanted: Mapped[int] = mapped_column(default=1)
    """How many annotators are to judge it; the first one's annotation is primary."""
    open_places: Mapped[int] = mapped_column(default=0)
    """How many of those are neither done nor held by an annotator."""
    created_at: Mapped[datetime] = mapped_column(default_factory=now)
    ready_at: Mapped[datetime | None] = mapped_column(default=None)
    """When both responses were there."""

    conversation: Mapped[Conversation] = relationship(
        lazy="raise",
        back_populates="comparisons",
        init=False,
        repr=False,
        foreign_keys="Comparison.conversation_id",
        primaryjoin="Comparison.conversation_id == Conversation.id",
    )
    responses: Mapped[list["Response"]] = relationship(
        lazy="raise", order_by="Response.side", back_populates="comparison", init=False, repr=False
    )

    def response(self, side: Side) -> "Response":
        """The response that is shown on a side; the responses must be loaded."""
        return next(response for response in self.responses if response.side is side)


class Response(Base):
    """A model's text for a prompt, with everything that made it; its text is empty until it is finished."""

    __tablename__ = "responses"
    __table_args__ = (
        UniqueConstraint("comparison_id", "side"),
        UniqueConstraint("id", "comparison_id"),
        CheckConstraint("temperature >= 0", name="temperature_is_not_negative"),
        CheckConstraint("top_p > 0 AND top_p <= 1", name="top_p_is_in_range"),
        CheckConstraint("(finish_reason IS NULL) = (token_ids IS NULL)", name="finished_responses_have_tokens"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default_factory=new_id)
    comparison_id: Mapped[UUID] = mapped_column(ForeignKey("comparisons.id"))
    side: Mapped[Side]
    """Where it stands on the screen: drawn at random by the server, never from which variant made it."""
    checkpoint_id: Mapped[UUID] = mapped_column(ForeignKey("checkpoints.id"))
    generation: Mapped[Generation] = mapped_column(default=Generation.NEWEST)
    """Of the variant that it was drawn from: which checkpoint to take after a promotion, if it still waits."""
    temperature: Mapped[float]
    top_p: Mapped[float]
    top_k: Mapped[int]
    seed: Mapped[int] = mapped_column(BigInteger)
    max_new_tokens: Mapped[int]
    text: Mapped[str] = mapped_column(Text, default="")
    token_ids: Mapped[list[int] | None] = mapped_column(default=None, repr=False)
    prompt_digest: Mapped[str | None] = mapped_column(String(64), default=None)
    """sha256 over the prompt's token ids as the model read them."""
    stop_token_ids: Mapped[list[int] | None] = mapped_column(default=None, repr=False)
    """Every id that would have ended it."""
    prompt_tokens: Mapped[int | None] = mapped_column(default=None)
    completion_tokens: Mapped[int | None] = mapped_column(default=None)
    finish_reason: Mapped[FinishReason | None] = mapped_column(default=None)
    sum_logprob: Mapped[float | None] = mapped_column(default=None)
    """Before temperature and top_p, so that it compares across temperatures."""
    first_token_s: Mapped[float | None] = mapped_column(default=None)
    total_s: Mapped[float | None] = mapped_column(default=None)
    engine: Mapped[str | None] = mapped_column(String(200), default=None)
    dtype: Mapped[str | None] = mapped_column(String(40), default=None)
    device: Mapped[str | None] = mapped_column(String(100), default=None)
    worker_id: Mapped[UUID | None] = mapped_column(ForeignKey("workers.id"), default=None)
    attempt: Mapped[int | None] = mapped_column(default=None)

    comparison: Mapped[Comparison] = relationship(lazy="raise", back_populates="responses", init=False, repr=False)
    checkpoint: Mapped[Checkpoint] = relationship(lazy="raise", init=False, repr=False)


class SamplingJob(Leased, Base):
    """The work of drawing both responses of one comparison."""

    __tablename__ = "sampling_jobs"
    __table_args__ = (lease_check(), Index("ix_sampling_jobs_state_queued_at", "state", "queued_at"))

    id: Mapped[UUID] = mapped_column(primary_key=True, default_factory=new_id)
    comparison_id: Mapped[UUID] = mapped_column(ForeignKey("comparisons.id"), unique=True)

    comparison: Mapped[Comparison] = relationship(lazy="raise", init=False, repr=False)
