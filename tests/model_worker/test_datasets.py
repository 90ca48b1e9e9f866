"""Fetching datasets: resumed, checked, complete or absent."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from model_worker.client import AppClient, AppUnavailableError
from model_worker.datasets import DatasetError, fetch_dataset
from tests.model_worker.app_server import TOKEN, AppServer
from tests.model_worker.frozen import serve_dataset

FILES = "/api/v1/datasets/week-1/files/"
TRAIN = "helpfulness/train-00000-of-00001.parquet"
TEST = "helpfulness/test-00000-of-00001.parquet"


@pytest.fixture
def client(app_server: AppServer) -> Iterator[AppClient]:
    with AppClient(app_server.url, TOKEN) as client:
        yield client


def nothing() -> None:
    """A lease that needs no heartbeat."""


def test_a_dataset_is_fetched_once(app_server: AppServer, client: AppClient, tmp_path: Path) -> None:
    ref = serve_dataset(app_server.files)
    beats: list[int] = []
    folder = fetch_dataset(client, ref, tmp_path, lambda: beats.append(1))
    assert folder == tmp_path / "week-1"
    assert (folder / TRAIN).read_bytes() == b"train" * 1000
    assert (folder / "manifest.json").read_bytes() == app_server.files["/api/v1/datasets/week-1"]
    assert len(beats) >= 4
    assert [path.name for path in tmp_path.iterdir()] == ["week-1"]
    calls = len(app_server.calls)
    assert fetch_dataset(client, ref, tmp_path, nothing) == folder
    assert len(app_server.calls) == calls


def test_a_broken_transfer_goes_on_where_it_was(app_server: AppServer, client: AppClient, tmp_path: Path) -> None:
    ref = serve_dataset(app_server.files)
    app_server.failures[FILES + TEST] = [(503, "away", "going down")]
    with pytest.raises(AppUnavailableError):
        fetch_dataset(client, ref, tmp_path, nothing)
    assert not (tmp_path / "week-1").exists()
    fetch_dataset(client, ref, tmp_path, nothing)
    assert app_server.calls.count(FILES + TRAIN) == 1
    assert app_server.calls.count(FILES + TEST) == 2


def test_damaged_files_are_refused_and_fetched_again(app_server: AppServer, client: AppClient, tmp_path: Path) -> None:
    ref = serve_dataset(app_server.files)
    right = app_server.files[FILES + TRAIN]
    app_server.files[FILES + TRAIN] = right[:-1] + b"?"
    with pytest.raises(DatasetError, match=f"{TRAIN} arrived damaged"):
        fetch_dataset(client, ref, tmp_path, nothing)
    app_server.files[FILES + TRAIN] = right
    folder = fetch_dataset(client, ref, tmp_path, nothing)
    (folder / TRAIN).write_bytes(b"damaged on disk")
    assert (fetch_dataset(client, ref, tmp_path, nothing) / TRAIN).read_bytes() == right


def test_another_manifest_than_the_runs_is_refused(app_server: AppServer, client: AppClient, tmp_path: Path) -> None:
    ref = serve_dataset(app_server.files)
    app_server.files["/api/v1/datasets/week-1"] += b" "
    with pytest.raises(DatasetError, match="the manifest's sha256 is not"):
        fetch_dataset(client, ref, tmp_path, nothing)


@pytest.mark.parametrize("path", ["../outside", "/etc/outside", "a/../../outside", "a\\b"])
def test_no_file_leaves_the_folder(app_server: AppServer, client: AppClient, tmp_path: Path, path: str) -> None:
    ref = serve_dataset(app_server.files, contents={path: b"x"})
    with pytest.raises(DatasetError, match="outside the dataset's folder"):
        fetch_dataset(client, ref, tmp_path / "datasets", nothing)


@pytest.mark.parametrize("name", ["..", "a/b", ".hidden", ""])
def test_no_name_leaves_the_folder(client: AppClient, tmp_path: Path, name: str) -> None:
    ref = serve_dataset({}, name="x").model_copy(update={"name": name})
    with pytest.raises(DatasetError, match="cannot be the name"):
        fetch_dataset(client, ref, tmp_path, nothing)
