"""Chooses how decode steps run: what the settings ``attention`` and ``cuda_graphs`` mean for the slot engine."""

from collections.abc import Callable
from typing import Literal

from contract.checkpoint_files import CheckpointError
from model_worker.checkpoint import Checkpoint
from model_worker.sampling.slots.cache import SlotCache
from model_worker.sampling.slots.forward import DecodeForward, EagerDecode
from model_worker.sampling.slots.graphs import CudaRecorder, GraphedDecode
from model_worker.sampling.slots.rowwise import make_rowwise_decode
from model_worker.sampling.slots.varlen import make_varlen_decode


def decode_maker(
    *, attention: Literal["sdpa", "varlen"], cuda_graphs: bool
) -> Callable[[Checkpoint, SlotCache], DecodeForward]:
    """What a slot engine is to make its decode step with.

    Returns:
        A function that raises CheckpointError where the device or the type of the checkpoint's model does not allow it.

    """

    def make_decode(checkpoint: Checkpoint, cache: SlotCache) -> DecodeForward:
        decode: DecodeForward
        if attention == "varlen":
            decode = make_varlen_decode(checkpoint, cache)
        elif checkpoint.device.type == "cpu":
            decode = make_rowwise_decode(checkpoint.model, cache)
        else:
            decode = EagerDecode(checkpoint.model, cache)
        if not cuda_graphs:
            return decode
        if checkpoint.device.type != "cuda":
            msg = f"{checkpoint.files.name}: CUDA graphs need a CUDA device, not {checkpoint.device.type}."
            raise CheckpointError(msg)
        return GraphedDecode(decode, slots=cache.slots, length=cache.length, record=CudaRecorder())

    return make_decode
