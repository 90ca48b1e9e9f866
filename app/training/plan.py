"""How many optimiser steps some data makes, and which number of pairs per step fits it (LLAMA2.md, C22)."""

import math
from collections.abc import Iterable

from contract.dataset import Manifest
from contract.recipe import Recipe
from contract.vocabulary import Objective, Split

# Warm-up takes at least 5 steps: with 20 it is a quarter of them, which is as short as a run should be.
_ENOUGH_STEPS = 20
_FEW_STEPS = 10


def training_pairs(manifests: Iterable[Manifest], objective: Objective) -> int:
    """How many training comparisons of an objective some datasets hold together."""
    return sum(
        counts.rows
        for manifest in manifests
        for counts in manifest.counts
        if counts.objective is objective and counts.split is Split.TRAIN
    )


def fitting_pairs_per_step(pairs: int, recipe: Recipe) -> int:
    """The recipe's pairs per step, or fewer where the data would make too few steps of them."""
    return min(recipe.pairs_per_step, max(1, pairs * recipe.epochs // _ENOUGH_STEPS))


def count_steps(pairs: int, recipe: Recipe) -> int:
    """How many optimiser steps a run takes, up to what packing whole conversations changes."""
    return math.ceil(pairs / recipe.pairs_per_step) * recipe.epochs


def step_note(pairs: int, recipe: Recipe) -> str:
    """What a person should know about the length of a run; empty where there is nothing to say."""
    steps = count_steps(pairs, recipe)
    paper = Recipe(objective=recipe.objective).pairs_per_step
    if steps < _FEW_STEPS:
        warmup = min(steps, max(recipe.warmup_min_steps, math.ceil(recipe.warmup_share * steps)))
        return (
            f"{pairs:,} training comparisons at {recipe.pairs_per_step} per step make only {steps} optimiser "
            f"step{'s' if steps != 1 else ''}, {warmup} of them warm-up. Fewer pairs per step would let it learn more."
        )
    if recipe.pairs_per_step < paper:
        return (
            f"{pairs:,} training comparisons are few: {recipe.pairs_per_step} per step make {steps} optimiser "
            f"steps; the paper's {paper} would make {math.ceil(pairs / paper) * recipe.epochs}."
        )
    return ""
