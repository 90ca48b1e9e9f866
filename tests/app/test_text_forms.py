"""The rows of a frozen dataset as text: JSON lines and HH form, from the page, the API and the command."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from app.accounts import service as accounts
from app.database import Database
from app.datasets import service as datasets
from app.datasets import text_forms
from app.datasets.text_forms import Part, TextForm, hh_row
from app.models import PersonRole, PreferenceDataset, TokenScope
from app.settings import Settings
from contract.dataset import PreferenceRow
from contract.external import parse_row
from contract.vocabulary import Objective, Role, Split
from tests import factories as make
from tests.app.test_datasets_commands import Run, run
from tests.conftest import Browser

__all__ = ["run"]
ODD = 'Line\u2028end, tab\t, \x85, quote " and ümlaut 🙂'


@pytest.fixture
def frozen(database: Database, settings: Settings) -> PreferenceDataset:
    with database.write() as session:
        ann = make.make_person(session)
        batch = make.make_week(session, ann, conversations=3)
        make.make_judged(session, batch, ann, ODD)
        make.make_judged(session, batch, ann, "Say\n\nHuman: yes")
    return make.freeze(database, batch, settings)


def part_of(frozen: PreferenceDataset, settings: Settings, objective: Objective = Objective.HELPFULNESS) -> Part:
    folder = datasets.folder_of(frozen, settings)
    return text_forms.part(folder, datasets.manifest_of(frozen), objective, Split.TRAIN)


def lines(part: Part, form: TextForm) -> list[dict[str, Any]]:
    # Even readers that take rare characters for ends of lines find one row a line.
    return [json.loads(line) for line in b"".join(part.pieces(form)).decode().splitlines()]


def parquet_rows(part: Part) -> list[dict[str, Any]]:
    return [row for file in part.files for row in pq.read_table(file).to_pylist()]


def test_json_lines_have_every_column_in_the_order_of_the_files(frozen: PreferenceDataset, settings: Settings) -> None:
    for objective in Objective:
        part = part_of(frozen, settings, objective)
        found = lines(part, TextForm.JSONL)
        assert found == parquet_rows(part)
        assert len(found) == part.rows
        for row in found:
            assert PreferenceRow.model_validate(row).objective is objective


def test_hh_form_reads_back_as_the_same_pairs(frozen: PreferenceDataset, settings: Settings) -> None:
    parts = text_forms.parts(datasets.folder_of(frozen, settings), datasets.manifest_of(frozen))
    found = [parse_row(row) for part in parts for row in lines(part, TextForm.HH)]
    rows = [row for part in parts for row in parquet_rows(part)]
    sayable = [row for row in rows if "\n\nHuman:" not in str(row["prompt"][-1]["content"])]
    assert len(sayable) == len(rows) - 1
    assert any(len(pair.prompt) > 1 for pair in found)
    said = [[(message.role.value, message.content) for message in pair.prompt] for pair in found]
    assert said == [
        [(message["role"], message["content"]) for message in row["prompt"] if message["role"] != Role.SYSTEM]
        for row in sayable
    ]
    assert [(pair.chosen, pair.rejected) for pair in found] == [
        (row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in sayable
    ]


def say(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def test_what_hh_form_cannot_say_is_left_out() -> None:
    row = {
        "prompt": [say("system", "Be kind."), say("user", "Tea?")],
        "chosen": [say("assistant", "Yes.")],
        "rejected": [say("assistant", "No.")],
    }
    said = {
        side: f"\n\nHuman: Tea?\n\nAssistant: {answer}" for side, answer in (("chosen", "Yes."), ("rejected", "No."))
    }
    assert hh_row(row) == said
    assert hh_row(row | {"chosen": [say("assistant", "Yes.\n\nHuman: And?")]}) is None
    assert hh_row(row | {"chosen": [say("assistant", " No.\n")]}) is None
    assert hh_row(row | {"prompt": [say("user", " ")]}) is None
    assert hh_row(row | {"chosen": [say("assistant", "Human: Yes.")]}) is not None


def test_the_same_bytes_each_time(frozen: PreferenceDataset, settings: Settings) -> None:
    part = part_of(frozen, settings)
    packed = [b"".join(text_forms.gzipped(part.pieces(TextForm.JSONL))) for _ in range(2)]
    assert packed[0] == packed[1]
    assert packed[0][4:8] == bytes(4)
    assert gzip.decompress(packed[0]) == b"".join(part.pieces(TextForm.JSONL))


def test_only_a_piece_is_in_memory(tmp_path: Path) -> None:
    messages = {side: [say("assistant", f"{side} {'x' * 10_000}")] for side in ("chosen", "rejected")}
    row = {"prompt": [say("user", "Tea?")]} | messages
    with pq.ParquetWriter(tmp_path / "rows.parquet", pa.Table.from_pylist([row]).schema) as writer:
        for _ in range(10):
            writer.write_table(pa.Table.from_pylist([row] * 300))
    part = Part(Objective.HELPFULNESS, Split.TRAIN, (tmp_path / "rows.parquet",), 3000)
    pieces = [piece.count(b"\n") for piece in part.pieces(TextForm.HH)]
    assert sum(pieces) == 3000
    assert max(pieces) <= 256


def test_the_page_and_the_api_send_them(
    frozen: PreferenceDataset,
    settings: Settings,
    database: Database,
    client: TestClient,
    sign_in: Callable[..., Browser],
) -> None:
    trainer = sign_in(PersonRole.TRAINER)
    with database.write() as session:
        token = accounts.create_api_token(session, "laptop", TokenScope.DATASETS)
    part = part_of(frozen, settings)
    page = trainer.get("/datasets/batch-001").text
    for form in TextForm:
        address = f"/datasets/batch-001/as/{form}/helpfulness/train"
        assert f'href="{address}"' in page
        plain = trainer.get(address)
        assert plain.content == b"".join(part.pieces(form))
        ending = "-hh.jsonl" if form is TextForm.HH else ".jsonl"
        assert plain.headers["content-disposition"] == f'attachment; filename="batch-001-helpfulness-train{ending}"'
        answer = client.get(f"/api/v1{address}?gzip=true", headers={"Authorization": f"Bearer {token}"})
        assert answer.headers["content-type"] == "application/gzip"
        assert gzip.decompress(answer.content) == plain.content
    for path, status in (
        ("batch-999/as/hh/helpfulness/train", 404),
        ("batch-001/as/xml/helpfulness/train", 422),
        ("batch-001/as/hh/beauty/train", 422),
    ):
        assert trainer.get(f"/datasets/{path}").status_code == status
    assert sign_in(PersonRole.ANNOTATOR).get("/datasets/batch-001/as/hh/helpfulness/train").status_code == 403
    assert client.get("/api/v1/datasets/batch-001/as/hh/helpfulness/train").status_code == 401
    datasets.folder_of(frozen, settings).rename(settings.data_dir / "elsewhere")
    assert trainer.get("/datasets/batch-001/as/hh/helpfulness/train").status_code == 404


def test_a_dataset_without_rows_of_a_split(
    database: Database, settings: Settings, sign_in: Callable[..., Browser]
) -> None:
    with database.write() as session:
        batch = make.make_open_batch(session)
        make.make_judged(session, batch, make.make_person(session), "The only one")
    make.freeze(database, batch, settings)
    answer = sign_in(PersonRole.TRAINER).get("/datasets/batch-001/as/hh/safety/test")
    assert answer.status_code == 404
    assert "no rows of the objective safety in the split test" in answer.text


@pytest.mark.parametrize("form", TextForm, ids=str)
def test_the_command_writes_checked_rows(
    frozen: PreferenceDataset, settings: Settings, run: Run, tmp_path: Path, form: TextForm
) -> None:
    target = tmp_path / "out" / "text"
    status, out, err = run("export", "batch-001", "--to", target, "--form", form)
    assert status == 0, err
    part = part_of(frozen, settings)
    assert (target / "helpfulness" / f"train{text_forms.file_name(form)}").read_bytes() == b"".join(part.pieces(form))
    assert (target / "frozen-manifest.json").is_file()
    assert [path.name for path in target.parent.iterdir()] == ["text"]
    assert f"rows as {form} in" in out
    assert ("cannot be said" in err) == (form is TextForm.HH)
    status, _, err = run("export", "batch-001", "--to", target, "--form", form)
    assert status == 2
    assert "exists already" in err
