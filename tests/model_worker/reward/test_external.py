"""Preference data from elsewhere: the HH form and conversational JSON lines."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.external import parse_hh
from contract.vocabulary import Role, Strength
from model_worker.errors import DatasetError
from model_worker.reward.external import load_external_dataset

HERE = Path(__file__).parent
HH_SAMPLE = HERE.parents[3] / "shared" / "data" / "hh-harmless-1200.jsonl.gz"


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_hh_form_becomes_messages() -> None:
    messages = parse_hh(
        "\n\nHuman: Hello\nthere\n\nAssistant: Hi\n\nin two paragraphs\n\nHuman: Bye\n\nAssistant: Bye."
    )
    assert [message.role for message in messages] == [Role.USER, Role.ASSISTANT, Role.USER, Role.ASSISTANT]
    assert messages[0].content == "Hello\nthere"
    assert messages[1].content == "Hi\n\nin two paragraphs"


def test_the_extract_is_read_whole() -> None:
    dataset = load_external_dataset(HERE / "hh_extract.jsonl")
    assert dataset.name == "hh_extract"
    assert len(dataset.comparisons) == 35
    assert dataset.left_out == {}
    assert all(comparison.strength is None for comparison in dataset.comparisons)
    assert all(comparison.prompt[-1].role is Role.USER for comparison in dataset.comparisons)


@pytest.mark.skipif(not HH_SAMPLE.is_file(), reason="the sample of hh-rlhf is not part of the repository")
def test_the_real_sample_is_read_and_what_cannot_be_used_is_counted() -> None:
    dataset = load_external_dataset(HH_SAMPLE)
    assert dataset.name == "hh-harmless-1200"
    assert len(dataset.comparisons) == 1194
    assert dataset.left_out == {
        "empty message": 4,
        "roles do not alternate from the user to a last assistant message": 2,
    }


def test_conversational_rows_with_and_without_a_prompt(tmp_path: Path) -> None:
    question = {"role": "user", "content": "Tea?"}
    yes, no = {"role": "assistant", "content": "Yes."}, {"role": "assistant", "content": "No."}
    path = write(
        tmp_path / "pairs.jsonl",
        [
            {"prompt": [question], "chosen": [yes], "rejected": [no], "strength": "better", "chosen_safe": True},
            {"chosen": [question, yes], "rejected": [question, no], "source": "elsewhere"},
            {"prompt": [question], "chosen": [yes], "rejected": [yes]},
            {"chosen": [question, yes], "rejected": [{"role": "user", "content": "Bread?"}, no]},
        ],
    )
    dataset = load_external_dataset(path)
    first, second = dataset.comparisons
    assert (first.strength, first.chosen_safe, first.rejected_safe) == (Strength.BETTER, True, None)
    assert (first.prompt, first.chosen, first.rejected) == (second.prompt, "Yes.", "No.")
    assert first.conversation_key == second.conversation_key
    assert dataset.left_out == {"equal responses": 1, "chosen and rejected have different contexts": 1}


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"chosen": "\n\nHuman: a\n\nAssistant: b"}, "line 2: rejected: Field required"),
        ({"chosen": 3, "rejected": "x"}, "line 2: chosen: Should be text"),
        (["chosen"], "line 2 must be a JSON object"),
    ],
    ids=["missing", "type", "list"],
)
def test_a_malformed_row_is_named(tmp_path: Path, row: object, complaint: str) -> None:
    good = {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}
    with pytest.raises(DatasetError, match=complaint):
        load_external_dataset(write(tmp_path / "bad.jsonl", [good, row]))


def test_a_broken_gzip_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"chosen": "x"}\n' * 100)[:-12])
    with pytest.raises(DatasetError, match=r"cut\.jsonl\.gz"):
        load_external_dataset(path)


def test_the_parquet_of_a_training_set_is_read(tmp_path: Path) -> None:
    say = [[{"role": role, "content": text}] for role, text in (("user", "Tea?"), ("assistant", "Yes."))]
    row = {"prompt": say[0], "chosen": say[1], "rejected": [{"role": "assistant", "content": "No."}]}
    rows = [row | {"strength": "better", "margin": 2 / 3, "source": "batch-001"}, row | {"strength": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train-00000-of-00001.parquet")
    dataset = load_external_dataset(tmp_path / "train-00000-of-00001.parquet")
    assert [comparison.strength for comparison in dataset.comparisons] == [Strength.BETTER, None]
    assert dataset.name == "train-00000-of-00001"
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    with pytest.raises(DatasetError, match="torn"):
        load_external_dataset(tmp_path / "torn.parquet")
