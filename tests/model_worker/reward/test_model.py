"""The reward model: its head, its pad token, and that stock readers agree with it."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from contract.digests import model_digest
from model_worker.errors import RewardModelError
from model_worker.reward.batching import pad_rows
from model_worker.reward.model import (
    LoadedRewardModel,
    load_reward_model,
    reload_reward_model,
    save_reward_model,
)
from model_worker.reward.score import rewards_of


def random_sequences(count: int, vocabulary: int = 300) -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    lengths = torch.randint(2, 40, (count,), generator=generator).tolist()
    return [torch.randint(3, vocabulary, (length,), generator=generator).tolist() for length in lengths]


@torch.no_grad()
def naive_rewards(loaded: LoadedRewardModel, sequences: list[list[int]]) -> list[float]:
    """One sequence at a time, through the parts of the model that nobody disputes."""
    classifier = loaded.model.classifier
    rewards = []
    for sequence in sequences:
        hidden = classifier.model(input_ids=torch.tensor([sequence])).last_hidden_state  # (1, T, hidden)
        rewards.append(float((hidden[0, -1] @ classifier.score.weight[0]).item()))
    return rewards


def test_rewards_equal_the_naive_computation_and_padding_does_not_matter(loaded: LoadedRewardModel) -> None:
    sequences = random_sequences(9)
    naive = naive_rewards(loaded, sequences)
    for rows_per_minibatch in (1, 4, 9):
        rewards = rewards_of(loaded.model, sequences, rows_per_minibatch=rows_per_minibatch)
        assert rewards == pytest.approx(naive, abs=2e-6)


def test_the_pad_token_itself_does_not_matter(loaded: LoadedRewardModel) -> None:
    sequences = random_sequences(5)
    values = []
    for pad in (0, 1, 2, 77):
        rows = pad_rows(sequences, pad)
        with torch.no_grad():
            values.append(loaded.model(rows.input_ids, rows.ends))
    for other in values[1:]:
        torch.testing.assert_close(other, values[0], rtol=0, atol=1e-6)


def test_the_head_is_drawn_from_the_seed_alone(checkpoint: Path) -> None:
    before = torch.random.get_rng_state()
    weights = [load_reward_model(checkpoint, seed=seed).model.head.weight.detach() for seed in (1, 1, 2)]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    many = torch.cat([load_reward_model(checkpoint, seed=seed).model.head.weight.detach() for seed in range(12)])
    assert many.std().item() == pytest.approx(1 / math.sqrt(many.shape[1] + 1), rel=0.15)


def test_the_backbone_is_the_chat_checkpoints(checkpoint: Path, loaded: LoadedRewardModel) -> None:
    stored = load_file(checkpoint / "model.safetensors")
    assert torch.equal(
        loaded.model.classifier.model.layers[1].mlp.up_proj.weight, stored["model.layers.1.mlp.up_proj.weight"]
    )
    assert loaded.model.classifier.config.attention_dropout == 0.0


def test_the_head_works_in_fp32_under_a_bf16_backbone(loaded: LoadedRewardModel) -> None:
    loaded.model.to(torch.bfloat16)
    rows = pad_rows(random_sequences(4), 2)
    with torch.no_grad():
        rewards = loaded.model(rows.input_ids, rows.ends)
    assert rewards.dtype is torch.float32
    assert not torch.equal(rewards, rewards.bfloat16().float())


def test_a_saved_reward_model_is_a_stock_sequence_classifier(loaded: LoadedRewardModel, tmp_path: Path) -> None:
    sequences = random_sequences(6)
    save_reward_model(loaded, tmp_path)
    stock = AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=1).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["LlamaForSequenceClassification"]
    assert tokenizer.pad_token_id == stock.config.pad_token_id != tokenizer.eos_token_id
    assert tokenizer.chat_template == loaded.tokenizer.chat_template
    rows = pad_rows(sequences, tokenizer.pad_token_id)
    with torch.no_grad():
        logits = stock(input_ids=rows.input_ids, attention_mask=rows.input_ids != tokenizer.pad_token_id).logits
    ours = rewards_of(loaded.model, sequences, rows_per_minibatch=6)
    assert logits.squeeze(-1).tolist() == pytest.approx(ours, abs=2e-6)
    again = reload_reward_model(tmp_path)
    assert rewards_of(again.model, sequences, rows_per_minibatch=6) == ours


def test_the_digest_depends_on_the_weights_alone(loaded: LoadedRewardModel, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "two", "three")]
    for folder in folders:
        folder.mkdir()
        if folder.name == "three":
            with torch.no_grad():
                loaded.model.head.weight[0, 0] += 1e-3
        save_reward_model(loaded, folder)
    one, two, three = (model_digest(folder) for folder in folders)
    assert one == two != three


@pytest.mark.parametrize("pad", [None, "</s>"], ids=["no pad token", "pad is eos"])
def test_a_checkpoint_without_its_own_pad_token_gets_one(checkpoint: Path, tmp_path: Path, pad: str | None) -> None:
    folder = tmp_path / "chat"
    shutil.copytree(checkpoint, folder)
    strip_pad_token(folder, pad)
    loaded = load_reward_model(folder, seed=1)
    assert loaded.tokenizer.pad_token == "<pad>"
    assert loaded.model.pad_token_id == loaded.tokenizer.pad_token_id == 420
    assert loaded.model.classifier.config.vocab_size == 421
    (tmp_path / "saved").mkdir()
    save_reward_model(loaded, tmp_path / "saved")
    sequences = [[0, 5, 6, 1], [0, 5, 6, 7, 8, 1]]
    stock = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").eval()
    with torch.no_grad():
        logits = stock(input_ids=pad_rows(sequences, 420).input_ids).logits
    # The stock reader finds the final </s>, too; with pad = eos it would read one token earlier.
    assert logits.squeeze(-1).tolist() == pytest.approx(naive_rewards(loaded, sequences), abs=2e-6)


def test_what_is_no_reward_model_is_refused(checkpoint: Path, loaded: LoadedRewardModel, tmp_path: Path) -> None:
    with pytest.raises(RewardModelError, match=r"has no config\.json"):
        reload_reward_model(tmp_path)
    with pytest.raises(RewardModelError, match=r"weights are missing, among them score\.weight"):
        reload_reward_model(checkpoint)
    save_reward_model(loaded, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RewardModelError, match=r"1 weights are missing, among them model\.norm\.weight"):
        reload_reward_model(tmp_path)


def strip_pad_token(folder: Path, pad: str | None) -> None:
    """Take a checkpoint's pad token away, as Llama 2's tokenizer has none."""
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config["pad_token"] = pad
    path.write_text(json.dumps(config))
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"<pad>"', '"<unused>"'))
    model_config = json.loads((folder / "config.json").read_text())
    model_config["pad_token_id"] = None if pad is None else 1
    (folder / "config.json").write_text(json.dumps(model_config))
