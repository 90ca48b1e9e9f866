"""Looks at every comparison of a batch once, and decides which may be rows of its dataset."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy.orm import Session

from app.datasets import left_out, queries
from app.datasets.split import Candidate, key_in_conversation
from app.models import Batch
from contract.vocabulary import LeftOut, Objective, SafetyBin


@dataclass(slots=True)
class Found:
    """A conversation of a batch, with the turns that may be rows."""

    objective: Objective
    turns: list[int] = field(default_factory=list)
    prompts: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Survey:
    """What a batch holds before the split is drawn."""

    comparisons: int
    left_out: Counter[LeftOut]
    conversations: dict[UUID, Found]
    """Only those with rows."""
    removed: int = 0
    """Rows that the rules of an earlier version allowed and those of this one do not."""
    added: int = 0
    """Rows that only the rules of this version allow."""

    def candidates(self) -> Iterator[Candidate]:
        """The conversations as the split sees them."""
        for conversation_id, found in self.conversations.items():
            yield Candidate(
                conversation_id=conversation_id,
                objective=found.objective,
                rows=len(found.turns),
                prompts=frozenset(found.prompts),
            )


def survey(session: Session, batch: Batch, rules: left_out.Rules, *, before: left_out.Rules | None = None) -> Survey:
    """Look at every comparison of a batch once, keeping no text; ``before`` are the rules of an earlier version."""
    removed = added = 0
    comparisons = 0
    reasons: Counter[LeftOut] = Counter()
    conversations: dict[UUID, Found] = {}
    for seen in queries.survey(session, batch.id):
        comparisons += 1
        found = conversations.setdefault(seen.conversation_id, Found(seen.objective))
        key = key_in_conversation(seen.prompt, seen.turn)
        if key is not None:
            found.prompts.add(key)
        judgement = _judgement(seen)
        reason = left_out.reason(seen.state, judgement, rules)
        if before is not None:
            was_row = left_out.reason(seen.state, judgement, before) is None
            removed += was_row and reason is not None
            added += reason is None and not was_row
        if reason is None:
            found.turns.append(seen.turn)
        else:
            reasons[reason] += 1
    with_rows = {conversation_id: found for conversation_id, found in conversations.items() if found.turns}
    return Survey(comparisons=comparisons, left_out=reasons, conversations=with_rows, removed=removed, added=added)


def _judgement(seen: queries.Surveyed) -> left_out.Judgement | None:
    if seen.annotator_id is None:
        return None
    return left_out.Judgement(
        annotator_id=seen.annotator_id,
        verdict=seen.verdict,
        safety_bin=safety_bin(seen.chosen_safe, seen.rejected_safe),
    )


def safety_bin(chosen_safe: bool | None, rejected_safe: bool | None) -> SafetyBin | None:  # noqa: FBT001 - a pair
    """The safety label of a pair; ``None`` where none was collected."""
    if chosen_safe is None or rejected_safe is None:
        return None
    return SafetyBin.of(chosen_safe=chosen_safe, rejected_safe=rejected_safe)
