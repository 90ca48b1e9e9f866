"""Evaluates a reward model on held-out comparisons (Llama 2, Tables 8 and 29)."""

import math
from collections.abc import Iterable, Sequence
from typing import Literal

from contract.training import AccuracyCell, EvaluationReport
from contract.vocabulary import SafetyBin, Side, Split, Strength
from model_worker.reward.data import Comparison
from model_worker.reward.encoding import EncodedComparisons
from model_worker.reward.model import RewardModel
from model_worker.reward.score import rewards_of

# The normal quantile of a two-sided 95 % interval.
_Z_95 = 1.959963984540054


def evaluate(
    model: RewardModel,
    held_out: EncodedComparisons,
    *,
    dataset: str,
    kind: Literal["before_training", "after_training", "held_out"],
    pairs_per_minibatch: int,
) -> EvaluationReport:
    """Score both sides of every held-out comparison, each without the other, and report how many are in order."""
    sequences = [side for pair in held_out.encoded for side in (pair.chosen, pair.rejected)]
    rewards = rewards_of(model, sequences, rows_per_minibatch=2 * pairs_per_minibatch)
    gaps = [chosen - rejected for chosen, rejected in zip(rewards[::2], rewards[1::2], strict=True)]
    return report(held_out.comparisons, gaps, dataset=dataset, kind=kind)


def report(
    comparisons: Sequence[Comparison],
    gaps: Sequence[float],
    *,
    dataset: str,
    kind: Literal["before_training", "after_training", "held_out"],
    split: Split = Split.TEST,
) -> EvaluationReport:
    """Make the report from the reward gaps r(chosen) - r(rejected) of the comparisons, in their order.

    A gap of exactly 0 is a tie: it counts as wrong, and is counted. Baselines are treated alike. A comparison
    without a strength, safety labels or side is left out of those cells alone.
    """
    verdicts = [math.copysign(1, gap) if gap else 0.0 for gap in gaps]
    strengths = [comparison.strength for comparison in comparisons]
    bins = [_safety_bin(comparison) for comparison in comparisons]

    def cell(name: str, labels: Sequence[str | None]) -> AccuracyCell:
        return accuracy_cell(name, [verdict for verdict, label in zip(verdicts, labels, strict=True) if label == name])

    return EvaluationReport(
        dataset=dataset,
        split=split,
        kind=kind,
        overall=accuracy_cell("all", verdicts),
        by_strength=tuple(cell(strength.value, strengths) for strength in Strength),
        by_safety_bin=tuple(cell(safety_bin.value, bins) for safety_bin in SafetyBin if safety_bin in bins),
        longer_wins=accuracy_cell(
            "longer_wins", [float(len(comparison.chosen) - len(comparison.rejected)) for comparison in comparisons]
        ),
        a_wins=accuracy_cell(
            "a_wins",
            [
                1.0 if comparison.chosen_side is Side.A else -1.0
                for comparison in comparisons
                if comparison.chosen_side is not None
            ],
        ),
        mean_reward_gap=math.fsum(gaps) / len(gaps) if gaps else None,
    )


def accuracy_cell(name: str, verdicts: Iterable[float]) -> AccuracyCell:
    """Count verdicts: positive is right, negative is wrong, 0 is a tie and so wrong."""
    signs = list(verdicts)
    correct = sum(sign > 0 for sign in signs)
    low, high = wilson_interval(correct, len(signs)) if signs else (None, None)
    return AccuracyCell(
        name=name,
        n=len(signs),
        correct=correct,
        ties=sum(sign == 0 for sign in signs),
        accuracy=correct / len(signs) if signs else None,
        low=low,
        high=high,
    )


def wilson_interval(correct: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927): it stays within 0 and 1 and is honest for few comparisons.

    (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n), with p = correct / n.
    """
    share = correct / n
    denominator = 1 + _Z_95**2 / n
    middle = (share + _Z_95**2 / (2 * n)) / denominator
    half = _Z_95 * math.sqrt(share * (1 - share) / n + _Z_95**2 / (4 * n * n)) / denominator
    return max(0.0, middle - half), min(1.0, middle + half)


def _safety_bin(comparison: Comparison) -> SafetyBin | None:
    if comparison.chosen_safe is None or comparison.rejected_safe is None:
        return None
    return SafetyBin.of(chosen_safe=comparison.chosen_safe, rejected_safe=comparison.rejected_safe)
