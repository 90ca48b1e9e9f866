"""Gathers the statistics of batches; those of a settled batch are counted once and kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import TypeAdapter
from sqlalchemy.orm import Session

from app.database import Database
from app.insights import queries
from app.insights.statistics import (
    AnnotatorRow,
    BatchStatistics,
    BatchWork,
    Judgements,
    Share,
    side_a_by_annotator,
    together,
)
from app.models import Batch, KeptInsights


@dataclass(frozen=True)
class BatchInsights:
    """What the annotations of a batch say, and how its annotators work."""

    statistics: BatchStatistics
    work: BatchWork


_STATISTICS = TypeAdapter(BatchStatistics)
_WORK = TypeAdapter(BatchWork)


def statistics_of(session: Session, batches: Sequence[Batch]) -> list[tuple[Batch, BatchStatistics]]:
    """What the annotations of some batches say."""
    kept = queries.kept(session, [batch.id for batch in batches])
    return [
        (
            batch,
            _STATISTICS.validate_python(kept[batch.id].statistics)
            if batch.id in kept
            else _statistics(session, batch, queries.judgements(session, batch.id)),
        )
        for batch in batches
    ]


def batch_statistics(session: Session, batch: Batch) -> BatchStatistics:
    """What the annotations of a batch say."""
    ((_, statistics),) = statistics_of(session, [batch])
    return statistics


def batch_insights(session: Session, batch: Batch) -> BatchInsights:
    """What the annotations of a batch say, and how its annotators work."""
    kept = queries.kept(session, [batch.id]).get(batch.id)
    if kept is not None:
        return BatchInsights(
            statistics=_STATISTICS.validate_python(kept.statistics), work=_WORK.validate_python(kept.work)
        )
    return _count(session, batch)


def keep_settled(database: Database) -> int:
    """Count each settled batch once and keep the result, since nothing in it changes; says how many."""
    with database.read() as session:
        counted = [(batch.id, _count(session, batch)) for batch in queries.settled_without_insights(session)]
    for batch_id, insights in counted:
        with database.write() as session:
            if batch_id not in queries.kept(session, [batch_id]):
                statistics = _STATISTICS.dump_python(insights.statistics, mode="json")
                work = _WORK.dump_python(insights.work, mode="json")
                session.add(KeptInsights(batch_id=batch_id, statistics=statistics, work=work))
    return len(counted)


def _count(session: Session, batch: Batch) -> BatchInsights:
    judgements = queries.judgements(session, batch.id)
    work = BatchWork(
        median_seconds=queries.median_seconds(session, batch.id),
        skips={reason.value: count for reason, count in queries.skips_by_reason(session, batch.id).items()},
        annotators=_annotators(session, batch, judgements),
    )
    return BatchInsights(statistics=_statistics(session, batch, judgements), work=work)


def counts_since(session: Session, since: datetime) -> list[tuple[str, int]]:
    """How many annotations each annotator made since a moment, the most first."""
    return queries.counts_since(session, since)


def _statistics(session: Session, batch: Batch, judgements: list[Judgements]) -> BatchStatistics:
    return BatchStatistics(
        sizes=queries.sizes(session, batch.id), judgements=together(one for one in judgements if one.is_primary)
    )


def _annotators(session: Session, batch: Batch, judgements: list[Judgements]) -> tuple[AnnotatorRow, ...]:
    sides = side_a_by_annotator(judgements)
    medians = queries.annotator_medians(session, batch.id)
    skips = queries.skips_by_annotator(session, batch.id)
    names = queries.names(session, sides.keys() | skips.keys())
    rows = [
        AnnotatorRow(
            name=name,
            median_seconds=medians.get(person_id),
            side_a=sides.get(person_id, Share(0, 0)),
            skips=skips.get(person_id, 0),
        )
        for person_id, name in names.items()
    ]
    return tuple(sorted(rows, key=lambda row: (-row.annotations, row.name.lower())))
