"""External datasets: what is understood, what is refused and where, and that nothing is imported unseen."""

import gzip
import hashlib
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from app import waiting_imports
from app.accounts import service as accounts
from app.database import Database
from app.external import service
from app.external.drafts import Wanted
from app.external.normalising import SCHEMA, normalise
from app.external.reading import SourceFileError
from app.models import AuditEvent, PersonRole, TokenScope
from app.settings import Settings
from contract.external import RowForm
from contract.vocabulary import Objective
from tests.conftest import Browser

HH_SAMPLE = Path(__file__).parents[3] / "shared" / "data" / "hh-harmless-1200.jsonl.gz"
SignIn = Callable[..., Browser]


def say(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


TEA, YES, NO = say("user", "Tea?"), say("assistant", "Yes."), say("assistant", "No.")
FORMS = {
    RowForm.CONVERSATIONAL: {"prompt": [TEA], "chosen": [YES], "rejected": [NO]},
    RowForm.IMPLICIT_PROMPT: {"chosen": [TEA, YES], "rejected": [TEA, NO]},
    RowForm.HH: {
        "chosen": "\n\nHuman: Tea?\n\nAssistant: Yes.",
        "rejected": "\n\nHuman: Tea?\n\nAssistant: No.",
    },
    RowForm.PLAIN: {"prompt": "Tea?", "chosen": "Yes.", "rejected": "No."},
}


def write(file: Path, rows: list[Any]) -> Path:
    file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return file


def rows_in(folder: Path) -> list[dict[str, Any]]:
    return [row for file in sorted(folder.glob("*.parquet")) for row in pq.read_table(file).to_pylist()]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_every_form_becomes_the_same_row(form: RowForm, tmp_path: Path) -> None:
    found = normalise(write(tmp_path / "pairs.jsonl", [FORMS[form]]), tmp_path)
    assert (found.rows, found.forms) == (1, {form: 1})
    assert rows_in(tmp_path) == [
        {
            "prompt": [TEA],
            "chosen": [YES],
            "rejected": [NO],
            "margin": None,
            "strength": None,
            "chosen_safe": None,
            "rejected_safe": None,
        }
    ]


def test_a_plain_prompt_may_be_in_hh_form(tmp_path: Path) -> None:
    prompt = "\n\nHuman: Hello\n\nAssistant: Hi\n\nHuman: Tea?\n\nAssistant:"
    normalise(write(tmp_path / "x.jsonl", [{"prompt": prompt, "chosen": " Yes.", "rejected": "No."}]), tmp_path)
    (row,) = rows_in(tmp_path)
    assert [message["content"] for message in row["prompt"]] == ["Hello", "Hi", "Tea?"]


@pytest.mark.parametrize("kind", ["parquet", "gzip"])
def test_other_kinds_of_files_hold_the_same(kind: str, tmp_path: Path) -> None:
    labels = {"strength": "better", "margin": 0.5, "chosen_safe": True, "rejected_safe": False}
    row = FORMS[RowForm.CONVERSATIONAL] | labels
    file = tmp_path / "pairs"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist([row | {"other": 1}] * 3), file)
    else:
        file.write_bytes(gzip.compress((json.dumps(row) + "\n").encode() * 3))
    found = normalise(file, tmp_path)
    assert (found.rows, found.duplicates) == (1, 2)
    assert found.source_sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    (written,) = rows_in(tmp_path)
    assert labels.items() <= written.items()


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"chosen": "x"}, "line 2: rejected: Field required."),
        ({"chosen": 3, "rejected": "x"}, "line 2: chosen: Should be text, or a list of messages"),
        ({"chosen": [say("judge", "x")], "rejected": [NO]}, "line 2: chosen.messages.0.role: Input should be"),
        (FORMS[RowForm.PLAIN] | {"strength": "much"}, "line 2: strength: Input should be 'significantly_better'"),
        (FORMS[RowForm.PLAIN] | {"margin": float("nan")}, "line 2: margin: Input should be a finite number."),
        (
            {"chosen": "\ud800", "rejected": "x", "prompt": "y"},
            "line 2: chosen: Value error, holds half of",
        ),
        ([1], "line 2: must be a JSON object"),
    ],
    ids=["missing", "type", "role", "strength", "nan", "surrogate", "list"],
)
def test_a_malformed_row_is_named_by_line_and_field(row: object, problem: str, tmp_path: Path) -> None:
    found = normalise(write(tmp_path / "bad.jsonl", [FORMS[RowForm.HH], row]), tmp_path)
    assert found.problem_count == 1
    assert found.problems[0].startswith(problem)


