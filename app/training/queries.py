"""The SQL of training runs and reward models."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session, defer, joinedload, selectinload

from app.models import (
    Checkpoint,
    Evaluation,
    PreferenceDataset,
    RewardModel,
    TrainingPoint,
    TrainingRun,
    TrainingRunDataset,
    Worker,
    WorkState,
)
from app.sampling.leases import due


@dataclass(frozen=True)
class CurvePoint:
    """Figures of some neighbouring steps, averaged."""

    step: float
    loss: float
    accuracy: float


def next_due(session: Session, digests: Sequence[str], *, at: datetime) -> TrainingRun | None:
    """The oldest run that may be handed out and starts from one of the given checkpoints, locked."""
    return session.scalars(
        due(TrainingRun, at)
        .join(Checkpoint, Checkpoint.id == TrainingRun.checkpoint_id)
        .where(Checkpoint.digest.in_(digests))
        .options(joinedload(TrainingRun.checkpoint, innerjoin=True), selectinload(TrainingRun.datasets))
        .limit(1)
    ).first()


def leased_to(session: Session, worker_id: UUID) -> list[TrainingRun]:
    """The runs that a worker holds, locked."""
    return list(
        session.scalars(
            select(TrainingRun)
            .where(TrainingRun.worker_id == worker_id, TrainingRun.state == WorkState.LEASED)
            .with_for_update()
        )
    )


def locked(session: Session, run_id: UUID) -> TrainingRun | None:
    """A run, locked."""
    return session.scalars(select(TrainingRun).where(TrainingRun.id == run_id).with_for_update()).one_or_none()


def runs(session: Session) -> list[TrainingRun]:
    """Every run, the newest first."""
    return list(
        session.scalars(
            select(TrainingRun)
            .order_by(TrainingRun.queued_at.desc())
            # Logs are long, and a list shows none.
            .options(defer(TrainingRun.log, raiseload=True))
        )
    )


def run_by_name(session: Session, name: str) -> TrainingRun | None:
    """A run with its datasets and checkpoint."""
    return session.scalars(
        select(TrainingRun)
        .where(TrainingRun.name == name)
        .options(joinedload(TrainingRun.checkpoint, innerjoin=True), selectinload(TrainingRun.datasets))
    ).one_or_none()


def run_names(session: Session) -> set[str]:
    """The names that are taken."""
    return set(session.scalars(select(TrainingRun.name)))


def known_steps(session: Session, run: TrainingRun, steps: Iterable[int]) -> set[int]:
    """Which of some steps of the run's present attempt are stored already."""
    return set(
        session.scalars(
            select(TrainingPoint.step).where(
                TrainingPoint.run_id == run.id, TrainingPoint.attempt == run.attempt, TrainingPoint.step.in_(steps)
            )
        )
    )


def latest_point(session: Session, run: TrainingRun) -> TrainingPoint | None:
    """The furthest step of the run's present attempt."""
    return session.scalars(
        select(TrainingPoint)
        .where(TrainingPoint.run_id == run.id, TrainingPoint.attempt == run.attempt)
        .order_by(TrainingPoint.step.desc())
        .limit(1)
    ).one_or_none()


def progress(session: Session) -> dict[UUID, tuple[int, int]]:
    """The furthest step of each run's present attempt, and how many there are to be."""
    rows = session.execute(
        select(TrainingPoint.run_id, func.max(TrainingPoint.step), func.max(TrainingPoint.total_steps))
        .join(TrainingRun, (TrainingRun.id == TrainingPoint.run_id) & (TrainingRun.attempt == TrainingPoint.attempt))
        .group_by(TrainingPoint.run_id)
    )
    return {run_id: (step, total) for run_id, step, total in rows}


def curve(session: Session, run: TrainingRun, *, stride: int) -> list[CurvePoint]:
    """The figures of the run's present attempt, every ``stride`` steps averaged into one point."""
    group = (TrainingPoint.step - 1) // stride
    rows = session.execute(
        select(func.avg(TrainingPoint.step), func.avg(TrainingPoint.loss), func.avg(TrainingPoint.accuracy))
        .where(TrainingPoint.run_id == run.id, TrainingPoint.attempt == run.attempt)
        .group_by(group)
        .order_by(group)
    )
    return [CurvePoint(step=float(step), loss=loss, accuracy=accuracy) for step, loss, accuracy in rows]


def datasets(session: Session) -> list[PreferenceDataset]:
    """Every frozen dataset, the newest first."""
    return list(session.scalars(select(PreferenceDataset).order_by(PreferenceDataset.frozen_at.desc())))


def datasets_by_id(session: Session, dataset_ids: Iterable[UUID]) -> list[PreferenceDataset]:
    """Some datasets, by name."""
    return list(
        session.scalars(
            select(PreferenceDataset).where(PreferenceDataset.id.in_(dataset_ids)).order_by(PreferenceDataset.name)
        )
    )


def reward_models(session: Session) -> list[RewardModel]:
    """Every reward model, the newest first."""
    return list(session.scalars(select(RewardModel).order_by(RewardModel.created_at.desc())))


def reward_model_by_name(session: Session, name: str) -> RewardModel | None:
    """The reward model of this name."""
    return session.scalars(select(RewardModel).where(RewardModel.name == name)).one_or_none()


def newest_reward_model_before(session: Session, run: TrainingRun, dataset: PreferenceDataset) -> RewardModel | None:
    """The newest reward model of a run's objective that was not trained on any version of a dataset."""
    of_batch = select(PreferenceDataset.id).where(PreferenceDataset.batch_id == dataset.batch_id)
    has_seen_it = exists().where(
        TrainingRunDataset.run_id == RewardModel.run_id, TrainingRunDataset.dataset_id.in_(of_batch)
    )
    return session.scalars(
        select(RewardModel)
        .where(RewardModel.objective == run.objective, ~has_seen_it)
        .order_by(RewardModel.created_at.desc())
        .limit(1)
    ).one_or_none()


def run_by_id(session: Session, run_id: UUID) -> TrainingRun:
    """A run with its datasets and checkpoint."""
    return session.scalars(
        select(TrainingRun)
        .where(TrainingRun.id == run_id)
        .options(joinedload(TrainingRun.checkpoint, innerjoin=True), selectinload(TrainingRun.datasets))
    ).one()


def evaluations(session: Session, reward_model_ids: Iterable[UUID]) -> list[Evaluation]:
    """The evaluation reports of some reward models, by dataset."""
    return list(
        session.scalars(
            select(Evaluation)
            .where(Evaluation.reward_model_id.in_(reward_model_ids))
            .order_by(Evaluation.dataset_name, Evaluation.split, Evaluation.kind)
        )
    )


def worker_of(session: Session, run: TrainingRun) -> Worker | None:
    """Who holds a run, or held it last."""
    return session.get(Worker, run.worker_id) if run.worker_id is not None else None
