"""Draws the two model variants of a comparison, and on which side each stands."""

import random
import secrets
from collections.abc import Iterable, Sequence
from uuid import UUID

from app.errors import InvalidInputError
from app.models import BatchVariant, Comparison, Response
from contract.vocabulary import Side

_SEED_BITS = 63


def new_seed() -> int:
    """A seed for one response, as large as both databases store it."""
    return secrets.randbits(_SEED_BITS)


def draw_pair(comparison: Comparison, variants: Sequence[BatchVariant], *, max_new_tokens: int) -> list[Response]:
    """The two responses to be sampled, from two different variants.

    Which variant stands on side A is random. The rows are made in the order of the sides, so that not even
    the order of their keys tells which variant is which.

    Raises:
        InvalidInputError: There are not two variants, or no checkpoint is promoted yet.

    """
    return [
        Response(
            comparison_id=comparison.id,
            side=side,
            checkpoint_id=_checkpoint_of(variant),
            generation=variant.generation,
            temperature=variant.temperature,
            top_p=variant.top_p,
            top_k=variant.top_k,
            seed=new_seed(),
            max_new_tokens=max_new_tokens,
        )
        for side, variant in zip(Side, _draw_two(variants), strict=True)
    ]


def draw_again(responses: Iterable[Response]) -> None:
    """Empty responses and give them new seeds, so that they are drawn as if for the first time."""
    for response in responses:
        response.seed = new_seed()
        response.text = ""
        response.token_ids = None
        response.finish_reason = None


def can_differ(responses: Iterable[Response]) -> bool:
    """Whether drawing again with other seeds can change any of the responses: greedy ones come out as they did."""
    return any(response.temperature > 0 and response.top_k != 1 for response in responses)


def _draw_two(variants: Sequence[BatchVariant]) -> tuple[BatchVariant, BatchVariant]:
    """Two different variants, by weight, in random order (Llama 2, section 3.2.1)."""
    if len(variants) < len(Side):
        msg = "variants: a batch needs two model variants, or there is nothing to compare."
        raise InvalidInputError(msg)
    generator = random.SystemRandom()
    first = generator.choices(variants, [variant.weight for variant in variants])[0]
    others = [variant for variant in variants if variant is not first]
    # Two responses that differ by chance alone say nothing about the variants.
    rest = [variant for variant in others if _draws_as(variant) != _draws_as(first)] or others
    second = generator.choices(rest, [variant.weight for variant in rest])[0]
    pair = [first, second]
    # Whoever has the larger weight is drawn first more often, so the sides need a draw of their own.
    generator.shuffle(pair)
    return pair[0], pair[1]


def _draws_as(variant: BatchVariant) -> tuple[UUID | None, float, float, int]:
    """What a variant comes to: without a previous checkpoint, variants of both generations may come to the same."""
    return variant.checkpoint_id, variant.temperature, variant.top_p, variant.top_k


def _checkpoint_of(variant: BatchVariant) -> UUID:
    if variant.checkpoint_id is None:
        msg = "No chat checkpoint is promoted yet, so there is nothing to sample from."
        raise InvalidInputError(msg)
    return variant.checkpoint_id
