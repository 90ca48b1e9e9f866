"""The losses of reward modelling as small pure functions (Llama 2, section 3.2.2 and appendix A.3.4)."""

import torch
from torch import Tensor
from torch.nn import functional


def ranking_loss(chosen: Tensor, rejected: Tensor, margins: Tensor) -> Tensor:
    """The ranking loss of each pair: -log sigma(r_c - r_r - m) (Llama 2, equation 2; equation 1 where m = 0).

    Args:
        chosen: Rewards of the chosen responses, (B,).
        rejected: Rewards of the rejected responses, (B,).
        margins: The margins m(r) that stand for the preference strengths, (B,), in units of reward.

    Returns:
        One loss per pair, (B,). Nothing is averaged here, since only the caller knows how many pairs its
        optimiser step has.

    """
    return -functional.logsigmoid(chosen - rejected - margins)


def safety_loss(rewards: Tensor, safe: Tensor) -> Tensor:
    """The binary cross-entropy between sigma(r) and a response's safety label.

    Our reconstruction, not the paper's formula: Llama 2 reports an auxiliary safety loss and what it is good
    for (the recall of unsafe responses at the threshold sigma(r) = 0.5; appendix A.3.4, Table 29), but prints
    neither its formula nor its weight.

    Args:
        rewards: Rewards of responses, (N,).
        safe: 1 for a safe response, 0 for an unsafe one, NaN where nobody labelled it, (N,).

    Returns:
        One loss per response, (N,); zero where there is no label.

    """
    is_labelled = ~safe.isnan()
    losses = functional.binary_cross_entropy_with_logits(rewards, safe.nan_to_num(), reduction="none")
    return torch.where(is_labelled, losses, torch.zeros_like(losses))


def pair_loss(rewards: Tensor, margins: Tensor, safe: Tensor, *, safety_weight: float) -> Tensor:
    """The whole loss of each pair: the ranking loss, plus the weighted mean of its two safety losses.

    Args:
        rewards: (2, B), the chosen responses first.
        margins: (B,).
        safe: Safety labels as in `safety_loss`, (2, B).
        safety_weight: 0 turns the auxiliary loss off.

    Returns:
        One loss per pair, (B,).

    """
    losses = ranking_loss(rewards[0], rewards[1], margins)
    if safety_weight == 0:
        return losses
    return losses + safety_weight * safety_loss(rewards, safe).mean(dim=0)
