"""Finds the rows of a batch's dataset, and builds each as the contract says."""

import hashlib
import hmac
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from uuid import UUID

from sqlalchemy.orm import Session

from app.conversations import history
from app.datasets import left_out, queries
from app.datasets.split import Candidate, key_in_conversation
from app.errors import ConflictError
from app.models import Batch, Checkpoint, Guideline
from contract.conversation import Message
from contract.dataset import PreferenceRow, Provenance
from contract.vocabulary import LeftOut, Objective, Role, SafetyBin, Split, margin

# Conversations per round of queries: some thousand rows, whose texts are in memory at one time.
_CONVERSATIONS_AT_ONCE = 400
_PSEUDONYM_CHARACTERS = 16


class BatchMovedError(ConflictError):
    """An annotation or a review changed while its batch was being frozen; the next attempt sees it."""


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

    def candidates(self) -> Iterator[Candidate]:
        """The conversations as the split sees them."""
        for conversation_id, found in self.conversations.items():
            yield Candidate(
                conversation_id=conversation_id,
                objective=found.objective,
                rows=len(found.turns),
                prompts=frozenset(found.prompts),
            )


@dataclass(frozen=True, slots=True)
class Row:
    """One row, and on which side it is."""

    split: Split
    row: PreferenceRow


def survey(session: Session, batch: Batch, rules: left_out.Rules) -> Survey:
    """Look at every comparison of a batch once, keeping no text."""
    comparisons = 0
    reasons: Counter[LeftOut] = Counter()
    conversations: dict[UUID, Found] = {}
    for seen in queries.survey(session, batch.id):
        comparisons += 1
        found = conversations.setdefault(seen.conversation_id, Found(seen.objective))
        key = key_in_conversation(seen.prompt, seen.turn)
        if key is not None:
            found.prompts.add(key)
        reason = left_out.reason(seen.state, _judgement(seen), rules)
        if reason is None:
            found.turns.append(seen.turn)
        else:
            reasons[reason] += 1
    with_rows = {conversation_id: found for conversation_id, found in conversations.items() if found.turns}
    return Survey(comparisons=comparisons, left_out=reasons, conversations=with_rows)


def _judgement(seen: queries.Surveyed) -> left_out.Judgement | None:
    if seen.annotator_id is None:
        return None
    return left_out.Judgement(
        annotator_id=seen.annotator_id,
        verdict=seen.verdict,
        safety_bin=_safety_bin(seen.chosen_safe, seen.rejected_safe),
    )


def pseudonym(secret: str, person_id: UUID) -> str:
    """A person's name in datasets: the same in all of them, and nobody without the secret can find out whose."""
    return hmac.new(secret.encode(), person_id.bytes, hashlib.sha256).hexdigest()[:_PSEUDONYM_CHARACTERS]


