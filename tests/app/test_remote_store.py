"""Datasets in a store elsewhere: written before they exist, fetched where they are missing, refused where damaged."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from app.database import Database
from app.datasets import service as datasets
from app.datasets.remote_store import StoreUnreachableError
from app.datasets.verify import verify_folder
from app.models import PersonRole, PreferenceDataset
from app.settings import Settings
from tests import factories as make
from tests.conftest import Browser


@pytest.fixture
def elsewhere(settings: Settings, tmp_path: Path) -> Path:
    settings.dataset_store = (tmp_path / "elsewhere").as_uri()
    (tmp_path / "elsewhere").mkdir()
    return tmp_path / "elsewhere"


def freeze(database: Database, settings: Settings) -> PreferenceDataset:
    with database.write() as session:
        batch = make.make_week(session, make.make_person(session), conversations=4)
    return make.freeze(database, batch, settings)


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_another_machine_fetches_what_it_has_not(
    database: Database, settings: Settings, elsewhere: Path, sign_in: Callable[..., Browser], tmp_path: Path
) -> None:
    dataset = freeze(database, settings)
    here = settings.datasets_root / dataset.name
    frozen = content(here)
    assert content(elsewhere / dataset.name) == frozen
    shutil.rmtree(here)
    assert sign_in(PersonRole.TRAINER).get(f"/datasets/{dataset.name}/files/manifest.json").status_code == 200
    assert content(here) == frozen
    assert list(settings.datasets_root.iterdir()) == [here]
    shutil.rmtree(here)
    with database.read() as session:
        assert datasets.export(session, dataset, tmp_path / "copy", settings) == []
    assert content(tmp_path / "copy") == frozen


def test_a_store_that_fails_keeps_the_dataset_from_existing(
    database: Database, settings: Settings, elsewhere: Path
) -> None:
    (elsewhere / "batch-001").write_text("a file is in the way")
    with pytest.raises(StoreUnreachableError, match="batch-001 cannot be written to the dataset store"):
        freeze(database, settings)
    with database.read() as session:
        assert datasets.all_datasets(session) == []
    assert list(settings.datasets_root.iterdir()) == []


def test_what_is_damaged_elsewhere_is_not_taken(
    database: Database, settings: Settings, elsewhere: Path, sign_in: Callable[..., Browser], tmp_path: Path
) -> None:
    dataset = freeze(database, settings)
    shutil.rmtree(settings.datasets_root / dataset.name)
    file = elsewhere / dataset.name / "helpfulness" / "train-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    answer = sign_in(PersonRole.TRAINER).get(f"/datasets/{dataset.name}/files/manifest.json")
    assert answer.status_code == 409
    assert "is not as it was frozen: helpfulness/train-00000-of-00001.parquet is damaged" in answer.text
    assert list(settings.datasets_root.iterdir()) == []
    with database.read() as session:
        (problem,) = datasets.export(session, dataset, tmp_path / "again", settings)
    assert "is not as it was frozen" in problem
    assert verify_folder(tmp_path / "again", manifest_sha256=dataset.manifest_sha256) == []


def test_a_store_of_no_known_kind_is_named(database: Database, settings: Settings) -> None:
    settings.dataset_store = "gopher://somewhere/datasets"
    with pytest.raises(StoreUnreachableError, match="Check PREFERABLY_DATASET_STORE"):
        freeze(database, settings)
