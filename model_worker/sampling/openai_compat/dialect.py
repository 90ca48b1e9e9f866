"""What the three dialects have in common: a request for one response, the pieces of its answer, and the protocol."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from contract.vocabulary import FinishReason
from model_worker.sampling.openai_compat.server import Server


@dataclass(frozen=True, slots=True)
class DrawRequest:
    """One response to draw; every parameter is explicit."""

    request_id: str
    """For the server's log."""
    prompt_ids: tuple[int, ...]
    prompt_text: str | None
    """Text that the tokenizer spells as ``prompt_ids``; ``None`` where there is none, or no need of it."""
    temperature: float
    top_p: float
    top_k: int
    """0 means no limit."""
    seed: int
    max_new_tokens: int
    stop_token_ids: tuple[int, ...]
    """Every id that ends the response, in ascending order."""
    extra_stop_token_ids: tuple[int, ...] = ()
    """Those of them that the checkpoint itself does not name."""
    rank: int | None = None
    """Which of a server's data-parallel engines draws it: the same for both responses of a pair."""


@dataclass(frozen=True, slots=True)
class Post:
    """An HTTP request that starts a stream."""

    path: str
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Piece:
    """What one event of a stream adds to a response; ``None`` where the event does not say."""

    token_ids: tuple[int, ...] | None = None
    logprobs: tuple[float, ...] = ()
    text: str = ""
    finish_reason: FinishReason | None = None
    prompt_ids: tuple[int, ...] | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    weight_versions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server says of itself."""

    engine: str
    """Name and version, such as ``vllm/0.33.0``."""
    models: tuple[str, ...] = ()
    """The names it serves models under; empty where it does not say."""
    context_length: int | None = None
    """The most tokens of a prompt and its response."""
    folder: str | None = None
    """Where it loaded the weights from, as it sees its own disk."""


# Takes the JSON of one event and says what it adds; may remember the events before it.
ReadEvent = Callable[[Mapping[str, Any]], Piece]


class Dialect(Protocol):
    """How to speak to one kind of server."""

    gives_token_ids: bool
    """Whether its answers hold token ids; otherwise the text is encoded here."""

    async def identify(self, server: Server, example: DrawRequest) -> ServerFacts:
        """Ask the server what it is, and whether it understands requests such as the example.

        Raises:
            ServerError: It does not say.

        """

    def objection(self, request: DrawRequest) -> str | None:
        """Why this dialect cannot say what is asked; ``None`` where it can."""

    def post(self, request: DrawRequest) -> Post:
        """The HTTP request that draws a response."""

    def reader(self) -> ReadEvent:
        """What reads the events of one stream. It raises ``ServerAnswerError`` on what makes no sense."""

    async def load(self, server: Server, folder: Path, version: str) -> None:
        """Replace the weights by those of a folder, and label them; no response is being drawn meanwhile.

        Raises:
            CheckpointError: This server cannot do that while it runs; nothing has changed.
            ServerError: It failed on the way, and what it serves now is unknown.

        """


def finish_reason_of(word: str) -> FinishReason | None:
    """The contract's word for a server's; ``None`` for ``abort``, ``error`` and the like."""
    return {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}.get(word)
