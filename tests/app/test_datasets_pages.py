"""Datasets over HTTP: pages for trainers, the API for programs, and nothing for anybody else."""

import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.accounts import service as accounts
from app.database import Database
from app.datasets import service as datasets
from app.models import PersonRole, PreferenceDataset, TokenScope
from app.settings import Settings
from contract.vocabulary import Objective
from tests import factories as make
from tests.conftest import Browser

FILE = "helpfulness/train-00000-of-00001.parquet"


@pytest.fixture
def frozen(database: Database, settings: Settings) -> PreferenceDataset:
    """A dataset with something unpleasant in it."""
    with database.write() as session:
        ann = make.make_person(session)
        batch = make.make_week(session, ann, conversations=2)
        make.make_judged(session, batch, ann, "<script>alert(1)</script> **loud** ![x](http://evil.example/x.png)")
        make.make_judged(session, batch, ann, "unsafe", objective=Objective.SAFETY, safe=(False, True))
    return make.freeze(database, batch, settings)


@pytest.fixture
def api(client: TestClient, database: Database) -> TestClient:
    """A program with a token for datasets."""
    with database.write() as session:
        token = accounts.create_api_token(session, "trainer's laptop", TokenScope.DATASETS)
    client.headers["Authorization"] = f"Bearer {token}"
    return client


def test_the_pages_show_what_was_frozen(frozen: PreferenceDataset, sign_in: Callable[..., Browser]) -> None:
    trainer = sign_in(PersonRole.TRAINER)
    listed = trainer.get("/datasets").text
    assert 'href="/datasets/batch-001"' in listed
    assert frozen.manifest_sha256[:12] in listed
    page = trainer.get("/datasets/batch-001").text
    assert frozen.manifest_sha256 in page
    assert "chosen unsafe rejected safe" in page
    assert "The chosen response was unsafe and the other one safe." in page
    assert f'href="/datasets/batch-001/files/{FILE}"' in page
    assert "A says What is tea number 0? (helpfulness)" in page
    assert "<strong>loud</strong>" in page
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "(safety)" not in page
    safety = trainer.get("/datasets/batch-001?objective=safety").text
    assert "A says What is tea number 0? (safety)" in safety
    assert trainer.get("/datasets/batch-001?objective=beauty").status_code == 422
    assert trainer.get("/datasets/batch-999").status_code == 404


def test_a_list_without_datasets_says_when_there_will_be_one(sign_in: Callable[..., Browser]) -> None:
    assert "There is no dataset yet" in sign_in(PersonRole.TRAINER).get("/datasets").text


def test_a_dataset_whose_files_are_gone_still_has_a_page(
    frozen: PreferenceDataset, settings: Settings, sign_in: Callable[..., Browser]
) -> None:
    (datasets.folder_of(frozen, settings)).rename(settings.data_dir / "elsewhere")
    trainer = sign_in(PersonRole.TRAINER)
    assert "preferably dataset export batch-001" in trainer.get("/datasets/batch-001").text
    assert trainer.get(f"/datasets/batch-001/files/{FILE}").status_code == 404
    assert trainer.get("/datasets/batch-001/archive").status_code == 404


