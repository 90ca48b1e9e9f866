"""Scores responses one by one, without the pair they came from (Llama 2, section 3.2.2; LLAMA2.md, C25)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from contract.conversation import Message
from model_worker.reward.batching import pad_rows
from model_worker.reward.encoding import Encoder
from model_worker.reward.model import RewardModel, reload_reward_model
from model_worker.reward.provenance import read_provenance

_ROWS_PER_MINIBATCH = 16


@dataclass(frozen=True, slots=True)
class Score:
    """What a reward model says about one response."""

    reward: float
    """The raw scalar r(x, y)."""
    sigmoid: float
    """sigma(r), between 0 and 1: what Llama 2 compares with its thresholds (0.15, 0.5)."""


class Scorer:
    """A reward model ready to score; load it once and use it for many responses."""

    def __init__(self, model: RewardModel, encoder: Encoder) -> None:
        self.model = model
        self.encoder = encoder

    @classmethod
    def load(cls, folder: Path) -> "Scorer":
        """Load a saved reward model onto the GPU, if there is one.

        Raises:
            RewardModelError: The folder is not a reward model.

        """
        loaded = reload_reward_model(folder)
        loaded.model.to("cuda" if torch.cuda.is_available() else "cpu")
        provenance = read_provenance(folder)
        max_length = loaded.model.context_length if provenance is None else provenance.max_length
        return cls(loaded.model, Encoder(loaded.tokenizer, max_length=max_length))

    def score(self, responses: Sequence[tuple[Sequence[Message], str]]) -> list[Score]:
        """Score (conversation that ends with the prompt, response) pairs, in the order they come in.

        Raises:
            EncodingError: A conversation does not fit the chat template, or a response does not fit at all.

        """
        sequences = [self.encoder.encode(prompt, response) for prompt, response in responses]
        rewards = rewards_of(self.model, sequences, rows_per_minibatch=_ROWS_PER_MINIBATCH)
        return [Score(reward=reward, sigmoid=_sigmoid(reward)) for reward in rewards]


def score(model_folder: Path, conversation: Sequence[Message], response: str) -> Score:
    """Score one response to a conversation that ends with the user's prompt."""
    return Scorer.load(model_folder).score([(conversation, response)])[0]


@torch.inference_mode()
def rewards_of(model: RewardModel, sequences: Sequence[Sequence[int]], *, rows_per_minibatch: int) -> list[float]:
    """The reward of each token sequence, in order; sequences of like lengths are computed together.

    Training's evaluation and `Scorer` both come through here, so that their numbers are the same.
    """
    was_training = model.training
    model.eval()
    order = sorted(range(len(sequences)), key=lambda index: len(sequences[index]), reverse=True)
    rewards = [0.0] * len(sequences)
    for start in range(0, len(order), rows_per_minibatch):
        members = order[start : start + rows_per_minibatch]
        rows = pad_rows([sequences[index] for index in members], model.pad_token_id)
        values = model(rows.input_ids.to(model.device), rows.ends.to(model.device))
        for index, value in zip(members, values.tolist(), strict=True):
            rewards[index] = value
    model.train(was_training)
    return rewards


def _sigmoid(reward: float) -> float:
    """sigma(r) without overflow for a very negative reward."""
    return 1 / (1 + math.exp(-reward)) if reward >= 0 else math.exp(reward) / (1 + math.exp(reward))
