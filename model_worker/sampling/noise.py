"""Gumbel noise that depends on (seed, token index, token id) alone, so that a draw is the same in any minibatch.

No generator state exists: a response can be drawn next to any other one, or resumed at any token, and
gets the same noise. The hash is computed in int64, whose multiplication wraps as that of uint64 does.
"""

from typing import Final

import torch
from torch import Tensor

from model_worker.sampling.seeds import FIRST_MULTIPLIER, GOLDEN_GAMMA, SECOND_MULTIPLIER

_MANTISSA_BITS: Final = 53
_LARGEST: Final = 1 - 2.0**-_MANTISSA_BITS


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


_GAMMA: Final = _signed(GOLDEN_GAMMA)
_FIRST: Final = _signed(FIRST_MULTIPLIER)
_SECOND: Final = _signed(SECOND_MULTIPLIER)


def _shift_right(bits: Tensor, places: int) -> Tensor:
    """Shift in zeros, as for an unsigned integer; torch's own shift copies the sign."""
    return (bits >> places) & ((1 << (64 - places)) - 1)


def splitmix64(values: Tensor) -> Tensor:
    """Hash int64 values of any shape; bit for bit the same as :func:`model_worker.sampling.seeds.splitmix64`."""
    mixed = values + _GAMMA
    mixed = (mixed ^ _shift_right(mixed, 30)) * _FIRST
    mixed = (mixed ^ _shift_right(mixed, 27)) * _SECOND
    return mixed ^ _shift_right(mixed, 31)


def uniform(seeds: Tensor, indexes: Tensor, token_ids: Tensor) -> Tensor:
    """Numbers strictly between 0 and 1, as float64 (rows, candidates).

    Args:
        seeds: int64 (rows,), the seed of each response.
        indexes: int64 (rows,), which token of its response each row is about to draw; counts from 0.
        token_ids: int64 (rows, candidates).

    """
    keys = splitmix64(splitmix64(seeds) ^ (indexes * _GAMMA))
    bits = _shift_right(splitmix64(keys[:, None] ^ token_ids), 64 - _MANTISSA_BITS)
    # The largest of all would round to 1, whose noise is infinite and could draw a token that no limit allows.
    return ((bits.to(torch.float64) + 0.5) * 2.0**-_MANTISSA_BITS).clamp(max=_LARGEST)


def gumbel(seeds: Tensor, indexes: Tensor, token_ids: Tensor) -> Tensor:
    """Standard Gumbel noise, float64 (rows, candidates): argmax(log p + noise) is a draw from p.

    Shapes are those of :func:`uniform`. Gumbel-max tolerates the rounding of bf16 logits better than an
    inverse CDF does (SAMPLING.md, section 3.3).
    """
    return -torch.log(-torch.log(uniform(seeds, indexes, token_ids)))
