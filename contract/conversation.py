"""One message of a conversation, as chat templates, datasets and the worker protocol spell it."""

from contract.base import Contract
from contract.vocabulary import Role


class Message(Contract):
    """What one side said: the standard ``{"role": ..., "content": ...}`` of chat templates."""

    role: Role
    content: str
