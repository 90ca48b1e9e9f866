"""Loads a chat checkpoint, and speaks its language: conversation to token ids, token ids to text."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from contract.checkpoint_files import CheckpointError, CheckpointFiles, inspect_checkpoint
from contract.conversation import Message
from model_worker.chat_format import check_template, encode_messages, load_tokenizer

DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Checkpoint:
    """A loaded chat checkpoint. Only one thread may use it at a time."""

    files: CheckpointFiles
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    dtype: torch.dtype
    stop_ids: frozenset[int]
    """A response ends with the first of these."""
    context_length: int
    """Tokens of prompt and response together."""

    def encode(self, messages: Iterable[Message]) -> list[int]:
        """The token ids of a conversation, up to where the model's response begins.

        Raises:
            EncodingError: The template refuses the conversation, or the tokenizer cannot spell it.

        """
        return encode_messages(self.tokenizer, messages, add_generation_prompt=True)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of some token ids, without control tokens."""
        text = self.tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)

    def on(self, model: PreTrainedModel) -> Self:
        """The same checkpoint, whose weights were copied into another model."""
        return replace(self, model=model, device=model.device, dtype=model.dtype)


def choose_device(device: str) -> torch.device:
    """``auto`` is the accelerator where there is one.

    Raises:
        CheckpointError: There is no such device.

    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        msg = f"device {device} was asked for, but torch {torch.__version__} finds no CUDA device here."
        raise CheckpointError(msg)
    return torch.device(device)


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """``auto`` is bfloat16 on a GPU and float32 on processors."""
    if dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return DTYPES[dtype]


def load_checkpoint(
    folder: Path, *, device: str = "auto", dtype: str = "auto", files: CheckpointFiles | None = None
) -> Checkpoint:
    """Load a checkpoint folder: safetensors only, and no code from the folder runs.

    Args:
        folder: In Hugging Face format.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: ``auto`` or a key of ``DTYPES``.
        files: What ``inspect_checkpoint(folder)`` returned, if it was called before: digests take time.

    Raises:
        CheckpointError: The folder cannot be served; the message says why.

    """
    files = files or inspect_checkpoint(folder)
    chosen_device = choose_device(device)
    chosen_dtype = choose_dtype(dtype, chosen_device)
    tokenizer = load_tokenizer(folder)
    model = _load_model(folder, chosen_dtype)
    # Not model.to(device): its signature in transformers confuses type checkers.
    torch.nn.Module.to(model, chosen_device)
    torch.nn.Module.train(model, mode=False)
    checkpoint = Checkpoint(
        files=files,
        model=model,
        tokenizer=tokenizer,
        device=chosen_device,
        dtype=chosen_dtype,
        stop_ids=_stop_ids(folder, model, tokenizer),
        context_length=int(model.config.max_position_embeddings),
    )
    check_template(folder, tokenizer)
    return checkpoint


def _load_model(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            attn_implementation="sdpa",
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        msg = f"{folder}: the model cannot be loaded: {error}"
        raise CheckpointError(msg) from error
    model: PreTrainedModel = loaded[0]
    report: dict[str, Any] = loaded[1]
    # transformers fills weights that are missing with random numbers and only warns.
    missing = sorted(str(name) for name in report["missing_keys"])
    if missing:
        msg = f"{folder}: {len(missing)} weights are missing, among them {missing[0]}."
        raise CheckpointError(msg)
    return model


def _stop_ids(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The end tokens of tokenizer and generation config: chat checkpoints often name theirs in one only."""
    of_model: Any = model.generation_config.eos_token_id if model.generation_config is not None else None
    listed = of_model if isinstance(of_model, list) else [of_model]
    stop_ids = frozenset(int(token) for token in [tokenizer.eos_token_id, *listed] if token is not None)
    if not stop_ids:
        msg = f"{folder}: neither the tokenizer nor generation_config.json names an end token; no response would end."
        raise CheckpointError(msg)
    return stop_ids
