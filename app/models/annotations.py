"""What annotators say about comparisons: annotations with all their revisions, and skips."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, MappedAsDataclass, mapped_column, relationship

from app.models.base import Base, new_id, now
from app.models.comparisons import Comparison
from contract.vocabulary import Objective, SafetyBin, Strength


class SkipReason(StrEnum):
    """Why a comparison cannot be rated; a skip stands outside the choice and never enters training."""

    CANNOT_JUDGE = "cannot_judge"
    BOTH_BROKEN = "both_broken"
    PROMPT_MISTAKE = "prompt_mistake"
    UPSETTING = "upsetting"
    OTHER = "other"


class FlagKind(StrEnum):
    """What somebody should look at; a flag changes nothing about the annotation."""

    NAMES_ITS_MODEL = "names_its_model"
    """A response says which model it is from, so the comparison is not blind."""
    PERSONAL_DATA = "personal_data"
    GUIDELINE_UNCLEAR = "guideline_unclear"
    OTHER = "other"


class Judgement(MappedAsDataclass, kw_only=True):
    """The columns that an annotation and each of its revisions share."""

    strength: Mapped[Strength]
    chosen_safe: Mapped[bool | None] = mapped_column(default=None)
    rejected_safe: Mapped[bool | None] = mapped_column(default=None)
    rationale: Mapped[str] = mapped_column(Text, default="")
    chosen_quality: Mapped[int | None] = mapped_column(default=None)
    """From 1 to 7, where the batch asks for it."""
    rejected_quality: Mapped[int | None] = mapped_column(default=None)
    edited_text: Mapped[str | None] = mapped_column(Text, default=None)
    """The chosen response as the annotator improved it: edited > chosen > rejected."""

    @property
    def safety_bin(self) -> SafetyBin | None:
        """The safety label of the pair; ``None`` for helpfulness, where none is collected."""
        if self.chosen_safe is None or self.rejected_safe is None:
            return None
        return SafetyBin.of(chosen_safe=self.chosen_safe, rejected_safe=self.rejected_safe)


class Annotation(Judgement, Base):
    """One annotator's answer to one comparison, as it stands now."""

    __tablename__ = "annotations"
    __table_args__ = (
        UniqueConstraint("comparison_id", "annotator_id"),
        # The database itself says no to a choice of another comparison's response ...
        ForeignKeyConstraint(
            ["chosen_response_id", "comparison_id"],
            ["responses.id", "responses.comparison_id"],
            name="fk_annotations_chosen_response",
        ),
        # ... and to a safety label on a helpfulness comparison, or a safety comparison without one.
        ForeignKeyConstraint(
            ["comparison_id", "objective"],
            ["comparisons.id", "comparisons.objective"],
            name="fk_annotations_comparison",
        ),
        CheckConstraint(
            "(objective = 'safety') = (chosen_safe IS NOT NULL) "
            "AND (objective = 'safety') = (rejected_safe IS NOT NULL)",
            name="safety_has_labels",
        ),
        CheckConstraint(
            "chosen_quality BETWEEN 1 AND 7 AND rejected_quality BETWEEN 1 AND 7 "
            "OR chosen_quality IS NULL AND rejected_quality IS NULL",
            name="quality_is_from_1_to_7",
        ),
        CheckConstraint("seconds >= 0", name="seconds_are_not_negative"),
        CheckConstraint("revision > 0", name="revision_counts_from_one"),
        Index("ix_annotations_annotator_id_created_at", "annotator_id", "created_at"),
        # A comparison has one primary annotation: two would be two rows of a dataset, and a doubled history.
        Index(
            "uq_annotations_primary",
            "comparison_id",
            unique=True,
            sqlite_where=text("is_primary"),
            postgresql_where=text("is_primary"),
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default_factory=new_id)
    comparison_id: Mapped[UUID]
    objective: Mapped[Objective]
    annotator_id: Mapped[UUID] = mapped_column(ForeignKey("people.id"))
    chosen_response_id: Mapped[UUID]
    guideline_id: Mapped[UUID] = mapped_column(ForeignKey("guidelines.id"))
    seconds: Mapped[float]
    """From the moment both responses were shown to the submission."""
    is_primary: Mapped[bool] = mapped_column(default=True)
    """One annotation of a comparison is a dataset's row; others only count towards agreement."""
    revision: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime] = mapped_column(default_factory=now)
    updated_at: Mapped[datetime] = mapped_column(default_factory=now)

    comparison: Mapped[Comparison] = relationship(
        lazy="raise",
        init=False,
        repr=False,
        viewonly=True,
        primaryjoin="foreign(Annotation.comparison_id) == Comparison.id",
    )


class AnnotationRevision(Judgement, Base):
    """What an annotation said at one time; every change adds a row."""

    __tablename__ = "annotation_revisions"
    __table_args__ = (UniqueConstraint("annotation_id", "revision"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default_factory=new_id)
    annotation_id: Mapped[UUID] = mapped_column(ForeignKey("annotations.id"))
    revision: Mapped[int]
    chosen_response_id: Mapped[UUID] = mapped_column(ForeignKey("responses.id"))
    author_id: Mapped[UUID] = mapped_column(ForeignKey("people.id"))
    at: Mapped[datetime] = mapped_column(default_factory=now)

    # Says that the annotation's row is written first where both are new.
    annotation: Mapped[Annotation] = relationship(lazy="raise", init=False, repr=False)


class Skip(Base):
    """An annotator's refusal to rate a comparison, with the reason."""

    __tablename__ = "skips"
    __table_args__ = (UniqueConstraint("comparison_id", "annotator_id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default_factory=new_id)
    comparison_id: Mapped[UUID] = mapped_column(ForeignKey("comparisons.id"))
    annotator_id: Mapped[UUID] = mapped_column(ForeignKey("people.id"), index=True)
    reason: Mapped[SkipReason]
    note: Mapped[str] = mapped_column(Text, default="")
    at: Mapped[datetime] = mapped_column(default_factory=now)


class Flag(Base):
    """An annotator's remark on a comparison for reviewers and admins."""

    __tablename__ = "flags"
    __table_args__ = (UniqueConstraint("comparison_id", "annotator_id", "kind"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default_factory=new_id)
    comparison_id: Mapped[UUID] = mapped_column(ForeignKey("comparisons.id"))
    annotator_id: Mapped[UUID] = mapped_column(ForeignKey("people.id"), index=True)
    kind: Mapped[FlagKind]
    note: Mapped[str] = mapped_column(Text, default="")
    at: Mapped[datetime] = mapped_column(default_factory=now)
