"""The demo checkpoint that comes with the code."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from model_worker.demo.template import BOS_TOKEN_ID, EOS_TOKEN_ID, PAD_TOKEN_ID

FOLDER = Path(__file__).parents[3] / "model_worker" / "demo" / "checkpoint"
MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    """The demo model."""
    return AutoModelForCausalLM.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """Its tokenizer."""
    return AutoTokenizer.from_pretrained(FOLDER)


def respond(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, *turns: str) -> list[int]:
    """Answer greedily the last of `turns`, which alternate between user and assistant."""
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "content": text} for n, text in enumerate(turns)]
    inputs = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        sampled = model.generate(**inputs, max_new_tokens=200, do_sample=False)
    return sampled[0, inputs["input_ids"].shape[1] :].tolist()


def test_is_small_and_holds_no_pickles() -> None:
    files = [file for file in FOLDER.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 10 * MEBIBYTE
    assert {file.suffix for file in files} <= {".json", ".jinja", ".md", ".safetensors"}


def test_is_a_grouped_query_llama_that_computes_in_float32(model: LlamaForCausalLM) -> None:
    assert isinstance(model, LlamaForCausalLM)
    assert model.config.num_key_value_heads < model.config.num_attention_heads
    assert model.config.max_position_embeddings == 1024
    assert model.dtype == torch.float32


def test_generation_config_agrees_with_the_tokenizer(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    for source in (model.generation_config, model.config, tokenizer):
        ids = (source.bos_token_id, source.eos_token_id, source.pad_token_id)
        assert ids == (BOS_TOKEN_ID, EOS_TOKEN_ID, PAD_TOKEN_ID)
    assert len(tokenizer) == model.config.vocab_size


@pytest.mark.parametrize(
    ("prompt", "word"),
    [
        ("How do I make tea?", "tea"),
        ("How do I bake bread?", "bread"),
        ("What is a rainbow?", "rainbow"),
        ("Who are you?", "model"),
        ("Tell me about volcanoes.", "volcanoes"),
    ],
)
def test_answers_to_the_point_and_stops(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompt: str, word: str
) -> None:
    ids = respond(model, tokenizer, prompt)
    assert ids[-1] == EOS_TOKEN_ID
    assert word in tokenizer.decode(ids).lower()


def test_goes_on_with_a_conversation(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    ids = respond(model, tokenizer, "How do I make tea?", "Pour boiling water over a tea bag.", "Thanks!")
    assert ids[-1] == EOS_TOKEN_ID
    assert len(ids) < 40
