"""Greedy output is that of `generate()`, token for token, for every kind of decoder that is served."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, PreTrainedModel

from contract.checkpoint_files import CheckpointError
from model_worker.checkpoint import Checkpoint
from model_worker.sampling.slots.architectures import check_config
from model_worker.sampling.slots.engine import MakeDecode, SlotEngine
from model_worker.sampling.slots.forward import EagerDecode
from model_worker.sampling.slots.rowwise import make_rowwise_decode
from tests.model_worker.sampling.slots.greedy import generated, greedy_row, prompts_of, run_staggered

_SMALL = {
    "vocab_size": 420,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}
_LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_CONFIGURATIONS: dict[str, LlamaConfig | MistralConfig] = {
    "Llama 2 7B, every head its own keys": LlamaConfig(**_SMALL, num_key_value_heads=4),
    "Llama 2 70B, grouped queries": LlamaConfig(**_SMALL, num_key_value_heads=2),
    "one key-value head": LlamaConfig(**_SMALL, num_key_value_heads=1),
    "Llama 3, scaled rotary embedding": LlamaConfig(**_SMALL, num_key_value_heads=2, rope_parameters=_LLAMA_3),
    "tied embeddings": LlamaConfig(**_SMALL, num_key_value_heads=2, tie_word_embeddings=True),
    "biased attention": LlamaConfig(**_SMALL, num_key_value_heads=2, attention_bias=True, mlp_bias=True),
    "wide heads": LlamaConfig(**_SMALL, num_key_value_heads=2, head_dim=32),
    "Mistral, full attention": MistralConfig(**_SMALL, num_key_value_heads=2, sliding_window=None),
}


def _random(config: LlamaConfig | MistralConfig, tiny: Checkpoint) -> Checkpoint:
    torch.manual_seed(0)
    kind = LlamaForCausalLM if isinstance(config, LlamaConfig) else MistralForCausalLM
    model: PreTrainedModel = kind(config).eval()
    model.config.architectures = [kind.__name__]
    with torch.no_grad():
        # Wide enough apart that rounding does not decide between the two likeliest tokens.
        for parameter in model.parameters():
            parameter.mul_(4.0) if parameter.dim() > 1 else None
    return tiny.on(model)


# Both ways in which a processor attends, whatever the rows' lengths.
_DECODES: dict[str, MakeDecode] = {
    "together": lambda checkpoint, cache: EagerDecode(checkpoint.model, cache),
    "row by row": lambda checkpoint, cache: make_rowwise_decode(checkpoint.model, cache, short=0, like=1.0),
}


@pytest.mark.parametrize("decode", _DECODES)
@pytest.mark.parametrize("name", _CONFIGURATIONS)
def test_greedy_output_is_that_of_generate(name: str, decode: str, tiny: Checkpoint) -> None:
    checkpoint = _random(_CONFIGURATIONS[name], tiny)
    check_config(name, checkpoint.model.config)
    prompts = prompts_of(checkpoint)
    rows = [greedy_row(checkpoint, prompt, 24 + 5 * place) for place, prompt in enumerate(prompts)]
    run_staggered(SlotEngine(checkpoint, slots=3, length=200, make_decode=_DECODES[decode]), rows)
    for row, prompt in zip(rows, prompts, strict=True):
        assert row.token_ids == generated(checkpoint, prompt, row.limit)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"sliding_window": 64}, "sliding_window"),
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0}}, "rope"),
    ],
)
def test_what_is_not_served_is_refused_with_the_reason(change: dict[str, object], named: str) -> None:
    given = _SMALL | {"num_key_value_heads": 2, "sliding_window": None, "architectures": ["MistralForCausalLM"]}
    config = MistralConfig(**(given | change))
    with pytest.raises(CheckpointError, match=named):
        check_config("chat", config)
