"""The learning-rate schedule (Llama 2, section 3.2.2)."""

import math

from contract.recipe import Recipe


def warmup_steps(total_steps: int, recipe: Recipe) -> int:
    """How many steps warm up: 3 % of them, at least 5, as the recipe says it."""
    return max(recipe.warmup_min_steps, math.ceil(recipe.warmup_share * total_steps))


def learning_rate_factor(step: int, total_steps: int, recipe: Recipe) -> float:
    """The share of the largest learning rate that optimiser step `step` (from 0) works with.

    Linear warm-up, then a cosine that arrives at `recipe.min_learning_rate_ratio` in the last step. The first
    step already learns: transformers' own warm-up starts at 0, which wastes a step of a small weekly batch.
    """
    warmup = warmup_steps(total_steps, recipe)
    if step < warmup:
        return (step + 1) / warmup
    lowest = recipe.min_learning_rate_ratio
    progress = min(1.0, (step - warmup + 1) / max(1, total_steps - warmup))
    return lowest + (1 - lowest) * (1 + math.cos(math.pi * progress)) / 2
