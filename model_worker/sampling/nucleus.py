"""Draws the next token of many responses at once, each with its own temperature, top_p, top_k and seed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

import torch
from torch import Tensor

from model_worker.sampling.noise import gumbel

# A sort of the whole vocabulary would cost more than a small model's forward pass (SAMPLING.md, section 3.2). The
# likeliest 256 nearly always hold the nucleus, and the likeliest 4,096 hold even most flat ones; the vocabulary is
# sorted whole for what remains.
CANDIDATES: Final = (256, 4096)


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


@dataclass(frozen=True, slots=True)
class Drawn:
    """The next token of each row, on the device."""

    tokens: Tensor
    """int64 (rows,)."""
    logprobs: Tensor
    """float32 (rows,), before temperature and limits."""
    is_exact: Tensor
    """bool (rows,): whether the candidates held all tokens that may be drawn. Where not, more must be looked at."""

    def to_host(self) -> tuple[list[int], list[float], list[bool]]:
        """Wait for the device, once."""
        # A double holds every token id.
        tokens, logprobs, is_exact = torch.stack(
            [self.tokens.double(), self.logprobs.double(), self.is_exact.double()]
        ).tolist()
        return [int(token) for token in tokens], logprobs, [bool(exact) for exact in is_exact]


@dataclass(frozen=True, slots=True)
class _Limited:
    """Rows of one kind, as tensors: those with a limit, or those that may draw any token."""

    rows: Tensor
    """int64 (rows of this kind,), places in the minibatch."""
    temperature: Tensor
    """float32 (rows, 1)."""
    top_p: Tensor
    """float32 (rows, 1), infinite for no limit: the sum of all probabilities may round to 1 before the last."""
    top_k: Tensor
    """int64 (rows, 1), 2^62 for no limit."""
    seeds: Tensor
    """int64 (rows,)."""

    @classmethod
    def of(cls, rows: Sequence[int], draws: Sequence[Draw], device: torch.device) -> Self:
        chosen = [draws[row] for row in rows]
        top_p = [draw.top_p if draw.top_p < 1 else math.inf for draw in chosen]
        return cls(
            rows=torch.tensor(rows, dtype=torch.int64, device=device),
            temperature=torch.tensor([draw.temperature for draw in chosen], dtype=torch.float32, device=device)[
                :, None
            ],
            top_p=torch.tensor(top_p, dtype=torch.float32, device=device)[:, None],
            top_k=torch.tensor([draw.top_k or 2**62 for draw in chosen], dtype=torch.int64, device=device)[:, None],
            seeds=torch.tensor([draw.seed for draw in chosen], dtype=torch.int64, device=device),
        )


class DrawPlan:
    """How some rows draw, as tensors that are made once and serve until the rows change."""

    def __init__(self, draws: Sequence[Draw], *, device: torch.device, candidates: Sequence[int] = CANDIDATES) -> None:
        """Make the tensors.

        Args:
            draws: One for each row, in order.
            device: Where the logits will be.
            candidates: How many of the likeliest tokens are looked at; each next number where the one before it did
                not do, and the whole vocabulary in the end.

        """
        self._draws = list(draws)
        self._device = device
        self._candidates = list(candidates)
        self._steps = 0
        self._indexes = torch.tensor([draw.index for draw in draws], dtype=torch.int64, device=device)
        unlimited = [row for row, draw in enumerate(draws) if draw.temperature > 0 and not _is_limited(draw)]
        limited = [row for row, draw in enumerate(draws) if draw.temperature > 0 and _is_limited(draw)]
        self._unlimited = _Limited.of(unlimited, draws, device) if unlimited else None
        self._limited = _Limited.of(limited, draws, device) if limited else None

    def draw(self, logits: Tensor) -> tuple[Tensor, list[int], list[float]]:
        """Draw one token for each row, and wait for it.

        Limits apply as in transformers: temperature, then top_k, then top_p over what top_k left.

        Args:
            logits: (rows, vocabulary), any floating type.

        Returns:
            Token ids, int64 (rows,) on the device; the same on the host; and the log-probabilities of the tokens
            before temperature and limits.

        """
        logits = logits.float()
        drawn = self.launch(logits)
        tokens, logprobs, is_exact = drawn.to_host()
        if all(is_exact):
            return drawn.tokens, tokens, logprobs
        # As long as these rows stay together, what was too few for one of them is not tried again.
        self._candidates = self._candidates[1:]
        rest = [row for row, exact in enumerate(is_exact) if not exact]
        again = [replace(self._draws[row], index=self._draws[row].index + self._steps) for row in rest]
        rest_plan = DrawPlan(again, device=self._device, candidates=self._candidates)
        device_tokens, rest_tokens, rest_logprobs = rest_plan.draw(logits[rest])
        drawn.tokens[rest] = device_tokens
        for row, token, logprob in zip(rest, rest_tokens, rest_logprobs, strict=True):
            tokens[row], logprobs[row] = token, logprob
        return drawn.tokens, tokens, logprobs

    def launch(self, logits: Tensor) -> Drawn:
        """Draw from float32 logits (rows, vocabulary) without waiting for the device."""
        tokens = logits.argmax(dim=-1)
        is_exact = torch.ones_like(tokens, dtype=torch.bool)
        if self._unlimited is not None:
            kind = self._unlimited
            tokens.index_copy_(
                0, kind.rows, _draw_unlimited(self._of(logits, kind), kind, self._of(self._indexes, kind))
            )
        if self._limited is not None:
            kind = self._limited
            count = min([*self._candidates[:1], logits.shape[1]])
            drawn, exact = _draw_limited(self._of(logits, kind), kind, self._of(self._indexes, kind), count)
            tokens.index_copy_(0, kind.rows, drawn)
            is_exact.index_copy_(0, kind.rows, exact)
        logprobs = logits.gather(1, tokens[:, None]).squeeze(1) - logits.logsumexp(dim=-1)
        return Drawn(tokens, logprobs, is_exact)

    def advance(self) -> None:
        """Go on to the next token of every row."""
        self._steps += 1
        self._indexes += 1

    def _of(self, values: Tensor, kind: _Limited) -> Tensor:
        """The rows of one kind; most minibatches have only one."""
        return values if len(kind.rows) == len(self._draws) else values.index_select(0, kind.rows)


def draw_tokens(
    logits: Tensor, draws: Sequence[Draw], *, candidates: Sequence[int] = CANDIDATES
) -> tuple[Tensor, Tensor]:
    """Draw one token for each row of (rows, vocabulary) logits.

    Returns:
        Token ids, int64 (rows,), and their log-probabilities before temperature and limits, float32 (rows,).

    """
    tokens, _, logprobs = DrawPlan(draws, device=logits.device, candidates=candidates).draw(logits)
    return tokens, torch.tensor(logprobs, dtype=torch.float32, device=logits.device)


def _is_limited(draw: Draw) -> bool:
    return draw.top_p < 1 or draw.top_k > 0


def _draw_unlimited(logits: Tensor, kind: _Limited, indexes: Tensor) -> Tensor:
    every_token = torch.arange(logits.shape[1], device=logits.device).expand(logits.shape)
    return _likeliest_with_noise(logits / kind.temperature, every_token, kind.seeds, indexes)


def _draw_limited(logits: Tensor, kind: _Limited, indexes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Token ids (rows,), and whether the ``count`` likeliest were enough to know them (rows,)."""
    scaled = logits / kind.temperature
    values, token_ids = scaled.topk(count, dim=-1)  # both (rows, count), descending
    kept, is_exact = _nucleus(values, scaled, kind.top_p, kind.top_k)
    return _likeliest_with_noise(values.masked_fill(~kept, -torch.inf), token_ids, kind.seeds, indexes), is_exact


