"""Decides which comparisons each optimiser step sees: a pure function of the data, the recipe and the seed."""

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from contract.recipe import Recipe
from model_worker.reward.schedule import warmup_steps

# How many conversations a step looks past to fill its last places before it splits one.
_LOOK_AHEAD = 64
# Below this the learning rate hardly leaves its warm-up (LLAMA2.md, C22).
_FEW_STEPS = 10


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One optimiser step: minibatches of indices into the comparisons, the longest first."""

    minibatches: tuple[tuple[int, ...], ...]

    @property
    def pairs(self) -> int:
        """How many comparisons the step has; its loss is the sum over them, divided by this."""
        return sum(len(minibatch) for minibatch in self.minibatches)


def plan_steps(conversations: Sequence[str], lengths: Sequence[int], recipe: Recipe) -> tuple[PlannedStep, ...]:
    """Plan all optimiser steps of all epochs.

    Conversations are shuffled by the recipe's seed. The comparisons of one land in one step wherever they fit,
    as InstructGPT did against over-fitting (section 3.5), and every step but an epoch's last has exactly
    `recipe.pairs_per_step` pairs.

    Args:
        conversations: The conversation of each comparison.
        lengths: Tokens of each comparison's longer response with its context; minibatches are made of equals.
        recipe: The training recipe.

    """
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for index, conversation in enumerate(conversations):
        groups[conversation].append(index)
    generator = torch.Generator().manual_seed(recipe.seed)
    steps: list[PlannedStep] = []
    for _ in range(recipe.epochs):
        order = torch.randperm(len(groups), generator=generator).tolist()
        members = list(groups.values())
        shuffled = [members[place] for place in order]
        steps.extend(
            PlannedStep(_minibatches(step, lengths, recipe.pairs_per_minibatch))
            for step in _fill_steps(shuffled, recipe.pairs_per_step)
        )
    return tuple(steps)


def step_warnings(total_steps: int, pairs: int, recipe: Recipe) -> tuple[str, ...]:
    """What a person should know about a run this short, in sentences."""
    if total_steps >= _FEW_STEPS:
        return ()
    warmup = min(total_steps, warmup_steps(total_steps, recipe))
    warning = (
        f"{pairs} training comparisons at {recipe.pairs_per_step} per step make only {total_steps} optimiser "
        f"step(s), {warmup} of them warm-up. Choose fewer pairs_per_step so that there are at least {_FEW_STEPS}."
    )
    return (warning,)


def _fill_steps(conversations: list[list[int]], pairs_per_step: int) -> list[list[int]]:
    """Deal whole conversations out to steps, in order; split one only where nothing near fits the last places."""
    pending = deque(conversations)
    steps: list[list[int]] = []
    while pending:
        step: list[int] = []
        passed: list[list[int]] = []
        while pending and len(step) < pairs_per_step and len(passed) < _LOOK_AHEAD:
            conversation = pending.popleft()
            if len(step) + len(conversation) <= pairs_per_step:
                step.extend(conversation)
            else:
                passed.append(conversation)
        room = pairs_per_step - len(step)
        if room and passed:
            step.extend(passed[0][:room])
            passed[0] = passed[0][room:]
        pending.extendleft(reversed(passed))
        steps.append(step)
    return steps


def _minibatches(step: list[int], lengths: Sequence[int], size: int) -> tuple[tuple[int, ...], ...]:
    """Cut a step into minibatches of like lengths; the longest comes first, so that too little memory shows at once."""
    by_length = sorted(step, key=lambda index: (-lengths[index], index))
    return tuple(tuple(by_length[start : start + size]) for start in range(0, len(by_length), size))
