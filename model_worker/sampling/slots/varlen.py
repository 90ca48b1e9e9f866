"""Decode steps that read only the keys in use: FlashAttention for sequences of different lengths, out of torch itself.

The kernel runs on CUDA in 16 bits alone and **has not been run for this project**: no GPU was at hand. What surrounds
it is tested on processors with a kernel of the same signature that is written out in plain operations.
"""

from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from contract.checkpoint_files import CheckpointError
from model_worker.checkpoint import Checkpoint
from model_worker.sampling.slots.cache import SlotCache, TokenPlacement

# transformers looks up names that contain "flash" on the hub (SAMPLING.md, section 2.2).
SLOT_VARLEN: Final = "slot_varlen"
_HALF_TYPES: Final = (torch.float16, torch.bfloat16)


class VarlenKernel(Protocol):
    """Attention without a mask over packed sequences: the part of ``varlen_attn``'s signature that is used here."""

    def __call__(  # noqa: PLR0913
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        cu_seq_q: Tensor,
        cu_seq_k: Tensor,
        max_q: int,
        max_k: int,
        *,
        scale: float | None,
        seqused_k: Tensor,
    ) -> Tensor:
        """Attend to the first ``seqused_k[i]`` keys of each sequence.

        Args:
            query: (tokens of all queries, heads, dim).
            key: (tokens of all keys, heads, dim), like ``value``.
            value: What is averaged.
            cu_seq_q: int32 (sequences + 1,), where the queries of each sequence begin.
            cu_seq_k: int32 (sequences + 1,), where its keys begin.
            max_q: The most queries of a sequence.
            max_k: The most keys of a sequence that are in use.
            scale: What scores are multiplied by.
            seqused_k: int32 (sequences,).

        Returns:
            (tokens of all queries, heads, dim).

        """


@dataclass(frozen=True, slots=True)
class PackedRows:
    """Where the sequences of a decode step begin and end; made once for all layers.

    Every key-value head of every row is a sequence of its own, and the query heads that share it are its queries:
    so the slots are read where they lie, and keys once for all query heads.
    """

    query_starts: Tensor
    """int32 (rows x key-value heads + 1,)."""
    key_starts: Tensor
    """The same for the keys: multiples of the slots' length."""
    used: Tensor
    """int32 (rows x key-value heads,), how many keys each may attend to."""


@dataclass(frozen=True, slots=True)
class VarlenDecode:
    """A decode step for a model whose attention is ``SLOT_VARLEN``."""

    model: PreTrainedModel
    cache: SlotCache

    def __call__(self, input_ids: Tensor, position_ids: Tensor, lengths: Tensor, bucket: int) -> Tensor:
        """See :class:`~model_worker.sampling.slots.forward.DecodeForward`."""
        rows, device = input_ids.shape[0], input_ids.device
        self.cache.place(TokenPlacement(torch.arange(rows, device=device), position_ids[:, 0], bucket))
        output: Any = self.model(
            input_ids=input_ids,
            position_ids=position_ids,
            past_key_values=self.cache,
            use_cache=True,
            packed_rows=self._pack(lengths),
        )
        logits: Tensor = output.logits[:, -1]
        return logits

    def _pack(self, lengths: Tensor) -> PackedRows:
        config = self.model.config
        shared = int(config.num_key_value_heads)
        count = torch.arange(lengths.shape[0] * shared + 1, device=lengths.device, dtype=torch.int32)
        return PackedRows(
            query_starts=count * (config.num_attention_heads // shared),
            key_starts=count * self.cache.length,
            used=lengths[:, None].expand(-1, shared).reshape(-1).contiguous(),
        )


# Its parameters have defaults that this program never leaves out, hence another type.
_TORCH_KERNEL: Final = cast("VarlenKernel", varlen_attn)


def make_varlen_decode(checkpoint: Checkpoint, cache: SlotCache) -> VarlenDecode:
    """Switch a checkpoint's model over to attention that reads only the keys in use.

    Raises:
        CheckpointError: The kernel does not run for this device or type.

    """
    if checkpoint.device.type != "cuda" or checkpoint.dtype not in _HALF_TYPES:
        msg = (
            f"{checkpoint.files.name}: attention varlen needs a CUDA device and bfloat16 or float16, "
            f"not {checkpoint.device.type} and {str(checkpoint.dtype).removeprefix('torch.')}; use attention sdpa."
        )
        raise CheckpointError(msg)
    register_varlen()
    checkpoint.model.set_attn_implementation(SLOT_VARLEN)
    return VarlenDecode(checkpoint.model, cache)


def register_varlen(kernel: VarlenKernel = _TORCH_KERNEL) -> None:
    """Make ``SLOT_VARLEN`` known to transformers; a later call replaces the kernel."""

    def attend(
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        scaling: float | None = None,
        packed_rows: PackedRows | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        """Query is (rows, heads, tokens, dim); keys and values are what the cache returned."""
        if packed_rows is None:  # prompts are read, which needs no mask either
            output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
            return output, None
        rows, heads, _, dim = query.shape
        shared = key.shape[1]
        attended: Tensor = kernel(
            query.reshape(rows * heads, 1, dim),  # heads that share keys are next to each other
            _whole_slots(key),
            _whole_slots(value),
            packed_rows.query_starts,
            packed_rows.key_starts,
            heads // shared,
            key.shape[2],
            scale=scaling,
            seqused_k=packed_rows.used,
        )
        return attended.view(rows, 1, heads, dim), None

    AttentionInterface.register(SLOT_VARLEN, attend)


def _whole_slots(view: Tensor) -> Tensor:
    """The slots that (rows, heads, bucket, dim) was cut out of, as (rows x heads x slot length, 1, dim): no copy."""
    rows, heads, _, dim = view.shape
    length = view.stride(1) // dim
    return view.as_strided((rows * heads * length, 1, dim), (dim, dim, 1))
