"""The SQL of training sets."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.models import ExternalDataset, PreferenceDataset, TrainingSet


def all_sets(session: Session) -> list[TrainingSet]:
    """Every training set, the newest first."""
    return list(session.scalars(select(TrainingSet).order_by(TrainingSet.created_at.desc(), TrainingSet.name)))


def by_name(session: Session, name: str) -> TrainingSet | None:
    """The training set of this name."""
    return session.scalars(select(TrainingSet).where(TrainingSet.name == name)).one_or_none()


def frozen_by_names(session: Session, names: list[str]) -> list[PreferenceDataset]:
    """The frozen datasets of these names."""
    return list(session.scalars(select(PreferenceDataset).where(PreferenceDataset.name.in_(names))))


def external_by_names(session: Session, names: list[str]) -> list[ExternalDataset]:
    """The external datasets of these names."""
    return list(session.scalars(select(ExternalDataset).where(ExternalDataset.name.in_(names))))