def test_files_that_are_none_are_named(tmp_path: Path) -> None:
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b'{"chosen": "x"}\n' * 1000)[:-12])
    with pytest.raises(SourceFileError, match="cannot be read to its end"):
        normalise(tmp_path / "cut.gz", tmp_path)
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "other.parquet")
    with pytest.raises(SourceFileError, match="no column chosen and no column rejected; it has text"):
        normalise(tmp_path / "other.parquet", tmp_path)
    (tmp_path / "torn.parquet").write_bytes((tmp_path / "other.parquet").read_bytes()[:-20])
    with pytest.raises(SourceFileError, match="cannot be read to its end"):
        normalise(tmp_path / "torn.parquet", tmp_path)
    deep = tmp_path / "deep.jsonl"
    deep.write_text("[" * 100_000)
    assert normalise(deep, tmp_path).problem_count == 1


@pytest.mark.skipif(not HH_SAMPLE.is_file(), reason="the sample of hh-rlhf is not part of the repository")
def test_the_real_sample_is_read_as_the_trainer_reads_it(tmp_path: Path) -> None:
    found = normalise(HH_SAMPLE, tmp_path)
    assert (found.rows + found.duplicates, found.problem_count, found.forms) == (1194, 0, {RowForm.HH: found.rows})
    assert found.left_out == {
        "empty message": 4,
        "roles do not alternate from the user to a last assistant message": 2,
    }
    assert sum(file.rows for file in found.files) == found.rows == len(rows_in(tmp_path))


