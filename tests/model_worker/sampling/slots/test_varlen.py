"""The wiring of variable-length attention, with a kernel that runs on processors in place of torch's."""

import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

from contract.checkpoint_files import CheckpointError
from model_worker.checkpoint import Checkpoint, load_checkpoint
from model_worker.demo.tiny import make_tiny_checkpoint
from model_worker.sampling.slots.engine import SlotEngine
from model_worker.sampling.slots.varlen import SLOT_VARLEN, VarlenDecode, make_varlen_decode, register_varlen
from tests.model_worker.sampling.slots.greedy import generated, greedy_row, prompts_of, run_staggered

TOKENS = 20


def plain_attention(
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
    """Each sequence alone, in plain operations."""
    assert scale is not None
    assert max_k >= int(seqused_k.max())
    output = torch.empty_like(query)
    for sequence, used in enumerate(seqused_k.tolist()):
        first, last = cu_seq_q[sequence], cu_seq_q[sequence + 1]
        assert last - first <= max_q
        keys = slice(int(cu_seq_k[sequence]), int(cu_seq_k[sequence]) + used)
        scores = torch.einsum("qhd,khd->hqk", query[first:last], key[keys]) * scale
        output[first:last] = torch.einsum("hqk,khd->qhd", scores.softmax(dim=-1), value[keys])
    return output


@pytest.fixture
def registered() -> Iterator[None]:
    """The plain kernel under the name of the real one."""
    register_varlen(plain_attention)
    yield
    register_varlen()


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("grouped_query", [pytest.param(True, id="grouped"), pytest.param(False, id="ungrouped")])
def test_greedy_responses_equal_those_of_generate(tmp_path: Path, *, grouped_query: bool) -> None:
    folder = make_tiny_checkpoint(tmp_path / "tiny", grouped_query=grouped_query)
    plain = load_checkpoint(folder, device="cpu")
    varlen = load_checkpoint(folder, device="cpu", files=plain.files)
    varlen.model.set_attn_implementation(SLOT_VARLEN)
    engine = SlotEngine(
        varlen, slots=3, length=96, make_decode=lambda checkpoint, cache: VarlenDecode(checkpoint.model, cache)
    )
    rows = [greedy_row(varlen, prompt_ids, TOKENS) for prompt_ids in prompts_of(varlen)]
    run_staggered(engine, rows)
    assert [row.token_ids for row in rows] == [generated(plain, row.prompt_ids, TOKENS) for row in rows]


def test_the_kernel_of_torch_takes_what_it_is_given() -> None:
    asked = inspect.signature(plain_attention).parameters.values()
    offered = inspect.signature(varlen_attn).parameters
    assert [(parameter.name, parameter.kind) for parameter in asked] == [
        (parameter.name, offered[parameter.name].kind) for parameter in asked
    ]


def test_a_processor_is_refused_with_the_reason(tiny: Checkpoint) -> None:
    before = tiny.model.config._attn_implementation
    with pytest.raises(CheckpointError, match=r"attention varlen needs a CUDA device and .*, not cpu and float32"):
        SlotEngine(tiny, slots=2, length=32, make_decode=make_varlen_decode)
    assert tiny.model.config._attn_implementation == before
