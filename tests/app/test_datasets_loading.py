"""Other libraries read a frozen dataset unchanged: the snippets of docs/dataset-format.md, run as they are."""

import math
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from app.database import connect
from app.datasets import card
from app.datasets.parquet import SCHEMA
from app.models import Annotation
from app.paths import ROOT
from app.settings import Settings
from contract.dataset import PreferenceRow
from contract.vocabulary import LeftOut, Objective
from model_worker.reward.data import find_leaks, load_preference_dataset
from tests import factories as make

DOCUMENT = ROOT / "docs" / "dataset-format.md"
# Its libraries warn about themselves and about each other.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def frozen(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds a frozen dataset, ``batch-001``, and one that has no safety rows, ``batch-002``."""
    here = tmp_path_factory.mktemp("frozen")
    shutil.copy(sqlite_template, here / "here.db")
    settings = Settings(database_url=f"sqlite:///{here / 'here.db'}", data_dir=here, datasets_dir=here / "datasets")
    settings.ensure_secrets()
    database = connect(settings.database_url)
    with database.write() as session:
        ann = make.make_person(session)
        full = make.make_week(session, ann, conversations=5)
        for annotation in session.scalars(select(Annotation).where(Annotation.objective == Objective.HELPFULNESS)):
            annotation.edited_text = "Even better."
        small = make.make_open_batch(session)
        make.make_judged(session, small, ann, "The only conversation")
    for batch in (full, small):
        make.freeze(database, batch, settings)
    database.dispose()
    return here / "datasets"


@pytest.fixture
def offline(frozen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the datasets in it; caches stay in the test's own folder."""
    import datasets as hugging_face  # noqa: PLC0415 - a second's work that other tests need not pay

    shutil.copytree(frozen, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(hugging_face.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    return tmp_path / "work"


SHORT: dict[str, Any] = {
    "max_steps": 3,
    "per_device_train_batch_size": 2,
    "learning_rate": 1e-3,
    "logging_steps": 1,
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "disable_tqdm": True,
    "report_to": "none",
    "save_strategy": "no",
}


def weights(model: Any) -> list[Any]:
    return [weight.detach().clone() for weight in model.parameters()]


def has_moved(model: Any, before: list[Any]) -> bool:
    return any(not weight.equal(then) for weight, then in zip(model.parameters(), before, strict=True))


def snippets() -> list[str]:
    return re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.usefixtures("offline")
def test_datasets_loads_each_config_and_split() -> None:
    from datasets import get_dataset_config_names, load_dataset  # noqa: PLC0415

    assert get_dataset_config_names("./batch-001") == ["helpfulness", "safety"]
    for objective in Objective:
        loaded = load_dataset("./batch-001", objective.value)
        assert {split: rows.num_rows for split, rows in loaded.items()} == {"train": 6, "test": 1}
        for row in (*loaded["train"], *loaded["test"]):
            assert PreferenceRow.model_validate(row).objective is objective
    only = load_dataset("./batch-002")
    assert {split: rows.num_rows for split, rows in only.items()} == {"train": 1}


def test_the_model_worker_reads_every_row_and_finds_no_leak(frozen: Path) -> None:
    for objective in Objective:
        loaded = load_preference_dataset(frozen / "batch-001", objective)
        assert (len(loaded.train), len(loaded.test)) == (6, 1)
        assert find_leaks(loaded.train, loaded.test) == ()


def test_the_documented_snippets_run(offline: Path) -> None:
    from model_worker.demo.tiny import make_tiny_checkpoint  # noqa: PLC0415

    make_tiny_checkpoint(offline / "chat-checkpoint")
    loading, training, editing = snippets()
    found: dict[str, Any] = {}
    exec(loading, found)
    exec(training, found)
    trainer = found["trainer"]
    assert trainer.state.global_step == 2
    assert trainer.state.log_history[-1]["train_loss"] > 0
    assert "margin" in trainer.train_dataset.column_names
    exec(editing, found)
    assert len(found["pairs"]) == 6
    assert found["pairs"][0]["chosen"] == [{"role": "assistant", "content": "Even better."}]
    assert found["pairs"][0]["rejected"] == found["rows"][0]["chosen"]


@pytest.mark.parametrize("objective", Objective, ids=str)
def test_trl_trains_a_reward_model_on_the_rows_as_they_are(offline: Path, objective: Objective) -> None:
    from datasets import load_dataset  # noqa: PLC0415
    from transformers import AutoModelForSequenceClassification, AutoTokenizer  # noqa: PLC0415
    from trl.trainer.reward_config import RewardConfig  # noqa: PLC0415
    from trl.trainer.reward_trainer import RewardTrainer  # noqa: PLC0415

    from model_worker.demo.tiny import make_tiny_checkpoint  # noqa: PLC0415

    make_tiny_checkpoint(offline / "chat-checkpoint")
    tokenizer = AutoTokenizer.from_pretrained("chat-checkpoint")
    model = AutoModelForSequenceClassification.from_pretrained("chat-checkpoint", num_labels=1)
    model.config.pad_token_id = tokenizer.pad_token_id
    rows = load_dataset("./batch-001", objective.value)
    trainer = RewardTrainer(
        model,
        args=RewardConfig(str(offline / "reward-model"), **SHORT),
        train_dataset=rows["train"],
        eval_dataset=rows["test"],
        processing_class=tokenizer,
    )
    before = weights(model)
    trainer.train()
    assert trainer.state.global_step == SHORT["max_steps"]
    assert "margin" in trainer.train_dataset.column_names
    assert has_moved(model, before)
    assert trainer.evaluate()["eval_loss"] > 0


@pytest.mark.parametrize("objective", Objective, ids=str)
def test_trl_trains_by_dpo_on_the_rows_as_they_are(offline: Path, objective: Objective) -> None:
    from datasets import load_dataset  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415
    from trl.trainer.dpo_config import DPOConfig  # noqa: PLC0415
    from trl.trainer.dpo_trainer import DPOTrainer  # noqa: PLC0415

    from model_worker.demo.tiny import make_tiny_checkpoint  # noqa: PLC0415

    make_tiny_checkpoint(offline / "chat-checkpoint")
    model = AutoModelForCausalLM.from_pretrained("chat-checkpoint")
    rows = load_dataset("./batch-001", objective.value)
    trainer = DPOTrainer(
        model,
        args=DPOConfig(str(offline / "dpo-model"), **SHORT),
        train_dataset=rows["train"],
        eval_dataset=rows["test"],
        processing_class=AutoTokenizer.from_pretrained("chat-checkpoint"),
    )
    before = weights(model)
    trainer.train()
    assert trainer.state.global_step == SHORT["max_steps"]
    # At first the model is its own reference: the loss is that of a coin.
    assert trainer.state.log_history[0]["loss"] == pytest.approx(math.log(2), abs=0.01)
    assert has_moved(model, before)
    assert "eval_rewards/margins" in trainer.evaluate()


def test_the_document_and_the_card_name_every_column_and_reason(offline: Path) -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    text = (offline / "batch-001" / "README.md").read_text(encoding="utf-8")
    for column in SCHEMA.names:
        assert f"| `{column}` |" in document
        assert f"| `{column}` |" in text
    for reason in LeftOut:
        assert f"| `{reason}` |" in document
    assert set(card.LEFT_OUT_IN_WORDS) == set(LeftOut)
