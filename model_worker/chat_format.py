"""A checkpoint's tokenizer and chat template: how sampling and reward models alike turn a conversation into tokens."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, cast

from jinja2 import TemplateError
from transformers import AutoTokenizer, BatchEncoding, PreTrainedTokenizerBase

from contract.checkpoint_files import CheckpointError
from contract.conversation import Message
from contract.vocabulary import Role
from model_worker.errors import EncodingError

_PROBE: Final = "Hello"


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load a folder's tokenizer; no code from the folder runs.

    Raises:
        CheckpointError: The tokenizer is damaged.

    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:
        # The tokenizers library raises plain Exception for a broken tokenizer.json.
        msg = f"{folder}: the tokenizer cannot be loaded: {error}"
        raise CheckpointError(msg) from error
    return tokenizer


def encode_messages(
    tokenizer: PreTrainedTokenizerBase, messages: Iterable[Message], *, add_generation_prompt: bool
) -> list[int]:
    """The template's token ids of a conversation, in which nobody can type a control token.

    Control tokens that a person typed (``</s>``), or a model spelled, become text: only the template writes control
    tokens. Words that a template uses as plain text, such as Llama 2's ``[INST]``, have no token of their own, and
    a model cannot tell who wrote them.

    Raises:
        EncodingError: The template refuses the conversation, or the tokenizer cannot spell it.

    """
    conversation = [{"role": message.role.value, "content": message.content} for message in messages]
    try:
        encoded = cast(
            BatchEncoding,
            tokenizer.apply_chat_template(
                conversation,
                add_generation_prompt=add_generation_prompt,
                sanitize_control_tokens=True,
                return_dict=True,
                # What is too long is cut or refused by the caller; the tokenizer need not warn of it.
                tokenizer_kwargs={"verbose": False},
            ),
        )
    except (TemplateError, TypeError, ValueError) as error:
        msg = f"The chat template refuses the conversation: {error}"
        raise EncodingError(msg) from error
    return list(encoded["input_ids"])


def check_template(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Render a prompt, and make sure that typed control tokens stay text.

    Raises:
        CheckpointError: The template is of no use, or would let a person write control tokens.

    """
    try:
        plain = _encode_probe(tokenizer, _PROBE)
        for token in tokenizer.all_special_tokens:
            typed = _encode_probe(tokenizer, f"{_PROBE}{token}{_PROBE}")
            token_id: Any = tokenizer.convert_tokens_to_ids(token)
            if typed.count(token_id) != plain.count(token_id):
                msg = f"{folder}: a user who types {token} would write a control token. Is transformers too old?"
                raise CheckpointError(msg)
    except EncodingError as error:
        msg = f"{folder}: {error}"
        raise CheckpointError(msg) from error
    if not plain:
        msg = f"{folder}: the chat template writes nothing for a prompt."
        raise CheckpointError(msg)


def _encode_probe(tokenizer: PreTrainedTokenizerBase, content: str) -> list[int]:
    return encode_messages(tokenizer, [Message(role=Role.USER, content=content)], add_generation_prompt=True)
