"""How near a decode step comes to the limit that memory bandwidth sets (SAMPLING.md, section 5).

No figure of this program has been measured yet: no GPU was at hand when it was written.
"""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from model_worker.sampling.nucleus import Draw, DrawPlan
from model_worker.sampling.slots.cache import SlotCache
from model_worker.sampling.slots.forward import DecodeForward, EagerDecode
from model_worker.sampling.slots.graphs import CudaRecorder, GraphedDecode
from model_worker.sampling.slots.memory import free_memory, kv_bytes_per_token
from model_worker.sampling.slots.varlen import SLOT_VARLEN, VarlenDecode, register_varlen

Figures = dict[str, float | int | str]

LLAMA_2_7B = LlamaConfig(
    vocab_size=32000,
    hidden_size=4096,
    intermediate_size=11008,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=32,
    max_position_embeddings=4096,
)
# For tests: the same code, where nothing it says means anything.
TINY = LlamaConfig(
    vocab_size=512,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=1024,
)
ROWS = (2, 32, 128)
LENGTH = 512
_WARM_UPS = 5
_STEPS = 50
_COPIED_BYTES = 4 << 30


@dataclass(frozen=True)
class Bench:
    """What is measured, and where."""

    config: LlamaConfig
    device: torch.device
    dtype: torch.dtype
    steps: int
    copied_bytes: int


def measure_gpu(*, is_tiny: bool) -> dict[str, object]:
    """All ways to run a decode step, at each number of rows; `is_tiny` runs the code on a processor.

    Raises:
        SystemExit: There is no CUDA device.

    """
    if is_tiny:
        bench = Bench(TINY, torch.device("cpu"), torch.float32, steps=2, copied_bytes=1 << 20)
    elif torch.cuda.is_available():
        bench = Bench(LLAMA_2_7B, torch.device("cuda"), torch.bfloat16, _STEPS, _COPIED_BYTES)
    else:
        sys.exit(f"--gpu needs a CUDA device, and torch {torch.__version__} finds none here.")
    bandwidth = copy_bandwidth(bench)
    model = random_model(bench)
    runs = [figures for rows in ROWS for figures in measure_rows(bench, model, rows, bandwidth)]
    return {
        "device": torch.cuda.get_device_name(bench.device) if bench.device.type == "cuda" else "cpu",
        "dtype": str(bench.dtype).removeprefix("torch."),
        "weight_bytes": sum(weight.nbytes for weight in model.parameters()),
        "copy_bandwidth_gb_per_s": round(bandwidth / 1e9, 1),
        "context": LENGTH,
        "is_meaningful": not is_tiny,
        "runs": runs,
    }


def random_model(bench: Bench) -> LlamaForCausalLM:
    """Random weights, made on the device."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(bench.dtype)
    try:
        with bench.device:
            model = LlamaForCausalLM(bench.config)
    finally:
        torch.set_default_dtype(before)
    model.train(mode=False)
    return model


def copy_bandwidth(bench: Bench) -> float:
    """Bytes per second, read and written, of a large copy on the device."""
    source = torch.zeros(bench.copied_bytes, dtype=torch.uint8, device=bench.device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds(bench, lambda: target.copy_(source))


def measure_rows(bench: Bench, model: LlamaForCausalLM, rows: int, bandwidth: float) -> Iterator[Figures]:
    """Each way to run a step of so many rows."""
    needed = rows * (LENGTH + 1) * kv_bytes_per_token(bench.config, bench.dtype)
    if needed > free_memory(bench.device):
        yield {"rows": rows, "left_out": f"keys and values take {needed / 1e9:.1f} GB"}
        return
    # One place more than is attended to: spare rows of recorded steps write there.
    cache = SlotCache(bench.config, slots=rows, length=LENGTH + 1, device=bench.device, dtype=bench.dtype)
    read = sum(weight.nbytes for name, weight in model.named_parameters() if "embed_tokens" not in name)
    bound_s = (read + rows * LENGTH * kv_bytes_per_token(bench.config, bench.dtype)) / bandwidth
    for name, decode in ways(bench, model, cache):
        forward_s, step_s = measure_step(bench, decode, rows)
        yield {
            "rows": rows,
            "way": name,
            "forward_ms": round(forward_s * 1e3, 3),
            "step_ms": round(step_s * 1e3, 3),
            "tokens_per_s": round(rows / step_s, 1),
            "bound_ms": round(bound_s * 1e3, 3),
            "forward_fraction_of_bound": round(bound_s / forward_s, 3),
            "step_fraction_of_bound": round(bound_s / step_s, 3),
        }


def ways(bench: Bench, model: LlamaForCausalLM, cache: SlotCache) -> Iterator[tuple[str, DecodeForward]]:
    """The ways that the device offers; each is used before the next is made."""
    is_cuda = bench.device.type == "cuda"
    model.set_attn_implementation("sdpa")
    eager = EagerDecode(model, cache)
    yield "sdpa", eager
    if not is_cuda:
        return
    yield "sdpa, CUDA graphs", GraphedDecode(eager, slots=cache.slots, length=cache.length, record=CudaRecorder())
    register_varlen()
    model.set_attn_implementation(SLOT_VARLEN)
    varlen = VarlenDecode(model, cache)
    yield "varlen", varlen
    yield "varlen, CUDA graphs", GraphedDecode(varlen, slots=cache.slots, length=cache.length, record=CudaRecorder())


@torch.inference_mode()
def measure_step(bench: Bench, decode: DecodeForward, rows: int) -> tuple[float, float]:
    """Seconds of the forward pass alone, and with the draw, whose tokens the host waits for."""
    input_ids = torch.ones((rows, 1), dtype=torch.int64, device=bench.device)
    position_ids = torch.full((rows, 1), LENGTH - 1, dtype=torch.int64, device=bench.device)
    lengths = torch.full((rows,), LENGTH, dtype=torch.int32, device=bench.device)
    plan = DrawPlan([Draw(0.7 + row % 2 / 2, 0.95, 0, row, 0) for row in range(rows)], device=bench.device)
    forward_s = seconds(bench, lambda: decode(input_ids, position_ids, lengths, LENGTH))
    step_s = seconds(bench, lambda: plan.draw(decode(input_ids, position_ids, lengths, LENGTH)))
    return forward_s, step_s


def seconds(bench: Bench, work: Callable[[], object]) -> float:
    """The mean over some runs, after a few that do not count."""
    for _ in range(min(_WARM_UPS, bench.steps)):
        work()
    _wait(bench.device)
    started = time.perf_counter()
    for _ in range(bench.steps):
        work()
    _wait(bench.device)
    return (time.perf_counter() - started) / bench.steps


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
