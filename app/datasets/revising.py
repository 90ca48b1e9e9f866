"""Corrects frozen datasets by new versions, when an annotator's work is excluded afterwards, or taken again."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.orm import Session

from app.database import Database
from app.datasets import freezing, queries
from app.models import Batch


def revise(database: Database, at: datetime) -> int:
    """Have new versions written of the datasets that hold what is excluded now; says of how many.

    The version that is there stays as it is, for ever. Every process may call this at any time.
    """
    with database.read() as session:
        wanted = _to_revise(session)
    for batch_id in wanted:
        with database.write() as session:
            batch = session.get_one(Batch, batch_id, with_for_update=True)
            if batch_id in _to_revise(session):
                freezing.request(session, batch, at=at)
    return len(wanted)


def _to_revise(session: Session) -> list[UUID]:
    excluded = set(queries.excluded_annotators(session))
    return [
        batch.id
        for dataset, batch in queries.newest_datasets(session)
        if (changed := excluded.symmetric_difference(map(UUID, dataset.excluded_annotators)))
        and queries.have_work_in(session, changed, batch.id)
    ]
