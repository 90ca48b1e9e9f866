"""What a checkpoint folder must hold, and what its digests follow."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from contract.checkpoint_files import CheckpointError, inspect_checkpoint
from model_worker.demo.tiny import make_tiny_checkpoint


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "copy"))


def _change_config(folder: Path, **values: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def _only_pickles(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _no_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


def _no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def _broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        pytest.param(_only_pickles, "pickled weights", id="pickled"),
        pytest.param(_no_template, "no chat template", id="no template"),
        pytest.param(_no_tokenizer, "no tokenizer", id="no tokenizer"),
        pytest.param(_broken_config, "not valid JSON", id="broken config"),
        pytest.param(
            lambda folder: _change_config(folder, architectures=["GPT2LMHeadModel"]),
            "GPT2LMHeadModel is not supported",
            id="architecture",
        ),
        pytest.param(lambda folder: _change_config(folder, sliding_window=64), "sliding_window", id="sliding window"),
        pytest.param(lambda folder: (folder / "config.json").unlink(), "no config.json", id="no config"),
        pytest.param(lambda folder: (folder / "model.safetensors").unlink(), "no weights", id="no weights"),
    ],
)
def test_what_cannot_be_served_is_refused(folder: Path, spoil: Callable[[Path], None], words: str) -> None:
    spoil(folder)
    with pytest.raises(CheckpointError, match=words):
        inspect_checkpoint(folder)


def test_the_digests_follow_the_contents_alone(original: Path, folder: Path) -> None:
    before, copied = inspect_checkpoint(original), inspect_checkpoint(folder, name=original.name)
    assert before == copied
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    changed = inspect_checkpoint(folder)
    assert changed.template_digest != before.template_digest
    assert (changed.digest, changed.tokenizer_digest) == (before.digest, before.tokenizer_digest)
    _change_config(folder, rope_theta=5)
    assert inspect_checkpoint(folder).digest != before.digest
