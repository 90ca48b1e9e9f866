"""How the demo checkpoint is trained."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from model_worker.demo.corpus import Conversation
from model_worker.demo.template import EOS_TOKEN_ID
from model_worker.demo.train import (
    IGNORED,
    Minibatch,
    Recipe,
    TrainingProgress,
    build_minibatches,
    build_model,
    encode_conversation,
    learn_tokenizer,
    response_loss,
    schedule,
    stack_rows,
    train_demo_checkpoint,
)

TINY = Recipe(
    vocabulary_size=400,
    hidden_size=32,
    intermediate_size=48,
    layers=1,
    heads=4,
    context_length=512,
    rows=2,
    row_length=256,
    long_every=2,
    tokenizer_conversations=50,
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of 400 pieces."""
    return learn_tokenizer(TINY, seed=0)


def test_three_steps_write_a_folder_that_loads(tmp_path: Path) -> None:
    seen: list[TrainingProgress] = []
    folder = train_demo_checkpoint(tmp_path / "new", steps=3, seed=0, recipe=TINY, progress=seen.append)
    assert [(progress.step, progress.steps) for progress in seen] == [(1, 3), (2, 3), (3, 3)]
    assert all(progress.loss > 0 and progress.tokens_per_second > 0 for progress in seen)
    model = AutoModelForCausalLM.from_pretrained(folder)
    inputs = AutoTokenizer.from_pretrained(folder)("tea", return_tensors="pt")
    assert model.dtype == torch.float32
    assert model(**inputs).logits.isfinite().all()
    assert not [file.name for file in folder.iterdir() if file.name.startswith(".")]


def test_same_seed_same_weights(tmp_path: Path) -> None:
    first, second, other = (
        train_demo_checkpoint(tmp_path / name, steps=2, seed=seed, recipe=TINY) / "model.safetensors"
        for name, seed in (("first", 0), ("second", 0), ("other", 1))
    )
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes() != other.read_bytes()


def test_goes_on_from_a_checkpoint_with_its_tokenizer(tmp_path: Path) -> None:
    start = train_demo_checkpoint(tmp_path / "start", steps=1, seed=0, recipe=TINY)
    still = replace(TINY, peak_learning_rate=0.0)
    further = train_demo_checkpoint(tmp_path / "further", steps=1, seed=5, recipe=still, start=start)
    for file in start.iterdir():
        assert (further / file.name).read_bytes() == file.read_bytes()


def test_no_steps_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        train_demo_checkpoint(tmp_path, steps=0, seed=0)


def test_only_responses_and_their_eos_are_targets(tokenizer: PreTrainedTokenizerFast) -> None:
    messages: Conversation = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Tea?"},
        {"role": "assistant", "content": "Yes, gladly."},
        {"role": "user", "content": "Thanks!"},
        {"role": "assistant", "content": "Bye."},
    ]
    inputs, targets = encode_conversation(tokenizer, messages)
    spoken = [target for target in targets if target != IGNORED]
    assert inputs == tokenizer.apply_chat_template(list(messages), return_dict=False)
    assert tokenizer.decode(spoken) == " Yes, gladly. </s> Bye. </s>"
    assert all(target in {IGNORED, following} for target, following in zip(targets, inputs[1:], strict=False))


def test_packing_loses_and_mixes_nothing(tokenizer: PreTrainedTokenizerFast) -> None:
    short, long = islice(build_minibatches(tokenizer, TINY, seed=0), 2)
    assert short.inputs.shape == (2, 256)
    assert long.inputs.shape == (1, 512)
    for minibatch in (short, long):
        starts = (minibatch.positions == 0) & (minibatch.conversation > 0)
        assert (minibatch.inputs[starts] == tokenizer.bos_token_id).all()
        assert (minibatch.targets[minibatch.conversation == 0] == IGNORED).all()
        assert (minibatch.targets == EOS_TOKEN_ID).sum() >= starts.sum()


def test_packed_loss_equals_the_loss_of_conversations_alone() -> None:
    torch.manual_seed(0)
    model = build_model(TINY, 400)
    rows = [([3, 4, 5, 6], [IGNORED, 5, 6, 7]), ([8, 9, 10], [9, 10, 11])]
    packed = response_loss(model, stack_rows([rows], 16))
    alone = [response_loss(model, stack_rows([[row]], 8)) for row in rows]
    assert packed.item() == pytest.approx((alone[0] + alone[1]).item() / 2, abs=1e-5)


def test_minibatch_without_padding_is_a_plain_causal_model() -> None:
    torch.manual_seed(0)
    model = build_model(TINY, 400)
    ids = torch.randint(400, (2, 12))
    everything = Minibatch(
        inputs=ids[:, :-1],
        targets=ids[:, 1:],
        positions=torch.arange(11).expand(2, 11),
        conversation=torch.ones(2, 11, dtype=torch.long),
    )
    assert response_loss(model, everything).item() == pytest.approx(model(ids, labels=ids).loss.item(), abs=1e-5)


def test_schedule_rises_then_falls() -> None:
    shares = [schedule(step, 100, 10) for step in range(1, 101)]
    assert shares.index(max(shares)) == 9
    assert max(shares) == 1.0
    assert shares[-1] == pytest.approx(0.02)
