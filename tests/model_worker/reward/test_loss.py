"""The ranking loss with margin and the auxiliary safety loss, against numbers by hand."""

import math

import pytest
import torch

from contract.vocabulary import MarginScheme, Strength, margin
from model_worker.reward.loss import pair_loss, ranking_loss, safety_loss

NAN = float("nan")


def test_ranking_loss_is_equation_2_by_hand() -> None:
    losses = ranking_loss(torch.tensor([2.0, 0.5]), torch.tensor([1.0, 1.0]), torch.tensor([1 / 3, 0.0]))
    # -log(1 / (1 + e^-(2 - 1 - 1/3))) and -log(1 / (1 + e^0.5)).
    assert losses.tolist() == pytest.approx([0.414370, 0.974077], abs=1e-6)


def test_no_margin_is_equation_1() -> None:
    chosen, rejected = torch.randn(2, 5)
    margins = torch.tensor([margin(strength, MarginScheme.NONE) for strength in [*Strength, Strength.BETTER]])
    expected = -torch.log(torch.sigmoid(chosen - rejected))
    torch.testing.assert_close(ranking_loss(chosen, rejected, margins), expected)


def test_swapping_the_sides_mirrors_the_loss_and_its_gradient() -> None:
    rewards = torch.randn(2, 4, requires_grad=True)
    none = torch.zeros(4)
    there = ranking_loss(rewards[0], rewards[1], none)
    back = ranking_loss(rewards[1], rewards[0], none)
    # -log sigma(-x) = x - log sigma(x)
    torch.testing.assert_close(back, there + (rewards[0] - rewards[1]))
    (gradient,) = torch.autograd.grad(there.sum(), rewards)
    torch.testing.assert_close(gradient[0], -gradient[1])


def test_ranking_loss_stays_finite_for_huge_gaps() -> None:
    losses = ranking_loss(torch.tensor([1e4, -1e4]), torch.tensor([0.0, 0.0]), torch.zeros(2))
    assert losses.tolist() == [0.0, 1e4]


def test_safety_loss_is_cross_entropy_and_ignores_unlabelled_responses() -> None:
    rewards = torch.tensor([0.0, 2.0, 2.0, 5.0], requires_grad=True)
    losses = safety_loss(rewards, torch.tensor([1.0, 1.0, 0.0, NAN]))
    sigma = 1 / (1 + math.exp(-2))
    assert losses.tolist() == pytest.approx([math.log(2), -math.log(sigma), -math.log(1 - sigma), 0.0], abs=1e-6)
    (gradient,) = torch.autograd.grad(losses.sum(), rewards)
    assert gradient.isfinite().all()
    assert gradient[3] == 0


def test_pair_loss_adds_the_weighted_mean_of_both_safety_losses() -> None:
    rewards = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    safe = torch.tensor([[1.0, NAN], [0.0, NAN]])
    margins = torch.tensor([1.0, 0.0])
    off = pair_loss(rewards, margins, safe, safety_weight=0.0)
    torch.testing.assert_close(off, ranking_loss(rewards[0], rewards[1], margins))
    added = (pair_loss(rewards, margins, safe, safety_weight=0.5) - off).tolist()
    assert added == pytest.approx([0.5 * (math.log(1 + math.exp(-1)) + math.log(2)) / 2, 0.0], abs=1e-6)
