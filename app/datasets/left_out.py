"""Decides which comparisons become rows, and gives every other one exactly one reason."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from app.models import ComparisonState, Verdict
from contract.vocabulary import LeftOut, SafetyBin

_REASONS_BY_STATE: Final = {
    ComparisonState.FAILED: LeftOut.SAMPLING_FAILED,
    ComparisonState.EQUAL_RESPONSES: LeftOut.EQUAL_RESPONSES,
    ComparisonState.SKIPPED: LeftOut.SKIPPED,
    ComparisonState.SAMPLING: LeftOut.NOT_ANNOTATED,
    ComparisonState.READY: LeftOut.NOT_ANNOTATED,
    ComparisonState.ABANDONED: LeftOut.NOT_ANNOTATED,
}


@dataclass(frozen=True, slots=True)
class Rules:
    """What a batch's dataset takes."""

    excluded: AbstractSet[UUID]
    """Annotators whose work is left out."""
    is_review_complete: bool
    """Whether every annotation had to be approved; with a smaller review share, unreviewed ones are taken."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The primary annotation of a comparison, as far as it decides."""

    annotator_id: UUID
    verdict: Verdict | None
    """Of the annotation's present revision."""
    safety_bin: SafetyBin | None


def reason(state: ComparisonState, judgement: Judgement | None, rules: Rules) -> LeftOut | None:
    """Why a comparison is left out; ``None`` for one that is a row, as far as the split allows.

    Where several reasons hold, the first of this order counts: state, annotator, review, safety label.
    """
    if state in _REASONS_BY_STATE:
        return _REASONS_BY_STATE[state]
    if judgement is None:
        return LeftOut.NOT_ANNOTATED
    if judgement.annotator_id in rules.excluded:
        return LeftOut.ANNOTATOR_EXCLUDED
    if judgement.verdict is Verdict.REJECTED:
        return LeftOut.REJECTED_IN_REVIEW
    if judgement.verdict is None and rules.is_review_complete:
        return LeftOut.UNREVIEWED
    is_exported = judgement.safety_bin is None or judgement.safety_bin.is_exported
    return None if is_exported else LeftOut.CHOSEN_UNSAFE_REJECTED_SAFE
