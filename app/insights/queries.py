"""The counting SQL behind the statistics: each query reads one batch, in one pass."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import case, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from app.insights.statistics import Judgements, Sizes
from app.models import Annotation, Batch, Comparison, KeptInsights, Person, Response, Skip, SkipReason


def sizes(session: Session, batch_id: UUID) -> Sizes:
    """How many comparisons were judged, and how long their texts are, both responses counted."""
    judged = (
        select(Comparison.id)
        .join(Annotation, (Annotation.comparison_id == Comparison.id) & Annotation.is_primary)
        .where(Comparison.batch_id == batch_id)
    )
    comparisons, conversations, characters = session.execute(
        select(
            func.count(), func.count(Comparison.conversation_id.distinct()), func.avg(func.length(Comparison.prompt))
        )
        .join(Annotation, (Annotation.comparison_id == Comparison.id) & Annotation.is_primary)
        .where(Comparison.batch_id == batch_id)
    ).one()
    example, response = session.execute(
        select(
            func.avg(Response.prompt_tokens + Response.completion_tokens), func.avg(Response.completion_tokens)
        ).where(Response.comparison_id.in_(judged))
    ).one()
    return Sizes(
        comparisons=comparisons,
        conversations=conversations,
        tokens_per_example=_number(example),
        tokens_per_response=_number(response),
        characters_per_prompt=_number(characters),
    )


def judgements(session: Session, batch_id: UUID) -> list[Judgements]:
    """All annotations of a batch, counted by everything that the statistics tell apart: one pass over them."""
    chosen, rejected = aliased(Response), aliased(Response)
    difference = func.length(chosen.text) - func.length(rejected.text)
    # Before there is a previous checkpoint both generations are the same one.
    is_contest = (chosen.generation != rejected.generation) & (chosen.checkpoint_id != rejected.checkpoint_id)
    columns = (
        Annotation.annotator_id,
        Annotation.is_primary,
        Annotation.objective,
        Annotation.strength,
        Annotation.chosen_safe,
        Annotation.rejected_safe,
        chosen.side,
        case((difference > 0, 1), (difference < 0, -1), else_=0),
        case((is_contest, chosen.generation)),
    )
    rows = session.execute(
        select(*columns, func.count())
        .select_from(Annotation)
        .join(Comparison, Comparison.id == Annotation.comparison_id)
        .join(chosen, chosen.id == Annotation.chosen_response_id)
        .join(rejected, (rejected.comparison_id == Annotation.comparison_id) & (rejected.id != chosen.id))
        .where(Comparison.batch_id == batch_id)
        .group_by(*columns)
    )
    return [Judgements(*row) for row in rows]


def median_seconds(session: Session, batch_id: UUID) -> float | None:
    """The median time of an annotation."""
    return _medians(session, batch_id, Annotation.is_primary).get(True)


def annotator_medians(session: Session, batch_id: UUID) -> dict[UUID, float]:
    """The median time of each annotator's annotations."""
    return _medians(session, batch_id, Annotation.annotator_id)


def skips_by_annotator(session: Session, batch_id: UUID) -> dict[UUID, int]:
    """How many comparisons each annotator skipped."""
    rows = session.execute(
        select(Skip.annotator_id, func.count())
        .join(Comparison, Comparison.id == Skip.comparison_id)
        .where(Comparison.batch_id == batch_id)
        .group_by(Skip.annotator_id)
    )
    return dict(rows.all())


def skips_by_reason(session: Session, batch_id: UUID) -> dict[SkipReason, int]:
    """How many comparisons were skipped, by reason."""
    rows = session.execute(
        select(Skip.reason, func.count())
        .join(Comparison, Comparison.id == Skip.comparison_id)
        .where(Comparison.batch_id == batch_id)
        .group_by(Skip.reason)
    )
    return dict(rows.all())


def kept(session: Session, batch_ids: Iterable[UUID]) -> dict[UUID, KeptInsights]:
    """The statistics that were kept, by batch."""
    rows = session.scalars(select(KeptInsights).where(KeptInsights.batch_id.in_(list(batch_ids))))
    return {row.batch_id: row for row in rows}


def begun_batches(session: Session) -> list[Batch]:
    """The batches that may have annotations."""
    return list(session.scalars(select(Batch).where(Batch.opened_at.is_not(None) | Batch.frozen_at.is_not(None))))


def names(session: Session, person_ids: set[UUID]) -> dict[UUID, str]:
    """The names of some people."""
    rows = session.execute(select(Person.id, Person.name).where(Person.id.in_(person_ids)))
    return dict(rows.all())


def counts_since(session: Session, since: datetime) -> list[tuple[str, int]]:
    """How many annotations each annotator made since a moment, the most first."""
    count = func.count()
    rows = session.execute(
        select(Person.name, count)
        .join(Annotation, Annotation.annotator_id == Person.id)
        .where(Annotation.created_at >= since)
        .group_by(Person.id, Person.name)
        .order_by(count.desc(), Person.name)
    )
    return [(name, number) for name, number in rows]


def _medians(session: Session, batch_id: UUID, group: InstrumentedAttribute[Any]) -> dict[Any, float]:
    """The median seconds of each group: the middle value, or the mean of the two in the middle."""
    ranked = (
        select(
            group.label("group"),
            Annotation.seconds.label("seconds"),
            func.row_number().over(partition_by=group, order_by=Annotation.seconds).label("rank"),
            func.count().over(partition_by=group).label("n"),
        )
        .join(Comparison, Comparison.id == Annotation.comparison_id)
        .where(Comparison.batch_id == batch_id)
        .subquery()
    )
    is_middle = ranked.c.rank.in_([(ranked.c.n + 1) // 2, (ranked.c.n + 2) // 2])
    rows = session.execute(select(ranked.c.group, func.avg(ranked.c.seconds)).where(is_middle).group_by(ranked.c.group))
    return {key: float(median) for key, median in rows}


def _number(value: object) -> float | None:
    """An average as a float; PostgreSQL gives Decimal."""
    return None if value is None else float(str(value))
