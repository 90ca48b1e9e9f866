"""Real tiny checkpoints, loaded once: they are never changed by a test."""

import os
from collections.abc import Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch

from model_worker.checkpoint import Checkpoint, load_checkpoint
from model_worker.demo.tiny import make_tiny_checkpoint
from tests.model_worker.app_server import AppServer, serving


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Many threads on a model this small only wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint with grouped-query attention."""
    return make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny")


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> Checkpoint:
    """The same, loaded."""
    return load_checkpoint(tiny_folder, device="cpu")


@pytest.fixture(scope="session")
def tiny_without_grouping(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Another one, in which every head has its own keys and values."""
    folder = tmp_path_factory.mktemp("checkpoints") / "ungrouped"
    return load_checkpoint(make_tiny_checkpoint(folder, seed=1, grouped_query=False), device="cpu")


@pytest.fixture
def app_server() -> Iterator[AppServer]:
    """A scripted app on a free port."""
    with serving(AppServer()) as app:
        yield app
