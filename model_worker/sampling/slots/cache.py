"""Keys and values of all rows in one tensor a layer; rows stand at different positions and come and go.

transformers' own static and dynamic caches hold one length for all rows, so that no row could join a running
minibatch (SAMPLING.md, section 2.1). This one uses the documented extension point, ``CacheLayerMixin``.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, CacheLayerMixin


class Placement(Protocol):
    """Where the keys and values of the present forward pass belong."""

    def put(self, stored: Tensor, new: Tensor) -> Tensor:
        """Write ``new`` (rows, heads, tokens, dim) into ``stored`` (slots, heads, length, dim); return what to attend.

        What is returned has the rows of ``new``, and in its third dimension every token that they may attend to.
        """

    def attended(self, new_tokens: int) -> int:
        """The size of the third dimension of what ``put`` returns."""


@dataclass(frozen=True, slots=True)
class PromptPlacement:
    """Prompts from their first token on, each written into the slots of all responses to it.

    Prompts attend to themselves alone, so the mask stays causal and the fastest kernel can run. What a padded
    prompt writes behind its end is hidden by the length of the row, and overwritten as the row grows.
    """

    slots: Tensor
    """int64 (rows,)."""
    prompts: Tensor
    """int64 (rows,): which prompt of the pass belongs in each slot."""

    def put(self, stored: Tensor, new: Tensor) -> Tensor:
        """Write a prompt once for each of its slots."""
        stored[:, :, : new.shape[2]].index_copy_(0, self.slots, new.index_select(0, self.prompts))
        return new

    def attended(self, new_tokens: int) -> int:
        """The prompts themselves."""
        return new_tokens


@dataclass(frozen=True, slots=True)
class TokenPlacement:
    """One token for each of the first slots, each at its own position. Only shapes are known to the host."""

    rows: Tensor
    """int64 (rows,): 0, 1, 2, ..."""
    positions: Tensor
    """int64 (rows,)."""
    bucket: int
    """How many positions are attended to: no row is longer. A mask hides what lies behind a row's own length."""

    def put(self, stored: Tensor, new: Tensor) -> Tensor:
        """Write by index, which CUDA graphs can record."""
        stored[self.rows, :, self.positions] = new[:, :, 0]
        return stored[: new.shape[0], :, : self.bucket]

    def attended(self, new_tokens: int) -> int:
        """The bucket, which includes the new token."""
        del new_tokens
        return self.bucket


class SlotCache(Cache):
    """The keys and values of one checkpoint's rows: call ``place`` before each forward pass."""

    def __init__(
        self, config: PreTrainedConfig, *, slots: int, length: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        """All memory is taken at once.

        Args:
            config: Of a decoder that :func:`~model_worker.sampling.slots.architectures.check_config` accepts.
            slots: How many rows fit.
            length: Tokens of prompt and response that fit into a row.
            device: Where the model is.
            dtype: Of the model.

        """
        shape = (slots, config.num_key_value_heads, length, head_dim(config))
        self._pass = _Pass()
        layers = [SlotLayer(self._pass, shape, device, dtype) for _ in range(config.num_hidden_layers)]
        super().__init__(layers=list(layers))
        self.slots = slots
        self.length = length
        self._slot_layers = layers

    def place(self, placement: Placement) -> None:
        """Say where the next forward pass writes, and what it attends to."""
        self._pass.placement = placement

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self._slot_layers)

    def move(self, source: int, target: int, tokens: int) -> None:
        """Copy the first ``tokens`` tokens of one slot into another."""
        for layer in self._slot_layers:
            layer.keys[target, :, :tokens] = layer.keys[source, :, :tokens]
            layer.values[target, :, :tokens] = layer.values[source, :, :tokens]


class _Pass:
    """What all layers know of the present forward pass.

    Layers that knew the cache would make a cycle of references, and the memory of a cache that nobody needs any more
    must be free at once.
    """

    def __init__(self) -> None:
        self.placement: Placement | None = None


class SlotLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One layer's keys and values, both (slots, key-value heads, length, head dim)."""

    is_sliding = False

    def __init__(
        self, present: _Pass, shape: tuple[int, int, int, int], device: torch.device, dtype: torch.dtype
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._pass = present
        # Zeros: what a mask hides is still multiplied by its weight of 0, and 0 x NaN would be NaN.
        self.keys: Tensor = torch.zeros(shape, device=device, dtype=dtype)
        self.values: Tensor = torch.zeros(shape, device=device, dtype=dtype)
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing is left to do."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write what a layer computed for its new tokens, and return what they attend to."""
        del args, kwargs
        placement = self._placement()
        return placement.put(self.keys, key_states), placement.put(self.values, value_states)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of what is attended to."""
        return self._placement().attended(query_length), 0

    def get_seq_length(self) -> int:
        """Rows have no common length; positions are always given to the model."""
        return 0

    def get_max_length(self) -> int:
        """What fits into a row."""
        return self.keys.shape[2]

    def _placement(self) -> Placement:
        if self._pass.placement is None:
            msg = "a forward pass was started before its placement was set"
            raise RuntimeError(msg)
        return self._pass.placement


def head_dim(config: PreTrainedConfig) -> int:
    """The size of one attention head, which some checkpoints state apart from their hidden size."""
    stated = getattr(config, "head_dim", None)
    return int(stated or config.hidden_size // config.num_attention_heads)