def test_memory_does_not_grow_with_the_texts(tmp_path: Path) -> None:
    file = tmp_path / "large.jsonl"
    with file.open("w", encoding="utf-8") as stream:
        for number in range(20_000):
            stream.write(json.dumps({"prompt": f"{number} {'tea ' * 250}", "chosen": "Yes.", "rejected": "No."}) + "\n")
    tracemalloc.start()
    found = normalise(file, tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.rows == 20_000
    assert peak < file.stat().st_size, f"{peak:,} bytes for a file of {file.stat().st_size:,}"


def upload(browser: Browser, content: bytes, name: str = "elsewhere", **fields: str) -> Any:
    data = {"name": name, "objective": "safety", "licence": "MIT", "source": "a friend"} | fields
    return browser.post("/datasets/external", data, files={"file": ("pairs.jsonl", content)})


def as_lines(*rows: object) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


def test_an_import_is_seen_before_it_is_confirmed(
    sign_in: SignIn, database: Database, settings: Settings, client: TestClient
) -> None:
    trainer = sign_in(PersonRole.TRAINER)
    unsafe = FORMS[RowForm.PLAIN] | {"prompt": "<script>alert(1)</script> **loud**"}
    answer = upload(trainer, as_lines(FORMS[RowForm.HH], FORMS[RowForm.HH], unsafe))
    assert answer.status_code == 303
    place = answer.headers["location"]
    page = trainer.get(place).text
    assert "Import 2 rows" in page
    assert "<strong>loud</strong>" in page
    assert "<script>alert" not in page
    assert 'href="/datasets/external/elsewhere"' not in trainer.get("/datasets/external").text

    confirmed = trainer.post(place)
    assert confirmed.headers["location"] == "/datasets/external/elsewhere"
    assert "a friend" in trainer.get("/datasets/external/elsewhere").text
    assert trainer.post(place).status_code == 404
    with database.read() as session:
        dataset = service.get(session, "elsewhere")
        manifest = service.manifest_of(dataset)
        folder = service.folder_of(dataset, settings)
        (event,) = session.query(AuditEvent).where(AuditEvent.action == "external_dataset.imported")
    assert event.actor_id == trainer.person.id
    assert (dataset.rows, dataset.objective, manifest.duplicates) == (2, Objective.SAFETY, 1)
    assert hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest() == dataset.manifest_sha256
    assert pq.read_schema(folder / manifest.files[0].path).equals(SCHEMA)
    assert folder.parent != settings.datasets_root

    with database.write() as session:
        token = accounts.create_api_token(session, "laptop", TokenScope.DATASETS)
    client.headers["Authorization"] = f"Bearer {token}"
    (entry,) = client.get("/api/v1/external-datasets").json()
    content = client.get("/api/v1/external-datasets/elsewhere").content
    assert hashlib.sha256(content).hexdigest() == entry["manifest_sha256"]
    address = f"/api/v1/external-datasets/elsewhere/files/{manifest.files[0].path}"
    part = client.get(address, headers={"Range": "bytes=4-"})
    assert (part.status_code, part.content) == (206, (folder / manifest.files[0].path).read_bytes()[4:])
    for name in ("../../preferably.db", "%2e%2e/secret", "report.json", "/etc/passwd"):
        assert client.get(f"/api/v1/external-datasets/elsewhere/files/{name}").status_code in {404, 307}


def test_a_file_with_malformed_rows_cannot_be_imported(sign_in: SignIn) -> None:
    trainer = sign_in(PersonRole.TRAINER)
    place = upload(trainer, as_lines(FORMS[RowForm.HH], *[{"chosen": "x"}] * 25)).headers["location"]
    page = trainer.get(place).text
    assert "25 rows of pairs.jsonl are malformed" in page
    assert "line 2: rejected: Field required." in page
    assert "And 5 more." in page
    assert "Import 1 rows" not in page
    assert trainer.post(place).status_code == 422
    assert trainer.post(f"{place}/discard").headers["location"] == "/datasets/external"
    assert trainer.get(place).status_code == 404


def test_a_refused_upload_shows_the_form_as_it_was_typed(sign_in: SignIn) -> None:
    trainer = sign_in(PersonRole.TRAINER)
    answer = upload(trainer, b"{}", name="../x", licence="a licence of mine")
    assert answer.status_code == 422
    assert "use up to 100 letters" in answer.text
    assert "a licence of mine" in answer.text
    assert "choose a file" in trainer.post("/datasets/external", {"name": "x"}).text
    trainer.post(upload(trainer, as_lines(FORMS[RowForm.HH])).headers["location"])
    assert upload(trainer, b"{}").status_code == 409
    assert upload(trainer, b"PAR1 and no more", name="other").status_code == 422


def test_uploads_are_refused_before_they_are_read(sign_in: SignIn, client: TestClient) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert client.post("/datasets/external", content=b"--x\r\n" * 9, headers=headers).status_code == 401
    annotator = sign_in(PersonRole.ANNOTATOR)
    assert annotator.client.post("/datasets/external", content=b"--x\r\n" * 9, headers=headers).status_code == 403
    # Whoever may upload still needs the token of the page.
    trainer = sign_in(PersonRole.TRAINER)
    assert trainer.client.post("/datasets/external", files={"file": ("x", b"{}")}).status_code == 403


def test_two_imports_of_one_name_are_one(settings: Settings, database: Database, tmp_path: Path) -> None:
    first, second = (
        service.check(Wanted(name="twice"), write(tmp_path / form, [FORMS[form]]), form, settings)
        for form in (RowForm.HH, RowForm.PLAIN)
    )
    with database.write() as session:
        dataset = service.confirm(session, first, settings)
    content = (service.folder_of(dataset, settings) / "manifest.json").read_bytes()
    with database.write() as session, pytest.raises(service.NameTakenError):
        service.confirm(session, second, settings)
    assert (service.folder_of(dataset, settings) / "manifest.json").read_bytes() == content


def test_what_nobody_confirms_is_gone_after_a_day(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "pairs.jsonl", [FORMS[RowForm.HH]])
    old = service.check(Wanted(name="old"), file, file.name, settings)
    monkeypatch.setattr(waiting_imports, "_KEPT_S", -1)
    fresh = service.check(Wanted(name="fresh"), file, file.name, settings)
    assert service.draft_of(fresh.id, settings) == fresh
    with pytest.raises(waiting_imports.NoSuchImportError):
        service.draft_of(old.id, settings)
