"""Reads the checkpoint that is to be served next: verified against its digest, in host memory or on the device."""

import gc
from pathlib import Path

import torch

from contract.checkpoint_files import CheckpointError, CheckpointFiles, inspect_checkpoint
from model_worker.checkpoint import Checkpoint, load_checkpoint
from model_worker.sampling.interface import NoRoomError

# What a config says of its own past, not of the model.
_NOT_THE_SHAPE = frozenset({"_name_or_path", "transformers_version", "dtype", "torch_dtype"})


def load_verified(folder: Path, files: CheckpointFiles, *, device: str, dtype: str) -> Checkpoint:
    """Load a checkpoint that was inspected before.

    Raises:
        CheckpointError: It cannot be served, or its files are not what they were.
        NoRoomError: Memory ran out.

    """
    found = inspect_checkpoint(folder, name=files.name)
    if found != files:
        msg = f"{folder} has changed: it was registered as {files.digest[:12]} and is {found.digest[:12]} now."
        raise CheckpointError(msg)
    try:
        return load_checkpoint(folder, device=device, dtype=dtype, files=files)
    except (torch.OutOfMemoryError, MemoryError) as error:
        msg = f"{files.name} does not fit into the memory of {device}: {error}"
        raise NoRoomError(msg) from error


def shares_shape(one: Checkpoint, other: Checkpoint) -> bool:
    """Whether the weights of one can be copied over those of the other."""
    shapes = [
        {name: value for name, value in checkpoint.model.config.to_dict().items() if name not in _NOT_THE_SHAPE}
        for checkpoint in (one, other)
    ]
    return shapes[0] == shapes[1]


def release(checkpoint: Checkpoint) -> None:
    """Take a checkpoint's weights off the device."""
    torch.nn.Module.to(checkpoint.model, "cpu")
    gc.collect()
    if checkpoint.device.type == "cuda":
        torch.cuda.empty_cache()
