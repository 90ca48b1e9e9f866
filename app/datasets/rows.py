"""Builds the rows of a batch's dataset as the contract says, straight from columns of the database.

A dataset has a million rows, so that each is a plain dictionary here: `contract.dataset.PreferenceRow` says what it
holds, the Parquet schema checks the types, and a test reads every kind of row back through the contract.
"""

import hashlib
import hmac
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from app.datasets import left_out, queries
from app.datasets.survey import Found, safety_bin
from app.errors import ConflictError
from app.models import Batch, Checkpoint, Guideline
from contract.vocabulary import Role, Split, margin

# Conversations per round of queries: some thousand rows, whose texts are in memory at one time.
_CONVERSATIONS_AT_ONCE = 400
_PSEUDONYM_CHARACTERS = 16

MessageDict = dict[str, str]
RowDict = dict[str, Any]
"""A `PreferenceRow` as plain values."""


class BatchMovedError(ConflictError):
    """An annotation or a review changed while its batch was being frozen; the next attempt sees it."""


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
    on_rows: Callable[[int], object]
    """Hears, after each round of queries, how many rows it gave."""

    def rows(self, conversations: Mapping[UUID, Found], sides: Mapping[UUID, Split]) -> Iterator[tuple[Split, RowDict]]:
        """The rows of the conversations that have a side, by conversation and turn, in bounded memory.

        Raises:
            BatchMovedError: A comparison that was to be a row is no longer annotated.

        """
        pseudonyms = cache(partial(pseudonym, self.secret))
        for chunk in queries.chunks(sorted(sides.keys() & conversations.keys()), _CONVERSATIONS_AT_ONCE):
            wanted = {(key, turn) for key in chunk for turn in conversations[key].turns}
            built = 0
            for judged, row in self._build(chunk, wanted, pseudonyms):
                built += 1
                yield sides[judged.conversation_id], row
            if built != len(wanted):
                msg = f"Annotations of batch {self.batch.number} changed while it was being frozen."
                raise BatchMovedError(msg)
            self.on_rows(built)

    def _build(
        self, conversations: Sequence[UUID], wanted: set[tuple[UUID, int]], pseudonyms: Callable[[UUID], str]
    ) -> Iterator[tuple[queries.Annotated, RowDict]]:
        """The wanted rows of some conversations.

        The context of a turn is built while the turns go by: it is what `app.conversations.history` gives.
        """
        judged_turns = queries.annotated(self.session, conversations)
        ids = [judged.comparison_id for judged in judged_turns]
        responses: dict[UUID, list[queries.Sampled]] = defaultdict(list)
        for response in queries.responses(self.session, ids):
            responses[response.comparison_id].append(response)
        others = self._other_choices(ids)
        beginning = [_message(Role.SYSTEM, self.batch.system_prompt)] if self.batch.system_prompt else []
        context: list[MessageDict] = []
        conversation_id = None
        for judged in judged_turns:
            if judged.conversation_id != conversation_id:
                conversation_id, context = judged.conversation_id, beginning
            chosen, rejected = _chosen_first(responses[judged.comparison_id], judged.chosen_response_id)
            prompt = [*context, _message(Role.USER, judged.prompt)]
            if (conversation_id, judged.turn) in wanted:
                choices = others.get(judged.comparison_id, ())
                yield judged, self._row(judged, prompt, chosen, rejected, choices, pseudonyms(judged.annotator_id))
            context = [*prompt, _message(Role.ASSISTANT, chosen.text)]

    def _other_choices(self, comparison_ids: Sequence[UUID]) -> Mapping[UUID, Sequence[UUID]]:
        """By comparison, the responses that others chose than the primary annotator; excluded people do not count."""
        others: dict[UUID, list[UUID]] = defaultdict(list)
        for comparison_id, annotator_id, response_id in queries.other_choices(self.session, comparison_ids):
            if annotator_id not in self.rules.excluded:
                others[comparison_id].append(response_id)
        return others

    def _row(
        self,
        judged: queries.Annotated,
        prompt: list[MessageDict],
        chosen: queries.Sampled,
        rejected: queries.Sampled,
        others: Sequence[UUID],
        annotator: str,
    ) -> RowDict:
        return {
            "prompt": prompt,
            "chosen": [_message(Role.ASSISTANT, chosen.text)],
            "rejected": [_message(Role.ASSISTANT, rejected.text)],
            "margin": margin(judged.strength, self.batch.margin_scheme),
            "strength": judged.strength,
            "objective": judged.objective,
            "safety_bin": safety_bin(judged.chosen_safe, judged.rejected_safe),
            "chosen_safe": judged.chosen_safe,
            "rejected_safe": judged.rejected_safe,
            "comparison_id": str(judged.comparison_id),
            "conversation_id": str(judged.conversation_id),
            "turn": judged.turn,
            "batch": self.batch.number,
            "chosen_provenance": self._provenance(chosen),
            "rejected_provenance": self._provenance(rejected),
            "chosen_side": chosen.side,
            "annotator": annotator,
            "guideline_version": self.guidelines[judged.guideline_id].version,
            "seconds": judged.seconds,
            "n_labels": 1 + len(others),
            "agreement": others.count(chosen.id) / len(others) if others else None,
            "risk_category": judged.risk_category,
            "attack_vector": judged.attack_vector,
            "prompt_source": judged.source,
            "chosen_quality": judged.chosen_quality,
            "rejected_quality": judged.rejected_quality,
            "edited": [_message(Role.ASSISTANT, judged.edited_text)] if judged.edited_text is not None else None,
            "chosen_generation": chosen.generation,
            "rejected_generation": rejected.generation,
            "late": self.batch.closing_at is not None and judged.created_at > self.batch.closing_at,
        }

    def _provenance(self, response: queries.Sampled) -> dict[str, Any]:
        checkpoint = self.checkpoints[response.checkpoint_id]
        return {
            "response_id": str(response.id),
            "checkpoint": checkpoint.name,
            "checkpoint_digest": checkpoint.digest,
            "temperature": response.temperature,
            "top_p": response.top_p,
            "top_k": response.top_k,
            "seed": response.seed,
            "max_new_tokens": response.max_new_tokens,
            "prompt_tokens": response.prompt_tokens,
            "tokens": response.completion_tokens,
            "finish_reason": response.finish_reason,
            "engine": response.engine,
        }


def _message(role: Role, content: str) -> MessageDict:
    return {"role": role, "content": content}


def _chosen_first(responses: Sequence[queries.Sampled], chosen_id: UUID) -> tuple[queries.Sampled, queries.Sampled]:
    first, second = responses
    return (first, second) if first.id == chosen_id else (second, first)
