"""Freezes a batch into an immutable preference dataset."""

from sqlalchemy.orm import Session

from app.models import Batch, PreferenceDataset
from app.settings import Settings


def freeze(session: Session, batch: Batch, settings: Settings) -> PreferenceDataset:
    """Write the dataset of a batch."""
    raise NotImplementedError
