"""Tiny checkpoints and models for the trainer's tests, on one thread: two cores serve many."""

from pathlib import Path

import pytest
import torch

from model_worker.demo.tiny import make_tiny_checkpoint
from model_worker.reward.model import LoadedRewardModel, load_reward_model

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat checkpoint, which no test may change."""
    return make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny-chat", hidden_size=32)


@pytest.fixture
def loaded(checkpoint: Path) -> LoadedRewardModel:
    """A fresh reward model."""
    return load_reward_model(checkpoint, seed=1)
