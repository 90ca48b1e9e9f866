"""Decode steps on a processor, where memory is slow: each row reads its own keys, and nothing behind its end."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from model_worker.sampling.slots.cache import SlotCache
from model_worker.sampling.slots.forward import EagerDecode

SLOT_ROWWISE: Final = "slot_rowwise"
# A call for each row costs some 20 microseconds. Short or like rows are faster together, under a mask.
_SHORT: Final = 128
_LIKE: Final = 0.85


@dataclass(frozen=True, slots=True)
class RowwiseDecode:
    """A decode step for a model whose attention is ``SLOT_ROWWISE``."""

    together: EagerDecode
    short: int = _SHORT
    """Up to this bucket all rows are read together."""
    like: float = _LIKE
    """So are rows that use more than this share of it."""

    def __call__(self, input_ids: Tensor, position_ids: Tensor, lengths: Tensor, bucket: int) -> Tensor:
        """See :class:`~model_worker.sampling.slots.forward.DecodeForward`."""
        own_lengths = lengths.tolist()
        if bucket <= self.short or sum(own_lengths) > self.like * bucket * len(own_lengths):
            return self.together(input_ids, position_ids, lengths, bucket)
        return self.together.run(input_ids, position_ids, lengths, bucket, own_lengths=own_lengths)


def make_rowwise_decode(
    model: PreTrainedModel, cache: SlotCache, *, short: int = _SHORT, like: float = _LIKE
) -> RowwiseDecode:
    """Switch a model over to attention row by row. Whoever else calls it finds it as it was."""
    AttentionInterface.register(SLOT_ROWWISE, _attend)
    AttentionMaskInterface.register(SLOT_ROWWISE, sdpa_mask)
    model.set_attn_implementation(SLOT_ROWWISE)
    return RowwiseDecode(EagerDecode(model, cache), short, like)


def _attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    own_lengths: Sequence[int] | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Query is (rows, heads, tokens, dim), keys and values (rows, shared heads, attended, dim)."""
    if own_lengths is None:
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
        return output, None
    rows, heads, _, dim = query.shape
    shared = key.shape[1]
    # Query heads that share keys are next to each other: as several queries of one head they read them together.
    grouped = query.reshape(rows, shared, heads // shared, dim)
    attended = [
        scaled_dot_product_attention(
            grouped[row : row + 1], key[row : row + 1, :, :length], value[row : row + 1, :, :length], scale=scaling
        )
        for row, length in enumerate(own_lengths)
    ]
    return torch.cat(attended).reshape(rows, 1, heads, dim), None
