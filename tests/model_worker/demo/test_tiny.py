"""The tiny random checkpoint that other tests use."""

import hashlib
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from model_worker.demo.template import EOS_TOKEN_ID
from model_worker.demo.tiny import ENTROPY, make_tiny_checkpoint, mean_entropy

PROMPT = [{"role": "user", "content": "How do I make tea?"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint."""
    return make_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def model(folder: Path) -> LlamaForCausalLM:
    """Its model."""
    return AutoModelForCausalLM.from_pretrained(folder)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Its tokenizer."""
    return AutoTokenizer.from_pretrained(folder)


def respond(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, *, count: int) -> list[list[int]]:
    """Sample `count` responses at temperature 1 and give their ids."""
    inputs = tokenizer.apply_chat_template(PROMPT, return_tensors="pt", return_dict=True)
    torch.manual_seed(0)
    sampled = model.generate(**inputs, max_new_tokens=64, do_sample=True, top_k=0, num_return_sequences=count)
    return [row.tolist() for row in sampled[:, inputs["input_ids"].shape[1] :]]


def digest(folder: Path) -> str:
    """Hash all files of a folder."""
    texts = [file.name.encode() + file.read_bytes() for file in sorted(folder.iterdir())]
    return hashlib.sha256(b"".join(texts)).hexdigest()


def test_loads_as_a_grouped_query_llama(model: LlamaForCausalLM) -> None:
    assert isinstance(model, LlamaForCausalLM)
    assert model.config.num_key_value_heads < model.config.num_attention_heads
    assert model.dtype == torch.float32


def test_without_grouped_query_every_head_has_its_own(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(make_tiny_checkpoint(tmp_path, grouped_query=False))
    assert model.config.num_key_value_heads == model.config.num_attention_heads


def test_responses_are_words_and_end_by_themselves(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    responses = respond(model, tokenizer, count=64)
    texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in responses]
    assert sum(EOS_TOKEN_ID in ids for ids in responses) > 32
    assert all(text.isascii() and text.strip() for text in texts)
    assert len(set(texts)) > 32


def test_entropy_is_neither_flat_nor_peaked(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    ids = torch.tensor([respond(model, tokenizer, count=1)[0]])
    with torch.no_grad():
        assert mean_entropy(model(ids).logits) == pytest.approx(ENTROPY, abs=1.0)


def test_what_came_before_and_where_both_matter(model: LlamaForCausalLM) -> None:
    ids = torch.tensor([[270, 280, 290, 300, 310, 320]])
    changed = torch.tensor([[271, 280, 290, 300, 310, 320]])
    with torch.no_grad():
        last = model(ids).logits[0, -1]
        assert (model(changed).logits[0, -1] - last).abs().max() > 1e-2
        assert (model(ids[:, [1, 0, 2, 3, 4, 5]]).logits[0, -1] - last).abs().max() > 1e-2


def test_same_seed_same_folder(folder: Path, tmp_path: Path) -> None:
    assert digest(make_tiny_checkpoint(tmp_path)) == digest(folder)


def test_another_seed_gives_other_weights(folder: Path, tmp_path: Path) -> None:
    assert digest(make_tiny_checkpoint(tmp_path, seed=1)) != digest(folder)


def test_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    make_tiny_checkpoint(tmp_path)
    assert torch.rand(1) == expected


@pytest.mark.parametrize("sizes", [{"heads": 3}, {"hidden_size": 50}, {"vocabulary_size": 100}])
def test_impossible_sizes_are_refused(tmp_path: Path, sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        make_tiny_checkpoint(tmp_path / "new", **sizes)
    assert not (tmp_path / "new").exists()