@dataclass(frozen=True)
class RowReader:
    """Builds the rows of one batch's dataset."""

    session: Session
    batch: Batch
    rules: left_out.Rules
    secret: str
    checkpoints: Mapping[UUID, Checkpoint]
    guidelines: Mapping[UUID, Guideline]

    def rows(self, conversations: Mapping[UUID, Found], sides: Mapping[UUID, Split]) -> Iterator[Row]:
        """The rows of the conversations that have a side, by conversation and turn, in bounded memory.

        Raises:
            BatchMovedError: A comparison that was to be a row is no longer annotated.

        """
        pseudonyms = cache(partial(pseudonym, self.secret))
        for chunk in queries.chunks(sorted(sides.keys() & conversations.keys()), _CONVERSATIONS_AT_ONCE):
            wanted = {(key, turn) for key in chunk for turn in conversations[key].turns}
            found = [
                judged
                for judged in queries.annotated(self.session, chunk)
                if (judged.comparison.conversation_id, judged.comparison.turn) in wanted
            ]
            if len(found) != len(wanted):
                msg = f"Annotations of batch {self.batch.number} changed while it was being frozen."
                raise BatchMovedError(msg)
            for row in self._build(found, pseudonyms):
                yield Row(split=sides[UUID(row.conversation_id)], row=row)

    def _build(self, found: Sequence[queries.Annotated], pseudonyms: Callable[[UUID], str]) -> Iterator[PreferenceRow]:
        ids = [judged.comparison.id for judged in found]
        prompts = history.prompts_with_context(self.session, [judged.comparison for judged in found])
        responses: dict[UUID, list[queries.Sampled]] = defaultdict(list)
        for response in queries.responses(self.session, ids):
            responses[response.comparison_id].append(response)
        others: dict[UUID, list[UUID]] = defaultdict(list)
        for comparison_id, annotator_id, response_id in queries.other_choices(self.session, ids):
            if annotator_id not in self.rules.excluded:
                others[comparison_id].append(response_id)
        for judged in found:
            comparison_id = judged.comparison.id
            yield self._row(
                judged,
                prompts[comparison_id],
                responses[comparison_id],
                others[comparison_id],
                pseudonyms(judged.annotator_id),
            )

    def _row(
        self,
        judged: queries.Annotated,
        prompt: tuple[Message, ...],
        responses: Sequence[queries.Sampled],
        others: Sequence[UUID],
        annotator: str,
    ) -> PreferenceRow:
        comparison = judged.comparison
        (chosen,) = (response for response in responses if response.id == judged.chosen_response_id)
        (rejected,) = (response for response in responses if response.id != judged.chosen_response_id)
        return PreferenceRow(
            prompt=prompt,
            chosen=_assistant(chosen.text),
            rejected=_assistant(rejected.text),
            margin=margin(judged.strength, self.batch.margin_scheme),
            strength=judged.strength,
            objective=comparison.objective,
            safety_bin=_safety_bin(judged.chosen_safe, judged.rejected_safe),
            chosen_safe=judged.chosen_safe,
            rejected_safe=judged.rejected_safe,
            comparison_id=str(comparison.id),
            conversation_id=str(comparison.conversation_id),
            turn=comparison.turn,
            batch=self.batch.number,
            chosen_provenance=self._provenance(chosen),
            rejected_provenance=self._provenance(rejected),
            chosen_side=chosen.side,
            annotator=annotator,
            guideline_version=self.guidelines[judged.guideline_id].version,
            seconds=judged.seconds,
            n_labels=1 + len(others),
            agreement=others.count(chosen.id) / len(others) if others else None,
            risk_category=comparison.risk_category,
            attack_vector=comparison.attack_vector,
            prompt_source=judged.source.value,
            chosen_quality=judged.chosen_quality,
            rejected_quality=judged.rejected_quality,
            edited=_assistant(judged.edited_text) if judged.edited_text is not None else None,
            chosen_generation=chosen.generation,
            rejected_generation=rejected.generation,
        )

    def _provenance(self, response: queries.Sampled) -> Provenance:
        checkpoint = self.checkpoints[response.checkpoint_id]
        return Provenance(
            response_id=str(response.id),
            checkpoint=checkpoint.name,
            checkpoint_digest=checkpoint.digest,
            temperature=response.temperature,
            top_p=response.top_p,
            top_k=response.top_k,
            seed=response.seed,
            max_new_tokens=response.max_new_tokens,
            prompt_tokens=response.prompt_tokens,
            tokens=response.completion_tokens,
            finish_reason=response.finish_reason,
            engine=response.engine,
        )


def _assistant(text: str) -> tuple[Message, ...]:
    return (Message(role=Role.ASSISTANT, content=text),)


def _safety_bin(chosen_safe: bool | None, rejected_safe: bool | None) -> SafetyBin | None:  # noqa: FBT001 - a pair
    if chosen_safe is None or rejected_safe is None:
        return None
    return SafetyBin.of(chosen_safe=chosen_safe, rejected_safe=rejected_safe)
