"""The SQL of external datasets."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.models import ExternalDataset


def all_datasets(session: Session) -> list[ExternalDataset]:
    """Every external dataset, by name."""
    return list(session.scalars(select(ExternalDataset).order_by(ExternalDataset.name)))


def by_name(session: Session, name: str) -> ExternalDataset | None:
    """The external dataset of this name."""
    return session.scalars(select(ExternalDataset).where(ExternalDataset.name == name)).one_or_none()
