"""Turns conversations into token ids with the checkpoint's chat template.

Always from text, never from the ids that were sampled: the template's ids of a response need not equal those
(TRAINING.md, template facts), and training and scoring must see the same ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from contract.conversation import Message
from contract.vocabulary import MarginScheme, Role, margin
from model_worker.chat_format import encode_messages
from model_worker.errors import DatasetError, EncodingError, ResponseTooLongError
from model_worker.reward.batching import NO_LABEL, EncodedComparison
from model_worker.reward.data import Comparison


class Encoder:
    """Encodes a prompt with its context and one response, to at most `max_length` tokens.

    What is too long loses its oldest context tokens (the beginning-of-sequence token stays), never a token of
    the response. Each side of a comparison is cut by itself, so that a response's reward does not depend on
    what it was compared with and `score` gives the number that evaluation saw.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, max_length: int) -> None:
        self._tokenizer = tokenizer
        self.max_length = max_length

    def encode(self, prompt: Sequence[Message], response: str) -> tuple[int, ...]:
        """The token ids of a conversation that ends with `response`.

        Raises:
            EncodingError: The chat template refuses the conversation.
            ResponseTooLongError: The response alone does not fit.

        """
        messages = [*prompt, Message(role=Role.ASSISTANT, content=response)]
        ids = encode_messages(self._tokenizer, messages, add_generation_prompt=False)
        surplus = len(ids) - self.max_length
        if surplus <= 0:
            return tuple(ids)
        context = encode_messages(self._tokenizer, prompt, add_generation_prompt=True)
        kept = 1 if ids[0] == self._tokenizer.bos_token_id else 0
        if kept + surplus > _common_prefix(context, ids):
            msg = f"The response alone is longer than {self.max_length} tokens."
            raise ResponseTooLongError(msg)
        return tuple(ids[:kept] + ids[kept + surplus :])


@dataclass(frozen=True, slots=True)
class EncodedComparisons:
    """Encoded comparisons beside the ones they were made from, in order, and how many did not fit."""

    comparisons: tuple[Comparison, ...]
    encoded: tuple[EncodedComparison, ...]
    too_long: int
    """Comparisons with a response longer than the context; they are left out."""


def encode_comparisons(encoder: Encoder, comparisons: Sequence[Comparison], scheme: MarginScheme) -> EncodedComparisons:
    """Encode both sides of every comparison; the margin is made from the strength, by the recipe's scheme.

    Raises:
        DatasetError: A conversation does not fit the chat template; the message names the comparison.

    """
    kept: list[Comparison] = []
    encoded: list[EncodedComparison] = []
    for comparison in comparisons:
        try:
            encoded.append(_encode_comparison(encoder, comparison, scheme))
            kept.append(comparison)
        except ResponseTooLongError:
            continue
        except EncodingError as error:
            msg = f"Comparison {comparison.comparison_id}: {error}"
            raise DatasetError(msg) from None
    return EncodedComparisons(tuple(kept), tuple(encoded), too_long=len(comparisons) - len(kept))


def _encode_comparison(encoder: Encoder, comparison: Comparison, scheme: MarginScheme) -> EncodedComparison:
    strength = comparison.strength
    return EncodedComparison(
        chosen=encoder.encode(comparison.prompt, comparison.chosen),
        rejected=encoder.encode(comparison.prompt, comparison.rejected),
        margin=0.0 if strength is None else margin(strength, scheme),
        chosen_safe=_label(is_safe=comparison.chosen_safe),
        rejected_safe=_label(is_safe=comparison.rejected_safe),
        conversation_key=comparison.conversation_key,
    )


def _label(*, is_safe: bool | None) -> float:
    return NO_LABEL if is_safe is None else float(is_safe)


def _common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many first tokens two sequences share; where a template rewrites the context, less than all of it."""
    return next(
        (place for place, (one, other) in enumerate(zip(left, right, strict=False)) if one != other),
        min(len(left), len(right)),
    )
