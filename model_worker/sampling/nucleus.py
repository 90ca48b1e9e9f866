"""Draws the next token of many responses at once, each with its own temperature, top_p, top_k and seed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from model_worker.sampling.noise import gumbel

# A sort of the whole vocabulary costs about four times as much as the largest 4,096, which nearly
# always hold the nucleus (SAMPLING.md, section 3.2). Rows whose nucleus is larger are sorted whole.
CANDIDATES: Final = 4096


@dataclass(frozen=True, slots=True)
class Draw:
    """How one row's next token is to be drawn."""

    temperature: float
    """0 takes the likeliest token."""
    top_p: float
    """1 means no limit."""
    top_k: int
    """0 means no limit."""
    seed: int
    index: int
    """Which token of its response it is; counts from 0."""


def draw_tokens(logits: Tensor, draws: Sequence[Draw], *, candidates: int = CANDIDATES) -> tuple[Tensor, Tensor]:
    """Draw one token for each row.

    Limits apply as in transformers: temperature, then top_k, then top_p over what top_k left.

    Args:
        logits: (rows, vocabulary), any floating type.
        draws: One for each row.
        candidates: How many of the likeliest tokens are looked at before the whole vocabulary is sorted.

    Returns:
        Token ids, int64 (rows,), and their log-probabilities before temperature and limits, float32 (rows,).

    """
    logits = logits.float()
    tokens = logits.argmax(dim=-1)
    unlimited = [row for row, draw in enumerate(draws) if draw.temperature > 0 and not _is_limited(draw)]
    limited = [row for row, draw in enumerate(draws) if draw.temperature > 0 and _is_limited(draw)]
    if unlimited:
        tokens[unlimited] = _draw_unlimited(logits[unlimited], [draws[row] for row in unlimited])
    if limited:
        tokens[limited] = _draw_limited(logits[limited], [draws[row] for row in limited], candidates)
    logprobs = logits.gather(1, tokens[:, None]).squeeze(1) - logits.logsumexp(dim=-1)
    return tokens, logprobs


def _is_limited(draw: Draw) -> bool:
    return draw.top_p < 1 or draw.top_k > 0


def _draw_unlimited(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    scaled = logits / _column([draw.temperature for draw in draws], logits)
    every_token = torch.arange(logits.shape[1], device=logits.device).expand(logits.shape)
    return _likeliest_with_noise(scaled, every_token, draws)


def _draw_limited(logits: Tensor, draws: Sequence[Draw], candidates: int) -> Tensor:
    vocabulary = logits.shape[1]
    scaled = logits / _column([draw.temperature for draw in draws], logits)
    values, token_ids = scaled.topk(min(candidates, vocabulary), dim=-1)  # both (rows, candidates), descending
    kept, is_complete = _nucleus(values, scaled, draws)
    tokens = _likeliest_with_noise(values.masked_fill(~kept, -torch.inf), token_ids, draws)
    if values.shape[1] < vocabulary and not bool(is_complete.all()):
        rest = (~is_complete).nonzero().flatten()
        tokens[rest] = _draw_limited(logits[rest], [draws[row] for row in rest.tolist()], vocabulary)
    return tokens


def _nucleus(values: Tensor, scaled: Tensor, draws: Sequence[Draw]) -> tuple[Tensor, Tensor]:
    """Say which candidates may be drawn (rows, candidates), and which rows have them all (rows,).

    A token is kept while the probability of the likelier ones is below top_p, so one always is.
    """
    count = values.shape[1]
    top_k = torch.tensor([draw.top_k or scaled.shape[1] for draw in draws], device=values.device)
    # The sum of all probabilities may round to 1 before the last of them, and no limit means none.
    top_p = _column([draw.top_p if draw.top_p < 1 else math.inf for draw in draws], values)
    within_k = torch.arange(count, device=values.device) < top_k[:, None]
    has_whole_k = top_k <= count
    normaliser = torch.where(
        has_whole_k, values.masked_fill(~within_k, -torch.inf).logsumexp(dim=-1), scaled.logsumexp(dim=-1)
    )
    probabilities = (values - normaliser[:, None]).exp().masked_fill(~within_k, 0.0)
    reached = probabilities.cumsum(dim=-1)
    kept = within_k & ((reached - probabilities < top_p) | (torch.arange(count, device=values.device) == 0))
    # Where top_k reaches beyond the candidates its normaliser is not known: such rows are sorted whole.
    asks_beyond = torch.tensor([draw.top_k > count for draw in draws], device=values.device)
    return kept, has_whole_k | (~asks_beyond & (reached[:, -1] >= top_p.squeeze(1)))


def _likeliest_with_noise(scaled: Tensor, token_ids: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Gumbel-max over the candidates of each row: (rows,) token ids."""
    seeds = torch.tensor([draw.seed for draw in draws], dtype=torch.int64, device=scaled.device)
    indexes = torch.tensor([draw.index for draw in draws], dtype=torch.int64, device=scaled.device)
    place = (scaled.double() + gumbel(seeds, indexes, token_ids)).argmax(dim=-1)
    return token_ids.gather(1, place[:, None]).squeeze(1)


def _column(numbers: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float32, device=like.device)[:, None]