def test_files_and_the_archive_are_sent_to_be_saved(
    frozen: PreferenceDataset, settings: Settings, sign_in: Callable[..., Browser]
) -> None:
    trainer = sign_in(PersonRole.TRAINER)
    folder = datasets.folder_of(frozen, settings)
    answer = trainer.get(f"/datasets/batch-001/files/{FILE}")
    assert answer.content == (folder / FILE).read_bytes()
    assert answer.headers["content-disposition"] == (
        'attachment; filename="batch-001-helpfulness-train-00000-of-00001.parquet"'
    )
    assert answer.headers["x-content-type-options"] == "nosniff"
    archive = trainer.get("/datasets/batch-001/archive")
    assert archive.headers["content-disposition"] == 'attachment; filename="batch-001.tar"'
    with tarfile.open(fileobj=io.BytesIO(archive.content)) as tar:
        found = {name: stream.read() for name in tar.getnames() if (stream := tar.extractfile(name)) is not None}
    assert found == {
        f"batch-001/{path.relative_to(folder).as_posix()}": path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    assert trainer.get("/datasets/batch-001/archive").content == archive.content


@pytest.mark.usefixtures("frozen")
def test_pages_are_for_trainers_and_admins(client: TestClient, sign_in: Callable[..., Browser]) -> None:
    people = {role: sign_in(role) for role in PersonRole}
    paths = ["", "/batch-001", f"/batch-001/files/{FILE}", "/batch-001/files/README.md", "/batch-001/archive"]
    for path in (f"/datasets{path}" for path in paths):
        assert {role: browser.get(path).status_code for role, browser in people.items()} == {
            PersonRole.ANNOTATOR: 403,
            PersonRole.REVIEWER: 403,
            PersonRole.TRAINER: 200,
            PersonRole.ADMIN: 200,
        }
        assert client.get(path).headers["location"].startswith("/sign-in")


def test_the_api_gives_the_manifest_byte_for_byte(
    frozen: PreferenceDataset, settings: Settings, api: TestClient
) -> None:
    (entry,) = api.get("/api/v1/datasets").json()
    assert (entry["name"], entry["batch"], entry["rows"]) == ("batch-001", 1, frozen.rows)
    answer = api.get("/api/v1/datasets/batch-001")
    assert hashlib.sha256(answer.content).hexdigest() == entry["manifest_sha256"] == frozen.manifest_sha256
    assert answer.headers["content-type"] == "application/json"
    content = (datasets.folder_of(frozen, settings) / FILE).read_bytes()
    part = api.get(f"/api/v1/datasets/batch-001/files/{FILE}", headers={"Range": "bytes=4-99"})
    assert (part.status_code, part.content) == (206, content[4:100])
    missing = api.get("/api/v1/datasets/batch-999")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")


@pytest.mark.usefixtures("frozen")
def test_the_api_is_for_programs_with_a_token(
    client: TestClient, database: Database, worker_headers: dict[str, str]
) -> None:
    path = "/api/v1/datasets/batch-001"
    assert client.get(path).status_code == 401
    assert client.get(path, headers={"Authorization": "Bearer guess"}).status_code == 401
    assert client.get(path, headers=worker_headers).status_code == 200
    with database.write() as session:
        admin = make.make_person(session, "Root", PersonRole.ADMIN)
        token = accounts.create_api_token(session, "lost laptop", TokenScope.DATASETS)
        found = accounts.find_api_token(session, token)
        assert found is not None
        accounts.revoke_api_token(session, found, actor=admin)
    assert client.get(path, headers={"Authorization": f"Bearer {token}"}).status_code == 401


OUTSIDE = [
    "../pseudonym.secret",
    "../../preferably.db",
    "..%2f..%2fpreferably.db",
    "%2e%2e/%2e%2e/preferably.db",
    "helpfulness/../../batch-0010/secret.txt",
    "../batch-0010/secret.txt",
    "/etc/passwd",
    "%2fetc/passwd",
    "manifest.json%00",
    "helpfulness\\..\\..\\secret.txt",
    "helpfulness",
    "",
    "helpfulness/other.parquet",
]


def test_no_path_leads_out_of_a_dataset(
    frozen: PreferenceDataset, settings: Settings, api: TestClient, sign_in: Callable[..., Browser]
) -> None:
    sibling = settings.datasets_root / "batch-0010"
    sibling.mkdir()
    for place in (sibling / "secret.txt", settings.datasets_root / "pseudonym.secret"):
        place.write_text("SECRET")
    (datasets.folder_of(frozen, settings) / "helpfulness" / "other.parquet").write_text("SECRET")
    trainer = sign_in(PersonRole.TRAINER)
    for name in OUTSIDE:
        for answer in (
            api.get(f"/api/v1/datasets/batch-001/files/{name}"),
            trainer.get(f"/datasets/batch-001/files/{name}"),
        ):
            assert answer.status_code in {404, 307}, name
            assert "SECRET" not in answer.text
            assert "root:" not in answer.text


def test_a_link_in_the_store_is_not_followed(
    frozen: PreferenceDataset, settings: Settings, api: TestClient, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("SECRET")
    file = datasets.folder_of(frozen, settings) / FILE
    file.unlink()
    file.symlink_to(tmp_path / "secret")
    assert api.get(f"/api/v1/datasets/batch-001/files/{FILE}").status_code == 404
    problems = datasets.verify_folder(datasets.folder_of(frozen, settings))
    assert problems == [f"manifest.json: the path {FILE} leads out of the folder."]
