"""Shares with their intervals, and what batch statistics are; pure functions over counts."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from uuid import UUID

from contract.vocabulary import Generation, Objective, SafetyBin, Side, Strength

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
    median_seconds: float | None
    side_a: Share
    skips: int

    @property
    def annotations(self) -> int:
        """How many comparisons they judged."""
        return self.side_a.n


@dataclass(frozen=True)
class BatchWork:
    """How a batch's annotators work."""

    median_seconds: float | None
    skips: Mapping[str, int]
    """Skipped comparisons by reason."""
    annotators: tuple[AnnotatorRow, ...]


@dataclass(frozen=True)
class Judgements:
    """How many annotations are alike in everything that the statistics tell apart."""

    annotator_id: UUID | None
    """``None`` where the annotations of all annotators are counted together."""
    is_primary: bool
    """Only primary annotations are rows of a dataset; the others count for their annotator."""
    objective: Objective
    strength: Strength
    chosen_safe: bool | None
    rejected_safe: bool | None
    side: Side
    """Where the chosen response stood."""
    length: int
    """1 where the chosen response is the longer one, -1 where it is the shorter one, 0 where both are as long."""
    generation: Generation | None
    """Of the checkpoint that made the chosen response; ``None`` where the same one made both."""
    count: int


@dataclass(frozen=True)
class BatchStatistics:
    """What the annotations of one batch say."""

    sizes: Sizes
    judgements: tuple[Judgements, ...]
    """The primary annotations."""

    @property
    def side_a(self) -> Share:
        """How often the response shown as A was chosen: one half, but for chance and habit."""
        return _share(self.judgements, lambda one: one.side is Side.A)

    @property
    def longer_chosen(self) -> Share:
        """How often the longer of two responses of different length, in characters, was chosen."""
        return _share([one for one in self.judgements if one.length], lambda one: one.length > 0)

    def newest_chosen(self, strength: Strength | None = None) -> Share:
        """How often the newest checkpoint's response was chosen over the previous one's, at a strength or at any."""
        contests = [one for one in self.judgements if one.generation is not None and strength in {None, one.strength}]
        return _share(contests, lambda one: one.generation is Generation.NEWEST)

    def strength_shares(self, objective: Objective | None = None) -> dict[Strength, Share]:
        """The shares of Llama 2's Figure 25, of one objective or of both together."""
        wanted = [one for one in self.judgements if objective in {None, one.objective}]
        counts = dict.fromkeys(Strength, 0)
        for one in wanted:
            counts[one.strength] += one.count
        return {strength: Share(count, sum(counts.values())) for strength, count in counts.items()}

    def safety_shares(self) -> dict[SafetyBin, Share]:
        """The shares of the safety bins: 18, 47 and 35 % in Llama 2, which leaves the fourth one out."""
        counts = dict.fromkeys(SafetyBin, 0)
        for one in self.judgements:
            if one.chosen_safe is not None and one.rejected_safe is not None:
                counts[SafetyBin.of(chosen_safe=one.chosen_safe, rejected_safe=one.rejected_safe)] += one.count
        return {safety_bin: Share(count, sum(counts.values())) for safety_bin, count in counts.items()}


def side_a_by_annotator(judgements: Iterable[Judgements]) -> dict[UUID, Share]:
    """How often each annotator chose the response shown as A."""
    by_annotator: dict[UUID, list[Judgements]] = defaultdict(list)
    for one in judgements:
        if one.annotator_id is not None:
            by_annotator[one.annotator_id].append(one)
    return {
        annotator_id: _share(theirs, lambda one: one.side is Side.A) for annotator_id, theirs in by_annotator.items()
    }


def together(judgements: Iterable[Judgements]) -> tuple[Judgements, ...]:
    """The same counts, over all annotators."""
    counts: dict[Judgements, int] = defaultdict(int)
    for one in judgements:
        counts[replace(one, annotator_id=None, count=0)] += one.count
    return tuple(replace(one, count=count) for one, count in counts.items())


def _share(judgements: Iterable[Judgements], has_property: Callable[[Judgements], bool]) -> Share:
    judgements = list(judgements)
    return Share(
        count=sum(one.count for one in judgements if has_property(one)), n=sum(one.count for one in judgements)
    )
