"""Pairs of the newest and the previous checkpoint, for tests: makes them, and says what they are drawn from."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.batches import service as batches
from app.batches.service import VariantSettings
from app.checkpoints import service as checkpoints
from app.database import Database
from app.models import Batch, BatchVariant, Checkpoint, Response
from contract.vocabulary import Generation
from tests.factories import checkpoint_files, make_comparison, make_conversation, make_person

BOTH = (
    VariantSettings(0.7, 0.95),
    VariantSettings(0.7, 0.95, generation=Generation.PREVIOUS),
)
# Of each pair: the generation and the checkpoint of both responses, in whatever order.
Pair = frozenset[tuple[Generation, str]]


def promote(database: Database, name: str, *, for_open_batch: bool = False) -> Checkpoint:
    with database.write() as session:
        checkpoint = checkpoints.register(session, checkpoint_files(name))
        return checkpoints.promote(session, checkpoint, for_open_batch=for_open_batch)


def ask_for_pairs(database: Database, batch: Batch, count: int) -> list[UUID]:
    """Comparisons of one annotator that wait for their responses."""
    with database.write() as session:
        ann = make_person(session)
        return [make_comparison(session, make_conversation(session, batch, ann)).id for _ in range(count)]


def pinned(session: Session, batch: Batch) -> dict[Generation, str]:
    rows = session.execute(
        select(BatchVariant.generation, Checkpoint.name)
        .join(Checkpoint, Checkpoint.id == BatchVariant.checkpoint_id)
        .where(BatchVariant.batch_id == batch.id)
    ).all()
    assert len(rows) == len(set(rows)) == len(batches.variants(session, batch))
    return dict(rows)


def pairs(session: Session) -> dict[UUID, Pair]:
    """What the responses of each comparison are drawn from."""
    found: dict[UUID, list[tuple[Generation, str]]] = {}
    rows = session.execute(
        select(Response.comparison_id, Response.generation, Checkpoint.name).join(
            Checkpoint, Checkpoint.id == Response.checkpoint_id
        )
    )
    for comparison_id, generation, name in rows:
        found.setdefault(comparison_id, []).append((generation, name))
    return {comparison_id: frozenset(pair) for comparison_id, pair in found.items()}


def pair(newest: str, previous: str) -> Pair:
    return frozenset({(Generation.NEWEST, newest), (Generation.PREVIOUS, previous)})
