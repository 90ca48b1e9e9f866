"""A reward model: a chat checkpoint whose next-token head is replaced by a scalar one (Llama 2, section 3.2.2).

On disk it is exactly what ``AutoModelForSequenceClassification(num_labels=1)`` writes and reads, so that other
tools use it unchanged. In memory it is wrapped, because the stock forward looks for the last token that is not
padding, computes the head over every position, and in the model's own precision.
"""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from model_worker.chat_format import load_tokenizer
from model_worker.errors import RewardModelError
from model_worker.threads import use_fitting_threads

_PAD_TOKEN = "<pad>"  # noqa: S105 a token of text, not a secret


class RewardModel(nn.Module):
    """Reads rewards at explicit positions; the head is computed in fp32 whatever the backbone's precision."""

    def __init__(self, classifier: PreTrainedModel) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, input_ids: Tensor, ends: Tensor) -> Tensor:
        """Rewards of N right-padded rows.

        Args:
            input_ids: (N, T) token ids. No mask is needed: with causal attention nothing behind a row's end
                reaches the position that its reward is read at.
            ends: (N,) the position of each row's last own token.

        Returns:
            (N,) fp32 rewards. They are the raw scalars r(x, y) of equation 1; sigma(r) is the caller's.

        """
        device_type = input_ids.device.type
        # Weights stay in fp32; on a GPU the backbone computes in bf16, in training, evaluation and scoring alike.
        with torch.autocast(device_type, dtype=torch.bfloat16, enabled=device_type == "cuda"):
            hidden = self.classifier.base_model(input_ids=input_ids, use_cache=False).last_hidden_state
        read = hidden[torch.arange(len(ends), device=ends.device), ends]  # (N, hidden)
        # In bf16 two rewards that are close become equal, and a tie counts as wrong (TRAINING.md, section 3.6).
        with torch.autocast(device_type, enabled=False):
            return functional.linear(read.float(), self.head.weight.float()).squeeze(-1)

    @property
    def head(self) -> nn.Linear:
        """The scalar head, without bias: weights (1, hidden)."""
        return cast(nn.Linear, self.classifier.score)

    @property
    def pad_token_id(self) -> int:
        """The id that fills rows up; set by `load_reward_model`, never an end-of-sequence token."""
        return int(self.classifier.config.pad_token_id)

    @property
    def context_length(self) -> int:
        """The longest sequence that the checkpoint was made for, in tokens."""
        return int(self.classifier.config.max_position_embeddings)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return torch.device(self.classifier.device)


@dataclass(frozen=True, slots=True)
class LoadedRewardModel:
    """A reward model with the tokenizer whose chat template its input is made with."""

    model: RewardModel
    tokenizer: PreTrainedTokenizerBase


def load_reward_model(checkpoint_folder: Path, *, seed: int) -> LoadedRewardModel:
    """Make a new reward model from a chat checkpoint.

    It starts from the chat model so that it "knows" what the chat model knows (section 3.2.2). Its head is
    drawn from a normal distribution with standard deviation 1 / sqrt(hidden + 1) (Stiennon et al. 2020), from
    ``seed`` alone. Dropout is off: a comparison's two sides must differ by their text and nothing else.

    The trap of the pad token: Llama 2's tokenizer has none, and the common remedy ``pad = eos`` makes stock
    readers of the saved model take the last token that is not ``</s>``, one before the place that was trained.
    Where the tokenizer has no pad token of its own one is added, with one more row of embeddings if need be.
    """
    loaded = _load(checkpoint_folder, allow_new_head=True)
    with torch.no_grad():
        head = loaded.model.head.weight  # (1, hidden)
        generator = torch.Generator().manual_seed(seed)
        head.copy_(torch.randn(head.shape, generator=generator) / math.sqrt(head.shape[1] + 1))
    _give_pad_token(loaded.model.classifier, loaded.tokenizer)
    return loaded


def reload_reward_model(folder: Path) -> LoadedRewardModel:
    """Load a reward model that was saved before, by this trainer or by another one.

    Raises:
        RewardModelError: The folder holds no sequence classifier with one output, or no distinct pad token.

    """
    loaded = _load(folder, allow_new_head=False)
    config = loaded.model.classifier.config
    architecture = str((config.architectures or ["none named"])[0])
    if not architecture.endswith("ForSequenceClassification") or config.num_labels != 1:
        msg = f"{folder} is not a reward model: its architecture is {architecture} with {config.num_labels} outputs."
        raise RewardModelError(msg)
    if config.pad_token_id is None:
        msg = f"{folder}/config.json has no pad_token_id, which a reward model needs."
        raise RewardModelError(msg)
    loaded.model.eval()
    return loaded


def save_reward_model(loaded: LoadedRewardModel, folder: Path) -> None:
    """Write config, safetensors, tokenizer and chat template into an existing folder."""
    with _quiet_transformers():
        loaded.model.classifier.save_pretrained(folder)
        loaded.tokenizer.save_pretrained(folder)
    # safetensors makes its files readable by their owner alone; weights are as public as their config.
    for weights in folder.glob("*.safetensors"):
        weights.chmod((folder / "config.json").stat().st_mode)


def _load(folder: Path, *, allow_new_head: bool) -> LoadedRewardModel:
    if not (folder / "config.json").is_file():
        msg = f"{folder} has no config.json: it is not a model in Hugging Face format."
        raise RewardModelError(msg)
    try:
        # Creating the new head draws from the global generator, which belongs to the caller.
        with _quiet_transformers(), torch.random.fork_rng(devices=[]):
            classifier, report = AutoModelForSequenceClassification.from_pretrained(
                folder,
                num_labels=1,
                attention_dropout=0.0,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        msg = f"{folder} cannot be loaded: {error}"
        raise RewardModelError(msg) from error
    # transformers fills missing weights with random numbers; of a chat checkpoint only the new head may be missing.
    missing = sorted(set(report["missing_keys"]) - ({"score.weight"} if allow_new_head else set()))
    if missing:
        msg = f"{folder}: {len(missing)} weights are missing, among them {missing[0]}."
        raise RewardModelError(msg)
    use_fitting_threads([classifier])
    return LoadedRewardModel(model=RewardModel(classifier), tokenizer=load_tokenizer(folder))


def _give_pad_token(classifier: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        tokenizer.add_special_tokens({"pad_token": _PAD_TOKEN})
        embeddings = cast(nn.Embedding, classifier.get_input_embeddings())
        if len(tokenizer) > embeddings.num_embeddings:
            # No position of a row ever sees a pad token, so its embedding is never used; zero is as good as any.
            classifier.resize_token_embeddings(len(tokenizer), mean_resizing=False)
            embeddings = cast(nn.Embedding, classifier.get_input_embeddings())
            with torch.no_grad():
                embeddings.weight[tokenizer.pad_token_id] = 0.0
    classifier.config.pad_token_id = tokenizer.pad_token_id


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Silence the report that the old head is dropped and a new one made, which is what is asked for here."""
    logger = logging.getLogger("transformers")
    level = logger.level
    shows_bars = transformers_logging.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call] # It is so in transformers.
    try:
        yield
    finally:
        logger.setLevel(level)
        if shows_bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call] # It is so in transformers.
