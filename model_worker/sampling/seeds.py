"""The integer half of the random numbers: splitmix64, and the seed of a response that is drawn again."""

from typing import Final

GOLDEN_GAMMA: Final = 0x9E3779B97F4A7C15
FIRST_MULTIPLIER: Final = 0xBF58476D1CE4E5B9
SECOND_MULTIPLIER: Final = 0x94D049BB133111EB
_MASK: Final = 2**64 - 1
_SEED_MASK: Final = 2**63 - 1


def splitmix64(value: int) -> int:
    """One step of splitmix64 (Steele, Lea and Flood, 2014): a hash of 64 bits whose outputs look independent."""
    mixed = (value + GOLDEN_GAMMA) & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * FIRST_MULTIPLIER) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * SECOND_MULTIPLIER) & _MASK
    return mixed ^ (mixed >> 31)


def redraw_seed(seed: int, redraw: int) -> int:
    """The seed of the ``redraw``-th new draw (1, 2, ...) of a response that was asked for with ``seed``."""
    return splitmix64(splitmix64(seed) ^ (redraw * GOLDEN_GAMMA & _MASK)) & _SEED_MASK
