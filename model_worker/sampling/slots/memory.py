"""Decides how many rows fit into memory beside the weights, and says in figures why when none do.

What a GPU needs beside weights, keys and values is estimated generously; the estimate has not been checked on one.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from transformers import PreTrainedConfig

from model_worker.sampling.interface import NoRoomError
from model_worker.sampling.slots.cache import head_dim

ROWS_PER_PAIR: Final = 2
# Libraries and their workspaces, and what the allocator loses between blocks.
_CUDA_RESERVE: Final = 1 << 30
# Tensors of a layer that are alive at once while a prompt is read, counted in hidden and intermediate states.
_HIDDEN_STATES: Final = 8
_INTERMEDIATE_STATES: Final = 3
# The draw keeps logits, candidates, probabilities and noise, partly in float64.
_DRAW_BYTES_PER_TOKEN_OF_VOCABULARY: Final = 32
_MEMINFO: Final = Path("/proc/meminfo")


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """How much memory the rows of one checkpoint take."""

    slots: int
    """Rows, of which a pair needs two."""
    length: int
    """Tokens of prompt and response that fit into a row."""
    kv_bytes: int
    """Keys and values of all rows."""
    weight_bytes: int
    free_bytes: int
    """Before the weights are loaded."""

    @property
    def describe(self) -> str:
        """One line for the log."""
        return (
            f"{_size(self.weight_bytes)} weights and {_size(self.kv_bytes)} keys and values for {self.slots} rows "
            f"of {self.length} tokens, of {_size(self.free_bytes)} free memory"
        )


def plan_memory(
    config: PreTrainedConfig,
    *,
    dtype: torch.dtype,
    device: torch.device,
    max_pairs: int,
    max_length: int | None,
    weight_bytes: int,
    free_bytes: int | None = None,
) -> MemoryPlan:
    """Find room for as many pairs as are wanted, or for as many as fit.

    Args:
        config: Of the checkpoint.
        dtype: Of weights, keys and values.
        device: Where they are to be.
        max_pairs: How many pairs are wanted at once.
        max_length: Tokens of prompt and response together; ``None`` means all of the checkpoint's context.
        weight_bytes: What is still to be loaded, in ``dtype``; 0 where the model is loaded already.
        free_bytes: Free memory in place of the device's, for tests.

    Raises:
        NoRoomError: The model does not fit, or not even one pair does beside it; the message states the sizes.

    """
    free = free_memory(device) if free_bytes is None else free_bytes
    length = min(max_length or config.max_position_embeddings, config.max_position_embeddings)
    beside = _reserve(config, dtype, length) + (_CUDA_RESERVE if device.type == "cuda" else 0)
    left = free - weight_bytes - beside
    kv_per_row = kv_bytes_per_token(config, dtype) * length
    per_pair = ROWS_PER_PAIR * (kv_per_row + _draw_bytes_per_row(config))
    pairs = min(max_pairs, left // per_pair)
    if pairs < 1:
        what = "the model does not fit" if left < 0 else "the model fits, but not one pair beside it"
        msg = (
            f"{what} on {device}: its weights take {_size(weight_bytes)} as {str(dtype).removeprefix('torch.')}, "
            f"reading a prompt takes {_size(beside)}, and a pair of {length} tokens each takes {_size(per_pair)}; "
            f"{_size(free)} are free."
        )
        raise NoRoomError(msg)
    slots = ROWS_PER_PAIR * pairs
    return MemoryPlan(slots, length, slots * kv_per_row, weight_bytes, free)


def kv_bytes_per_token(config: PreTrainedConfig, dtype: torch.dtype) -> int:
    """Keys and values of one token in all layers; 524,288 bytes for Llama 2 7B in 16 bits."""
    return 2 * int(config.num_hidden_layers) * int(config.num_key_value_heads) * head_dim(config) * dtype.itemsize


def free_memory(device: torch.device) -> int:
    """Bytes that can still be taken on a device."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # What torch holds without using it is free for us too.
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if _MEMINFO.is_file():
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
        kibibytes = next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))
        return int(kibibytes) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _reserve(config: PreTrainedConfig, dtype: torch.dtype, length: int) -> int:
    """The tensors of one layer while the longest prompt is read."""
    states = _HIDDEN_STATES * int(config.hidden_size) + _INTERMEDIATE_STATES * int(config.intermediate_size)
    return length * states * dtype.itemsize


def _draw_bytes_per_row(config: PreTrainedConfig) -> int:
    return int(config.vocab_size) * _DRAW_BYTES_PER_TOKEN_OF_VOCABULARY


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**28 else f"{count / 2**20:.1f} MiB"
