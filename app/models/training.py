"""Training runs, the reward models they make, and how well those do."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.models.base import Base, new_id, now
from app.models.checkpoints import Checkpoint
from app.models.datasets import PreferenceDataset
from app.models.work import Leased, lease_check
from contract.vocabulary import Objective, Split


class TrainingRun(Leased, Base):
    """A request to train one reward model on some frozen datasets."""

    __tablename__ = "training_runs"
    __table_args__ = (lease_check(),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default_factory=new_id)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    """The name of the reward model to be made."""
    objective: Mapped[Objective]
    checkpoint_id: Mapped[UUID] = mapped_column(ForeignKey("checkpoints.id"))
    recipe: Mapped[dict[str, Any]]
    created_by: Mapped[UUID | None] = mapped_column(ForeignKey("people.id"), default=None)
    log: Mapped[str] = mapped_column(Text, default="", repr=False)

    checkpoint: Mapped[Checkpoint] = relationship(lazy="raise", init=False, repr=False)
    datasets: Mapped[list[PreferenceDataset]] = relationship(
        lazy="raise",
        secondary="training_run_datasets",
        order_by="PreferenceDataset.name",
        repr=False,
        default_factory=list,
    )


class TrainingRunDataset(Base):
    """Which datasets a run trains on."""

    __tablename__ = "training_run_datasets"

    run_id: Mapped[UUID] = mapped_column(ForeignKey("training_runs.id"), primary_key=True)
    dataset_id: Mapped[UUID] = mapped_column(ForeignKey("preference_datasets.id"), primary_key=True)


class TrainingPoint(Base):
    """One optimiser step's figures, reported while a run goes on."""

    __tablename__ = "training_points"

    run_id: Mapped[UUID] = mapped_column(ForeignKey("training_runs.id"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    total_steps: Mapped[int]
    loss: Mapped[float]
    accuracy: Mapped[float]
    reward_gap: Mapped[float]
    learning_rate: Mapped[float]
    pairs: Mapped[int]
    elapsed_s: Mapped[float]


class RewardModel(Base):
    """A trained reward model in Hugging Face format, where its worker saved it."""

    __tablename__ = "reward_models"

    id: Mapped[UUID] = mapped_column(primary_key=True, default_factory=new_id)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    run_id: Mapped[UUID] = mapped_column(ForeignKey("training_runs.id"), unique=True)
    objective: Mapped[Objective]
    path: Mapped[str] = mapped_column(Text)
    digest: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(default_factory=now)


class Evaluation(Base):
    """A reward model's report on one split of one dataset."""

    __tablename__ = "evaluations"
    __table_args__ = (
        UniqueConstraint("reward_model_id", "dataset_name", "split", "kind"),
        CheckConstraint("kind IN ('before_training', 'after_training', 'held_out')", name="kind_is_known"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default_factory=new_id)
    reward_model_id: Mapped[UUID] = mapped_column(ForeignKey("reward_models.id"))
    dataset_name: Mapped[str] = mapped_column(String(200))
    split: Mapped[Split]
    kind: Mapped[str] = mapped_column(String(40))
    report: Mapped[dict[str, Any]] = mapped_column(repr=False)
    created_at: Mapped[datetime] = mapped_column(default_factory=now)
