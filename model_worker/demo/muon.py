"""Muon, an optimizer for the matrices inside a transformer, in single precision.

PyTorch has one too, but that orthogonalizes in bfloat16, which ordinary processors only emulate:
here it made a step eight times slower.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

# The coefficients of the Newton-Schulz iteration, from Keller Jordan's description of Muon:
# https://kellerjordan.github.io/posts/muon/
FIRST, THIRD, FIFTH = 3.4445, -4.7750, 2.0315


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made (nearly) orthogonal, so that all directions move alike."""

    def __init__(
        self,
        matrices: Iterable[Tensor],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        """Optimize `matrices`, all of two dimensions; `lr` is on the scale of AdamW's."""
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(list(matrices), defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Take one step; `closure` is not supported and must be None."""
        assert closure is None, "Muon takes no closure"  # noqa: S101
        for group in self.param_groups:
            rate, momentum = group["lr"], group["momentum"]
            for matrix in group["params"]:
                state = self.state[matrix]
                if not state:
                    state["momentum"] = torch.zeros_like(matrix)
                average = state["momentum"].lerp_(matrix.grad, 1 - momentum)
                update = orthogonalized(matrix.grad.lerp(average, momentum))
                # An orthogonal update is 1/sqrt(larger side) in size; AdamW's is about 0.2.
                update *= 0.2 * max(matrix.shape) ** 0.5
                matrix.mul_(1 - rate * group["weight_decay"]).sub_(update, alpha=rate)


def orthogonalized(matrix: Tensor, iterations: int = 5) -> Tensor:
    """Bring all singular values of `matrix` (m, n) near to one, by Newton-Schulz iteration."""
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if is_tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(iterations):
        square = x @ x.T  # (smaller side, smaller side)
        x = FIRST * x + (THIRD * square + FIFTH * square @ square) @ x
    return x.T if is_tall else x
