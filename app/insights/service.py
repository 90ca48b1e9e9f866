"""Gathers the statistics of a batch; everything here only reads."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from app.insights import queries
from app.insights.statistics import AnnotatorRow, BatchStatistics, BatchWork, Judgements, Share, side_a_by_annotator
from app.models import Batch


@dataclass(frozen=True)
class BatchInsights:
    """What the annotations of a batch say, and how its annotators work."""

    statistics: BatchStatistics
    work: BatchWork


def batch_statistics(session: Session, batch: Batch) -> BatchStatistics:
    """What the annotations of a batch say."""
    return _statistics(session, batch, queries.judgements(session, batch.id))


def batch_insights(session: Session, batch: Batch) -> BatchInsights:
    """What the annotations of a batch say, and how its annotators work."""
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
        sizes=queries.sizes(session, batch.id), judgements=tuple(one for one in judgements if one.is_primary)
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
