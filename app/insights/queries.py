"""The counting SQL behind the statistics: each query reads one batch, in one pass."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVarTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Select, case, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from app.insights.statistics import LengthCounts, Sizes
from app.models import Annotation, Comparison, Person, Response, Skip, SkipReason
from contract.vocabulary import Objective, SafetyBin, Side, Strength

Ts = TypeVarTuple("Ts")


@dataclass(frozen=True)
class AnnotatorCounts:
    """What one annotator chose."""

    annotations: int
    side_a: int


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


def strengths(session: Session, batch_id: UUID) -> dict[Objective, dict[Strength, int]]:
    """How often each strength was given, by objective."""
    rows = session.execute(
        _primary(select(Annotation.objective, Annotation.strength, func.count()), batch_id).group_by(
            Annotation.objective, Annotation.strength
        )
    )
    counts = {objective: dict.fromkeys(Strength, 0) for objective in Objective}
    for objective, strength, count in rows:
        counts[objective][strength] = count
    return counts


def safety_bins(session: Session, batch_id: UUID) -> dict[SafetyBin, int]:
    """How many pairs got each safety label."""
    rows = session.execute(
        _primary(select(Annotation.chosen_safe, Annotation.rejected_safe, func.count()), batch_id)
        .where(Annotation.chosen_safe.is_not(None))
        .group_by(Annotation.chosen_safe, Annotation.rejected_safe)
    )
    counts = dict.fromkeys(SafetyBin, 0)
    for chosen_safe, rejected_safe, count in rows:
        counts[SafetyBin.of(chosen_safe=bool(chosen_safe), rejected_safe=bool(rejected_safe))] = count
    return counts


def sides(session: Session, batch_id: UUID) -> dict[Side, int]:
    """How often the response on each side was chosen."""
    rows = session.execute(
        _primary(select(Response.side, func.count()), batch_id)
        .join(Response, Response.id == Annotation.chosen_response_id)
        .group_by(Response.side)
    )
    return dict.fromkeys(Side, 0) | dict(rows.all())


def lengths(session: Session, batch_id: UUID) -> LengthCounts:
    """Whether the chosen response was the longer one, in characters."""
    chosen, rejected = aliased(Response), aliased(Response)
    difference = func.length(chosen.text) - func.length(rejected.text)
    longer, shorter, equal = session.execute(
        _primary(select(_count_if(difference > 0), _count_if(difference < 0), _count_if(difference == 0)), batch_id)
        .join(chosen, chosen.id == Annotation.chosen_response_id)
        .join(rejected, (rejected.comparison_id == chosen.comparison_id) & (rejected.id != chosen.id))
    ).one()
    return LengthCounts(longer=longer, shorter=shorter, equal=equal)


def median_seconds(session: Session, batch_id: UUID) -> float | None:
    """The median time of an annotation."""
    return _medians(session, batch_id, Annotation.is_primary).get(True)


def annotators(session: Session, batch_id: UUID) -> dict[UUID, AnnotatorCounts]:
    """How much each annotator judged, and how often they chose A."""
    rows = session.execute(
        select(Annotation.annotator_id, func.count(), _count_if(Response.side == Side.A))
        .join(Comparison, Comparison.id == Annotation.comparison_id)
        .join(Response, Response.id == Annotation.chosen_response_id)
        .where(Comparison.batch_id == batch_id)
        .group_by(Annotation.annotator_id)
    )
    return {annotator_id: AnnotatorCounts(count, side_a) for annotator_id, count, side_a in rows}


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


def _primary(statement: Select[*Ts], batch_id: UUID) -> Select[*Ts]:
    """Over the annotations of a batch that are rows of its dataset."""
    return (
        statement.select_from(Annotation)
        .join(Comparison, Comparison.id == Annotation.comparison_id)
        .where(Comparison.batch_id == batch_id, Annotation.is_primary)
    )


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


def _count_if(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.coalesce(func.sum(case((condition, 1), else_=0)), 0)


def _number(value: object) -> float | None:
    """An average as a float; PostgreSQL gives Decimal."""
    return None if value is None else float(str(value))
