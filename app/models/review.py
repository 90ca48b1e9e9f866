"""Quality: content review of annotations, qualification of annotators, and gold comparisons."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, new_id, now
from contract.vocabulary import Objective, Strength


class Verdict(StrEnum):
    """What a reviewer decides about an annotation (Llama 2, appendix A.5.3)."""

    APPROVED = "approved"
    REJECTED = "rejected"


class QualificationTest(StrEnum):
    """The four tests that annotators pass before they work (Llama 2, appendix A.5.4)."""

    LANGUAGE = "language"
    SENSITIVE_TOPICS = "sensitive_topics"
    RANKING = "ranking"
    PROMPT_RESPONSE = "prompt_response"


class Review(Base):
    """One reviewer's verdict on one revision of an annotation; a rejection says what to improve."""

    __tablename__ = "reviews"
    __table_args__ = (
        UniqueConstraint("annotation_id", "revision"),
        CheckConstraint("verdict <> 'rejected' OR feedback <> ''", name="rejection_has_feedback"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default_factory=new_id)
    annotation_id: Mapped[UUID] = mapped_column(ForeignKey("annotations.id"))
    revision: Mapped[int]
    reviewer_id: Mapped[UUID] = mapped_column(ForeignKey("people.id"))
    verdict: Mapped[Verdict]
    feedback: Mapped[str] = mapped_column(Text, default="")
    at: Mapped[datetime] = mapped_column(default_factory=now)


class Qualification(Base):
    """An annotator's result in one qualification test."""

    __tablename__ = "qualifications"
    __table_args__ = (
        UniqueConstraint("annotator_id", "test", "objective"),
        CheckConstraint("score >= 0 AND score <= 1", name="score_is_a_share"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default_factory=new_id)
    annotator_id: Mapped[UUID] = mapped_column(ForeignKey("people.id"))
    test: Mapped[QualificationTest]
    objective: Mapped[Objective]
    score: Mapped[float]
    has_passed: Mapped[bool]
    at: Mapped[datetime] = mapped_column(default_factory=now)


class GoldComparison(Base):
    """A comparison whose right answer is agreed, used to check annotators."""

    __tablename__ = "gold_comparisons"
    __table_args__ = (
        ForeignKeyConstraint(
            ["chosen_response_id", "comparison_id"],
            ["responses.id", "responses.comparison_id"],
            name="fk_gold_comparisons_chosen_response",
        ),
    )

    comparison_id: Mapped[UUID] = mapped_column(ForeignKey("comparisons.id"), primary_key=True)
    chosen_response_id: Mapped[UUID]
    weakest_strength: Mapped[Strength]
    """The choice must be right; a weaker strength than this one is accepted too."""
    adjudicator_id: Mapped[UUID] = mapped_column(ForeignKey("people.id"))
    at: Mapped[datetime] = mapped_column(default_factory=now)
