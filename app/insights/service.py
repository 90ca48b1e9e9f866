"""Gathers the statistics of batches; large ones are counted beforehand, those of a settled batch once."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

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
from app.models import Batch, KeptInsights, now


@dataclass(frozen=True)
class BatchInsights:
    """What the annotations of a batch say, and how its annotators work."""

    statistics: BatchStatistics
    work: BatchWork
    counted_at: datetime | None = None
    """Where it was not counted just now."""


_STATISTICS = TypeAdapter(BatchStatistics)
_WORK = TypeAdapter(BatchWork)
# What takes longer to count is not counted while somebody waits for a page.
_QUICK_S = 0.05
_SHARE_OF_TIME = 0.02
_OFTEN_S = 60.0


def statistics_of(session: Session, batches: Sequence[Batch]) -> list[tuple[Batch, BatchStatistics]]:
    """What the annotations of some batches say."""
    kept = queries.kept(session, [batch.id for batch in batches])
    return [
        (
            batch,
            _STATISTICS.validate_python(kept[batch.id].statistics)
            if _is_shown(batch, kept.get(batch.id))
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
    if kept is None or not _is_shown(batch, kept):
        return _count(session, batch)
    return BatchInsights(
        statistics=_STATISTICS.validate_python(kept.statistics),
        work=_WORK.validate_python(kept.work),
        counted_at=kept.counted_at,
    )


def keep(database: Database, *, only_settled: bool = False) -> int:
    """Count the batches whose kept statistics are missing or old, and keep the result; says how many.

    A settled batch is counted once. A running one is counted again and again, in a fiftieth of the time.
    """
    counted = 0
    with database.read() as session:
        batches = queries.begun_batches(session)
        kept = queries.kept(session, [batch.id for batch in batches])
    for batch in batches:
        if _is_due(batch, kept.get(batch.id), now()) and not (only_settled and batch.frozen_at is None):
            _count_and_keep(database, batch)
            counted += 1
    return counted


def _is_shown(batch: Batch, kept: KeptInsights | None) -> bool:
    """Whether a page shows what was kept, and does not count anew."""
    return kept is not None and (_is_final(batch, kept) or (batch.frozen_at is None and kept.took_s > _QUICK_S))


def _is_final(batch: Batch, kept: KeptInsights) -> bool:
    return batch.frozen_at is not None and kept.counted_at >= batch.frozen_at


def _is_due(batch: Batch, kept: KeptInsights | None, at: datetime) -> bool:
    if kept is None:
        return True
    if batch.frozen_at is not None:
        return not _is_final(batch, kept)
    return kept.counted_at + timedelta(seconds=max(_OFTEN_S, kept.took_s / _SHARE_OF_TIME)) <= at


def _count_and_keep(database: Database, batch: Batch) -> None:
    counted_at, began = now(), time.monotonic()
    with database.read() as session:
        insights = _count(session, batch)
    took_s = time.monotonic() - began
    statistics = _STATISTICS.dump_python(insights.statistics, mode="json")
    work = _WORK.dump_python(insights.work, mode="json")
    with database.write() as session:
        session.merge(
            KeptInsights(batch_id=batch.id, counted_at=counted_at, took_s=took_s, statistics=statistics, work=work)
        )


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
