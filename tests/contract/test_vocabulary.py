"""The paper's numbers and words."""

import pytest

from contract.recipe import Recipe
from contract.vocabulary import MarginScheme, SafetyBin, Side, Strength, margin


@pytest.mark.parametrize(
    ("scheme", "margins"),
    [
        pytest.param(MarginScheme.NONE, [0, 0, 0, 0], id="none"),
        pytest.param(MarginScheme.SMALL, [1, 2 / 3, 1 / 3, 0], id="small"),
        pytest.param(MarginScheme.LARGE, [3, 2, 1, 0], id="large"),
    ],
)
def test_margins_are_table_27(scheme: MarginScheme, margins: list[float]) -> None:
    assert [margin(strength, scheme) for strength in Strength] == margins


def test_three_safety_bins_are_exported_and_the_fourth_is_not() -> None:
    bins = {
        (chosen, rejected): SafetyBin.of(chosen_safe=chosen, rejected_safe=rejected)
        for chosen in (True, False)
        for rejected in (True, False)
    }
    assert set(bins.values()) == set(SafetyBin)
    assert [pair for pair, safety_bin in bins.items() if not safety_bin.is_exported] == [(False, True)]


def test_sides_mirror() -> None:
    assert [side.other for side in Side] == [Side.B, Side.A]


def test_the_recipe_defaults_are_the_papers() -> None:
    recipe = Recipe(objective="helpfulness")  # type: ignore[arg-type]
    assert (recipe.epochs, recipe.learning_rate, recipe.pairs_per_step) == (1, 1e-5, 512)
    assert (recipe.adam_beta1, recipe.adam_beta2, recipe.adam_epsilon) == (0.9, 0.95, 1e-5)
    assert (recipe.weight_decay, recipe.max_grad_norm) == (0.1, 1.0)
    assert (recipe.min_learning_rate_ratio, recipe.warmup_share, recipe.warmup_min_steps) == (0.1, 0.03, 5)
