"""The learning rate: warm-up, cosine, and where it ends."""

import itertools

import pytest

from contract.recipe import Recipe
from contract.vocabulary import Objective
from model_worker.reward.schedule import learning_rate_factor, warmup_steps

RECIPE = Recipe(objective=Objective.HELPFULNESS)


def test_warm_up_is_three_percent_and_at_least_five_steps() -> None:
    assert [warmup_steps(total, RECIPE) for total in (1, 100, 167, 1000)] == [5, 5, 6, 30]


def test_the_rate_rises_from_the_first_step_and_ends_at_ten_percent() -> None:
    factors = [learning_rate_factor(step, 100, RECIPE) for step in range(100)]
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert all(earlier > later for earlier, later in itertools.pairwise(factors[4:]))
    assert factors[-1] == pytest.approx(0.1)
    assert learning_rate_factor(52, 100, RECIPE) == pytest.approx(0.55, abs=0.01)  # Half way down the cosine.


def test_a_run_shorter_than_its_warm_up_only_warms_up() -> None:
    assert [learning_rate_factor(step, 3, RECIPE) for step in range(3)] == pytest.approx([0.2, 0.4, 0.6])
