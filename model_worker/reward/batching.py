"""Turns encoded comparisons into tensors: right-padded rows with explicit end positions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

# Stands for "nobody labelled this response" in a tensor of safety labels.
NO_LABEL = float("nan")


@dataclass(frozen=True, slots=True)
class EncodedComparison:
    """The token ids of both sides of a comparison, each its whole context and response, and what the loss needs."""

    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    margin: float
    chosen_safe: float
    """1, 0, or `NO_LABEL`."""
    rejected_safe: float
    conversation_key: str

    @property
    def length(self) -> int:
        """Tokens of the longer side."""
        return max(len(self.chosen), len(self.rejected))


class Rows(NamedTuple):
    """Right-padded sequences; what stands behind a row's end never reaches its reward, by causal attention."""

    input_ids: Tensor
    """(N, T) int64."""
    ends: Tensor
    """(N,) int64: the position of each row's last own token, where its reward is read."""


class Minibatch(NamedTuple):
    """B comparisons as 2 B rows: all chosen sides first, then all rejected ones."""

    input_ids: Tensor
    """(2 B, T) int64."""
    ends: Tensor
    """(2 B,) int64."""
    margins: Tensor
    """(B,) float32."""
    safe: Tensor
    """(2, B) float32: 1, 0 or NaN; the chosen responses first."""


def pad_rows(sequences: Sequence[Sequence[int]], pad_token_id: int) -> Rows:
    """Pad sequences of token ids on the right.

    The ends come from the lengths. Nobody ever searches for the pad token: a checkpoint whose pad equals its
    end-of-sequence token would then be read one token too early (TRAINING.md, section 1).
    """
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    input_ids = torch.full((len(sequences), int(lengths.max())), pad_token_id, dtype=torch.int64)
    for row, sequence in enumerate(sequences):
        input_ids[row, : len(sequence)] = torch.tensor(sequence)
    return Rows(input_ids=input_ids, ends=lengths - 1)


def make_minibatch(comparisons: Sequence[EncodedComparison], pad_token_id: int) -> Minibatch:
    """Lay comparisons out as one minibatch; both sides of a pair are always in the same one."""
    rows = pad_rows([one.chosen for one in comparisons] + [one.rejected for one in comparisons], pad_token_id)
    return Minibatch(
        input_ids=rows.input_ids,
        ends=rows.ends,
        margins=torch.tensor([one.margin for one in comparisons], dtype=torch.float32),
        safe=torch.tensor(
            [[one.chosen_safe for one in comparisons], [one.rejected_safe for one in comparisons]],
            dtype=torch.float32,
        ),
    )
