"""How many rows a device holds, worked out by hand for Llama 2 7B and for a tiny model."""

import pytest
import torch
from transformers import LlamaConfig

from contract.checkpoint_files import CheckpointError
from model_worker.sampling.slots.memory import MemoryPlan, free_memory, kv_bytes_per_token, plan_memory

GIB = 2**30
LLAMA_2_7B = LlamaConfig(
    vocab_size=32000,
    hidden_size=4096,
    intermediate_size=11008,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=32,
    max_position_embeddings=4096,
)
WEIGHTS_7B = 13_476_839_424
LLAMA_2_70B = LlamaConfig(
    hidden_size=8192, intermediate_size=28672, num_hidden_layers=80, num_attention_heads=64, num_key_value_heads=8
)


def plan(*, free: float, max_pairs: int = 64, max_length: int | None = None) -> MemoryPlan:
    """Plan Llama 2 7B in bf16 for a GPU with ``free`` GiB; no GPU is asked."""
    return plan_memory(
        LLAMA_2_7B,
        dtype=torch.bfloat16,
        device=torch.device("cuda"),
        max_pairs=max_pairs,
        max_length=max_length,
        weight_bytes=WEIGHTS_7B,
        free_bytes=int(free * GIB),
    )


def test_keys_and_values_of_a_token_are_those_of_the_paper_models() -> None:
    assert kv_bytes_per_token(LLAMA_2_7B, torch.bfloat16) == 524_288
    assert kv_bytes_per_token(LLAMA_2_7B, torch.float32) == 2 * 524_288
    assert kv_bytes_per_token(LLAMA_2_70B, torch.bfloat16) == 2 * 80 * 8 * 128 * 2


def test_as_many_pairs_fit_as_memory_allows() -> None:
    # A row of 4,096 tokens takes 2 GiB and 1 MiB for the draw; beside it stay 12.55 GiB of weights, 1 GiB for
    # libraries, and 0.51 GiB for reading a prompt: 63.94 GiB are left, of which 15 pairs take 60.03 GiB.
    found = plan(free=78)
    assert (found.slots, found.length) == (30, 4096)
    assert found.kv_bytes == 60 * GIB
    assert found.describe == (
        "12.55 GiB weights and 60.00 GiB keys and values for 30 rows of 4096 tokens, of 78.00 GiB free memory"
    )


def test_no_more_pairs_than_wanted_are_planned_and_no_row_is_longer_than_the_context() -> None:
    found = plan(free=139, max_pairs=8, max_length=100_000)
    assert (found.slots, found.length) == (16, 4096)


def test_shorter_rows_leave_room_for_more_pairs() -> None:
    assert plan(free=78, max_length=1024).slots > 2 * plan(free=78).slots


@pytest.mark.parametrize(
    ("free", "reason"),
    [
        pytest.param(12, r"^the model does not fit on cuda: its weights take 12\.55 GiB as bfloat16", id="weights"),
        pytest.param(
            16, r"not one pair beside it .* a pair of 4096 tokens each takes 4\.00 GiB; 16\.00 GiB are", id="pair"
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_the_sizes(free: int, reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        plan(free=free)


def test_a_processor_plans_from_the_memory_of_the_machine() -> None:
    config = LlamaConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=500)
    device = torch.device("cpu")
    found = plan_memory(
        config, dtype=torch.float32, device=device, max_pairs=3, max_length=256, weight_bytes=1, free_bytes=None
    )
    assert (found.slots, found.length, found.kv_bytes) == (6, 256, 6 * 256 * 2 * 2 * 64 * 4)
    assert 2**24 < free_memory(device) < 2**50
