"""Accuracy with its interval, by strength and safety bin, against simple baselines."""

import pytest

from contract.training import AccuracyCell
from contract.vocabulary import Side, Strength
from model_worker.reward.evaluate import accuracy_cell, report, wilson_interval
from tests.model_worker.reward.builders import make_comparison


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [(8, 10, 0.490162, 0.943318), (0, 10, 0.0, 0.277533), (10, 10, 0.722467, 1.0), (500, 1000, 0.469070, 0.530930)],
    ids=["8 of 10", "none", "all", "half of 1000"],
)
def test_wilson_interval_known_values(correct: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(correct, n) == pytest.approx((low, high), abs=1e-5)


def test_a_tie_is_wrong_and_counted() -> None:
    cell = accuracy_cell("all", [1.0, 0.0, -2.0, 3.0])
    assert (cell.n, cell.correct, cell.ties, cell.accuracy) == (4, 2, 1, 0.5)


def test_an_empty_cell_has_no_accuracy() -> None:
    assert accuracy_cell("all", []) == AccuracyCell(
        name="all", n=0, correct=0, ties=0, accuracy=None, low=None, high=None
    )


def test_a_constructed_report() -> None:
    comparisons = [
        make_comparison(0, strength=Strength.SIGNIFICANTLY_BETTER, chosen="long words", rejected="short"),
        make_comparison(1, strength=Strength.SIGNIFICANTLY_BETTER, chosen="same", rejected="size", chosen_side=Side.B),
        make_comparison(
            2, strength=Strength.BETTER, chosen="a", rejected="longer", chosen_safe=True, rejected_safe=True
        ),
        make_comparison(3, strength=None, chosen_side=None, chosen_safe=True, rejected_safe=False),
    ]
    evaluation = report(comparisons, [2.0, 0.0, -1.0, 1.0], dataset="week-1", kind="after_training")
    assert (evaluation.overall.n, evaluation.overall.correct, evaluation.overall.ties) == (4, 2, 1)
    assert [(cell.name, cell.n, cell.correct, cell.ties) for cell in evaluation.by_strength] == [
        ("significantly_better", 2, 1, 1),
        ("better", 1, 0, 0),
        ("slightly_better", 0, 0, 0),
        ("negligibly_better_or_unsure", 0, 0, 0),
    ]
    assert [(cell.name, cell.n, cell.correct) for cell in evaluation.by_safety_bin] == [
        ("chosen_safe_rejected_unsafe", 1, 1),
        ("both_safe", 1, 0),
    ]
    # "same" and "size" are equally long: a tie of this baseline.
    longer = evaluation.longer_wins
    assert (longer.n, longer.correct, longer.ties) == (4, 2, 1)
    assert (evaluation.a_wins.n, evaluation.a_wins.correct) == (3, 2)
    assert evaluation.mean_reward_gap == pytest.approx(0.5)


def test_a_report_on_nothing() -> None:
    evaluation = report([], [], dataset="week-1", kind="held_out")
    assert evaluation.overall.accuracy is None
    assert evaluation.mean_reward_gap is None
