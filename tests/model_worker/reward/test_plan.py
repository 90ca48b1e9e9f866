"""The epoch plan: every pair once, conversations together, steps of the right size."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from contract.recipe import Recipe
from contract.vocabulary import Objective
from model_worker.reward.plan import PlannedStep, plan_steps, step_warnings


def recipe(pairs_per_step: int = 8, **changes: int) -> Recipe:
    return Recipe(objective=Objective.HELPFULNESS, pairs_per_step=pairs_per_step, **changes)


def members(step: PlannedStep) -> list[int]:
    return [index for minibatch in step.minibatches for index in minibatch]


@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=40),
    pairs_per_step=st.integers(1, 16),
    seed=st.integers(0, 3),
)
def test_every_comparison_is_in_one_step_and_all_steps_but_the_last_are_full(
    sizes: list[int], pairs_per_step: int, seed: int
) -> None:
    conversations = [f"conversation {number}" for number, size in enumerate(sizes) for _ in range(size)]
    steps = plan_steps(
        conversations, range(len(conversations)), recipe(pairs_per_step, seed=seed, pairs_per_minibatch=3)
    )
    assert sorted(index for step in steps for index in members(step)) == list(range(len(conversations)))
    assert [step.pairs for step in steps[:-1]] == [pairs_per_step] * (len(steps) - 1)
    assert all(len(minibatch) <= 3 for step in steps for minibatch in step.minibatches)


def test_conversations_stay_together_where_they_fit() -> None:
    conversations = [f"conversation {number}" for number in range(60) for _ in range(1 + number % 4)]
    steps = plan_steps(conversations, [1] * len(conversations), recipe(16))
    spread = Counter(conversation for step in steps for conversation in {conversations[i] for i in members(step)})
    assert sum(count > 1 for count in spread.values()) <= 1


def test_minibatches_hold_like_lengths_the_longest_first() -> None:
    lengths = [5, 90, 7, 80, 6, 85, 8, 95]
    (step,) = plan_steps([str(i) for i in range(8)], lengths, recipe(8, pairs_per_minibatch=4))
    assert [sorted(lengths[i] for i in minibatch) for minibatch in step.minibatches] == [[80, 85, 90, 95], [5, 6, 7, 8]]


def test_the_seed_decides_the_order_and_each_epoch_has_its_own() -> None:
    conversations, lengths = [str(i) for i in range(40)], [1] * 40
    once = plan_steps(conversations, lengths, recipe(seed=1))
    assert plan_steps(conversations, lengths, recipe(seed=1)) == once
    assert plan_steps(conversations, lengths, recipe(seed=2)) != once
    twice = plan_steps(conversations, lengths, recipe(seed=1, epochs=2))
    assert twice[: len(once)] == once
    assert twice[len(once) :] != once


def test_few_pairs_make_one_short_step_and_a_warning() -> None:
    steps = plan_steps(["a", "b", "c"], [1, 1, 1], recipe(512))
    assert [step.pairs for step in steps] == [3]
    (warning,) = step_warnings(1, 3, recipe(512))
    assert "only 1 optimiser step(s), 1 of them warm-up" in warning
    assert step_warnings(10, 80, recipe(8)) == ()
