"""The hidden preference of simulated annotators: a known utility over a response's text, plus noise.

It is not about quality. It is a rule that anybody can compute, that has nothing to do with length, that works on
any text (the random words of the tiny checkpoint included), and that a small reward model can learn from tokens.
So a test can say how much of it a reward model has learned, and compare that with the best possible.

**Utility.** With n words, u = (sum of word scores) / sqrt(n) + 0.3 [ends properly] + 0.3 [answers in steps].
A word scores +1 if its first letter is in a..m and -1 if it is in n..z; in running English that is about half and
half, so u is near 0 with standard deviation 1 whatever the length. ``drift`` turns the score towards the *last*
letter: cos(t) first + sin(t) last with t = drift * 90 degrees, so that 0 is the documented preference, 1 is one
that has little to do with it, and 2 is its opposite. For the safety objective a safe response gains 3.

**Choice.** Each annotator perceives u + noise * g of each response, with g a draw from the standard Gumbel
distribution, and chooses the larger one: exactly the Bradley-Terry model, P(a) = sigmoid((u_a - u_b) / noise).
``a_bias`` adds to its argument, so two equal responses get choice A with probability sigmoid(a_bias).

**Strength.** From the size of the perceived difference, in units of its standard deviation over typical pairs
(sqrt(2 + noise^2 pi^2 / 3)). The thresholds are normal quantiles that give 15 % significantly better, 25 % better,
30 % slightly better and 30 % negligibly better or unsure, between the first and the last batch of Llama 2's
Figure 25.

**Safety.** A response is unsafe if it has one of the ``UNSAFE_WORDS`` and none of the ``CAUTIOUS_WORDS``.

The Gumbel draws are keyed by seed, annotator, prompt and text, not by a generator's state. So the same annotator
judges the same pair in the same way whatever happened before, and swapping A and B mirrors the judgement.
"""

import math
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from contract.vocabulary import Objective, Side, Strength

UNSAFE_WORDS: Final = frozenset(
    [
        "sure",
        "just",
        "nobody",
        "everybody",
        "everyone",
        "easy",
        "fun",
        "worst",
        "mean",
        "quick",
        "exciting",
        "fine",
        "bird",
    ]
)
CAUTIOUS_WORDS: Final = frozenset(["cannot", "sorry", "please", "doctor", "honest", "law", "safe", "danger", "private"])

_WORD: Final = re.compile(r"[A-Za-z]+")
_STEP: Final = re.compile(r"^\s*(?:\d+[.)]|[-*])\s", re.MULTILINE)
_LAST_OF_FIRST_HALF: Final = "m"
_ENDS_PROPERLY: Final = (".", "!", "?", '."', '!"', '?"')
_FORM_BONUS: Final = 0.3
_SAFE_BONUS: Final = 3.0
_UTILITY_VARIANCE: Final = 1.0
# Normal quantiles: |z| is below them with probability 0.30, 0.60 and 0.85.
_THRESHOLDS: Final = (
    (1.440, Strength.SIGNIFICANTLY_BETTER),
    (0.842, Strength.BETTER),
    (0.385, Strength.SLIGHTLY_BETTER),
)


@dataclass(frozen=True)
class Taste:
    """What an annotator prefers, and how reliably."""

    noise: float = 1.0
    """The temperature of the Bradley-Terry choice; 0 always chooses the response with the higher utility."""
    drift: float = 0.0
    """How far the preference has turned away from the documented one; 1 is a quarter turn."""
    a_bias: float = 0.0
    """Preference for side A whatever stands there, in logits."""


@dataclass(frozen=True)
class Pair:
    """What an annotator sees: a prompt and the texts of both sides."""

    prompt: str
    a: str
    b: str


@dataclass(frozen=True)
class Judgement:
    """What an annotator says about a pair."""

    choice: Side
    strength: Strength
    a_is_safe: bool
    b_is_safe: bool

    @property
    def is_chosen_unsafe_only(self) -> bool:
        """Whether the chosen response is unsafe and the other one is not; the app asks to confirm that."""
        chosen, rejected = (
            (self.a_is_safe, self.b_is_safe) if self.choice is Side.A else (self.b_is_safe, self.a_is_safe)
        )
        return rejected and not chosen


def utility(text: str, *, drift: float = 0.0) -> float:
    """How much the documented preference likes a text; 0 for one without words."""
    words = _words(text)
    if not words:
        return 0.0
    angle = drift * math.pi / 2
    first = sum(_letter_score(word[0]) for word in words) / math.sqrt(len(words))
    last = sum(_letter_score(word[-1]) for word in words) / math.sqrt(len(words))
    form = text.rstrip().endswith(_ENDS_PROPERLY) + bool(_STEP.search(text))
    return math.cos(angle) * first + math.sin(angle) * last + _FORM_BONUS * form


def is_safe(text: str) -> bool:
    """The documented word rule of the safety label."""
    words = set(_words(text))
    return bool(words & CAUTIOUS_WORDS) or not words & UNSAFE_WORDS


def utility_gap(pair: Pair, objective: Objective, *, drift: float = 0.0) -> float:
    """By how much the utility of side A is above that of side B."""
    gap = utility(pair.a, drift=drift) - utility(pair.b, drift=drift)
    if objective is Objective.SAFETY:
        gap += _SAFE_BONUS * (is_safe(pair.a) - is_safe(pair.b))
    return gap


def judge(pair: Pair, objective: Objective, taste: Taste, *, key: str) -> Judgement:
    """Judge a pair as the annotator that ``key`` names: always in the same way, and mirrored if the sides are."""
    difference = utility_gap(pair, objective, drift=taste.drift)
    difference += taste.noise * (_gumbel(key, pair.prompt, pair.a) - _gumbel(key, pair.prompt, pair.b))
    difference += taste.noise * taste.a_bias
    return Judgement(
        choice=Side.A if difference >= 0 else Side.B,
        strength=strength_of(difference, noise=taste.noise),
        a_is_safe=is_safe(pair.a),
        b_is_safe=is_safe(pair.b),
    )


def strength_of(difference: float, *, noise: float) -> Strength:
    """The strength of a perceived difference in utility."""
    # Two utilities of variance 1, and the difference of two Gumbel draws, which is logistic with variance pi^2 / 3.
    deviation = math.sqrt(2 * _UTILITY_VARIANCE + noise**2 * math.pi**2 / 3)
    size = abs(difference) / deviation
    return next(
        (strength for threshold, strength in _THRESHOLDS if size >= threshold), Strength.NEGLIGIBLY_BETTER_OR_UNSURE
    )


def expected_accuracy(gaps: Iterable[float], *, noise: float) -> float:
    """How often the response of higher utility is chosen, on average over some utility gaps.

    Whoever knows the utility exactly agrees with the choices that often and nobody agrees with them more often,
    so this is the ceiling of a reward model's accuracy: the mean of sigmoid(|gap| / noise). It is 0.5 where there
    is nothing to average, and 1 without noise.
    """
    shares = [_sigmoid(abs(gap) / noise) if noise else 1.0 for gap in gaps]
    return sum(shares) / len(shares) if shares else 0.5


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]


def _letter_score(letter: str) -> int:
    return 1 if letter <= _LAST_OF_FIRST_HALF else -1


def _gumbel(*key: str) -> float:
    """A draw from the standard Gumbel distribution that depends on the key alone."""
    # Not for secrets: simulated noise must be the same in every run.
    share = random.Random("\0".join(key)).random()  # noqa: S311
    return -math.log(-math.log(min(max(share, 1e-12), 1 - 1e-12)))


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))
