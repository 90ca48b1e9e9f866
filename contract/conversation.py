"""One message of a conversation, as chat templates, datasets and the worker protocol spell it."""

import unicodedata
from collections.abc import Iterable

from contract.base import Contract
from contract.vocabulary import Role


class Message(Contract):
    """What one side said: the standard ``{"role": ..., "content": ...}`` of chat templates."""

    role: Role
    content: str


def normalised_context(prompt: Iterable[Message]) -> tuple[tuple[str, str], ...]:
    """A prompt with its context in the form in which two of them count as equal: case and white space do not."""
    return tuple(
        (message.role.value, " ".join(unicodedata.normalize("NFKC", message.content).casefold().split()))
        for message in prompt
    )