def _nucleus(values: Tensor, scaled: Tensor, top_p: Tensor, top_k: Tensor) -> tuple[Tensor, Tensor]:
    """Say which candidates may be drawn (rows, candidates), and which rows have them all (rows,).

    A token is kept while the probability of the likelier ones is below top_p, so one always is.
    """
    count = values.shape[1]
    places = torch.arange(count, device=values.device)
    is_whole = count == scaled.shape[1]
    within_k = places < top_k
    has_whole_k = (top_k <= count).squeeze(1)
    normaliser = torch.where(
        has_whole_k, values.masked_fill(~within_k, -torch.inf).logsumexp(dim=-1), scaled.logsumexp(dim=-1)
    )
    probabilities = (values - normaliser[:, None]).exp().masked_fill(~within_k, 0.0)
    reached = probabilities.cumsum(dim=-1)
    kept = within_k & ((reached - probabilities < top_p) | (places == 0))
    if is_whole:
        return kept, torch.ones_like(has_whole_k)
    # Where top_k reaches beyond the candidates its normaliser is not known: more must be looked at.
    asks_beyond = (top_k.squeeze(1) > count) & (top_k.squeeze(1) < scaled.shape[1])
    return kept, has_whole_k | (~asks_beyond & (reached[:, -1] >= top_p.squeeze(1)))


def _likeliest_with_noise(scaled: Tensor, token_ids: Tensor, seeds: Tensor, indexes: Tensor) -> Tensor:
    """Gumbel-max over the candidates of each row: (rows,) token ids."""
    place = (scaled.double() + gumbel(seeds, indexes, token_ids)).argmax(dim=-1)
    return token_ids.gather(1, place[:, None]).squeeze(1)
