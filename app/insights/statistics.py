"""Shares with their intervals, and what batch statistics are; pure functions over counts."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from contract.vocabulary import Objective, SafetyBin, Side, Strength

# The 97.5 % point of the normal distribution, for intervals at 95 %.
_Z = 1.959963984540054


@dataclass(frozen=True)
class Share:
    """How many of some things have a property, with the Wilson interval at 95 %."""

    count: int
    n: int

    @property
    def value(self) -> float | None:
        """The share; ``None`` where there is nothing to count."""
        return self.count / self.n if self.n else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The Wilson score interval, which stays between 0 and 1 for any count."""
        if not self.n:
            return None
        share, square = self.count / self.n, _Z * _Z
        middle = (share + square / (2 * self.n)) / (1 + square / self.n)
        half = _Z * math.sqrt(share * (1 - share) / self.n + square / (4 * self.n**2)) / (1 + square / self.n)
        return max(0.0, middle - half), min(1.0, middle + half)

    @property
    def is_even(self) -> bool:
        """Whether one half lies within the interval."""
        interval = self.interval
        return interval is None or interval[0] <= 0.5 <= interval[1]  # noqa: PLR2004 - one half is the question


@dataclass(frozen=True)
class Sizes:
    """How much text a batch holds: the columns of Llama 2's Table 26 that stored counts can fill.

    An example is the whole context with one response; each comparison has two, and both count.
    """

    comparisons: int
    conversations: int
    tokens_per_example: float | None
    tokens_per_response: float | None
    characters_per_prompt: float | None
    """Of the last user message only. Its tokens are not counted: workers count the whole context."""

    @property
    def turns_per_conversation(self) -> float | None:
        """Judged turns over conversations."""
        return self.comparisons / self.conversations if self.conversations else None


@dataclass(frozen=True)
class AnnotatorRow:
    """One annotator's work in a batch."""

    name: str
    annotations: int
    median_seconds: float | None
    side_a: Share
    skips: int


@dataclass(frozen=True)
class BatchWork:
    """How a batch's annotators work."""

    median_seconds: float | None
    skips: Mapping[str, int]
    """Skipped comparisons by reason."""
    annotators: tuple[AnnotatorRow, ...]


@dataclass(frozen=True)
class BatchStatistics:
    """What the annotations of one batch say."""

    sizes: Sizes
    strengths: Mapping[Objective, Mapping[Strength, int]]
    safety_bins: Mapping[SafetyBin, int]
    sides: Mapping[Side, int]
    lengths: "LengthCounts"

    @property
    def side_a(self) -> Share:
        """How often the response shown as A was chosen: one half, but for chance and habit."""
        return Share(self.sides[Side.A], sum(self.sides.values()))

    @property
    def longer_chosen(self) -> Share:
        """How often the longer of two responses of different length was chosen."""
        return Share(self.lengths.longer, self.lengths.longer + self.lengths.shorter)

    def strength_shares(self, objective: Objective | None = None) -> dict[Strength, Share]:
        """The shares of Llama 2's Figure 25, of one objective or of both together."""
        wanted = list(Objective) if objective is None else [objective]
        counts = {strength: sum(self.strengths[one][strength] for one in wanted) for strength in Strength}
        return {strength: Share(count, sum(counts.values())) for strength, count in counts.items()}

    def safety_shares(self) -> dict[SafetyBin, Share]:
        """The shares of the safety bins: 18, 47 and 35 % in Llama 2, which leaves the fourth one out."""
        n = sum(self.safety_bins.values())
        return {safety_bin: Share(count, n) for safety_bin, count in self.safety_bins.items()}


@dataclass(frozen=True)
class LengthCounts:
    """How often the chosen response was longer, shorter, or as long as the rejected one, in characters."""

    longer: int
    shorter: int
    equal: int
