"""The checkpoint that a server serves, as its folder here describes it: tokenizer, template, end tokens, no weights."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from transformers import PreTrainedTokenizerBase

from contract.checkpoint_files import CheckpointError, CheckpointFiles
from contract.conversation import Message
from model_worker.chat_format import check_template, encode_messages, load_tokenizer


@dataclass(frozen=True)
class ServedCheckpoint:
    """What is needed to speak the checkpoint's language. Only one thread may use it at a time."""

    folder: Path
    files: CheckpointFiles
    tokenizer: PreTrainedTokenizerBase
    stop_ids: frozenset[int]
    """A response ends with the first of these."""
    context_length: int
    """Tokens of prompt and response together."""

    @classmethod
    def read(cls, folder: Path, files: CheckpointFiles) -> Self:
        """Read a folder that was inspected before.

        Raises:
            CheckpointError: It cannot be sampled from; the message says why.

        """
        tokenizer = load_tokenizer(folder)
        check_template(folder, tokenizer)
        config = _read_json(folder / "config.json")
        generation = folder / "generation_config.json"
        ends = (_read_json(generation) if generation.is_file() else {}).get("eos_token_id", config.get("eos_token_id"))
        listed = ends if isinstance(ends, list) else [ends]
        stop_ids = frozenset(int(token) for token in [tokenizer.eos_token_id, *listed] if token is not None)
        if not stop_ids:
            msg = f"{folder}: neither the tokenizer nor generation_config.json names an end token."
            raise CheckpointError(msg)
        context_length = config.get("max_position_embeddings")
        if not isinstance(context_length, int):
            msg = f"{folder}/config.json: max_position_embeddings is missing."
            raise CheckpointError(msg)
        return cls(folder.resolve(), files, tokenizer, stop_ids, context_length)

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

    def encode_text(self, text: str) -> tuple[int, ...]:
        """The token ids of a response's text: how the tokenizer spells it, which need not be how the model did."""
        return tuple(self.tokenizer.encode(text, add_special_tokens=False))

    def spell(self, token_ids: Sequence[int]) -> str | None:
        """Text that a server's tokenizer reads as these ids, with or without the first one, which some add themselves.

        ``None`` where there is none, such as for a prompt in which a person typed a control token as text.
        """
        ids = list(token_ids)
        for start in (0, 1):
            text = self.tokenizer.decode(ids[start:], skip_special_tokens=False, clean_up_tokenization_spaces=False)
            if self.tokenizer(text)["input_ids"] == ids:
                return str(text)
        return None


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"{file} cannot be read: {error}"
        raise CheckpointError(msg) from error
    if not isinstance(content, dict):
        msg = f"{file} must hold a JSON object."
        raise CheckpointError(msg)
    return content


def same_shape(one: Path, other: Path) -> bool:
    """Whether two checkpoints differ in nothing but their weights, as far as their configs say."""
    return _shape(one) == _shape(other)


def _shape(folder: Path) -> dict[str, Any]:
    config = _read_json(folder / "config.json")
    return {key: value for key, value in config.items() if key not in {"_name_or_path", "transformers_version"}}
