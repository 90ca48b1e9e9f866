"""Gathers the statistics of a batch; everything here only reads."""

from datetime import datetime

from sqlalchemy.orm import Session

from app.insights import queries
from app.insights.statistics import AnnotatorRow, BatchStatistics, BatchWork, Share
from app.models import Batch


def batch_statistics(session: Session, batch: Batch) -> BatchStatistics:
    """What the annotations of a batch say."""
    return BatchStatistics(
        sizes=queries.sizes(session, batch.id),
        strengths=queries.strengths(session, batch.id),
        safety_bins=queries.safety_bins(session, batch.id),
        sides=queries.sides(session, batch.id),
        lengths=queries.lengths(session, batch.id),
    )


def batch_work(session: Session, batch: Batch) -> BatchWork:
    """How a batch's annotators work."""
    return BatchWork(
        median_seconds=queries.median_seconds(session, batch.id),
        skips={reason.value: count for reason, count in queries.skips_by_reason(session, batch.id).items()},
        annotators=_annotators(session, batch),
    )


def counts_since(session: Session, since: datetime) -> list[tuple[str, int]]:
    """How many annotations each annotator made since a moment, the most first."""
    return queries.counts_since(session, since)


def _annotators(session: Session, batch: Batch) -> tuple[AnnotatorRow, ...]:
    counts = queries.annotators(session, batch.id)
    medians = queries.annotator_medians(session, batch.id)
    skips = queries.skips_by_annotator(session, batch.id)
    names = queries.names(session, counts.keys() | skips.keys())
    nothing = queries.AnnotatorCounts(annotations=0, side_a=0)
    rows = [
        AnnotatorRow(
            name=name,
            annotations=counts.get(person_id, nothing).annotations,
            median_seconds=medians.get(person_id),
            side_a=Share(counts.get(person_id, nothing).side_a, counts.get(person_id, nothing).annotations),
            skips=skips.get(person_id, 0),
        )
        for person_id, name in names.items()
    ]
    return tuple(sorted(rows, key=lambda row: (-row.annotations, row.name.lower())))
