"""Draws one response: sends the request, reads the stream, checks the answer, and tries again where that may help."""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from contract.vocabulary import FinishReason
from model_worker.backoff import Backoff
from model_worker.sampling.detokenise import Detokeniser, readable
from model_worker.sampling.openai_compat.dialect import Dialect, DrawRequest, Piece
from model_worker.sampling.openai_compat.errors import (
    ServerAnswerError,
    ServerBusyError,
    ServerError,
    ServerRefusedError,
    WeightsChangedError,
)
from model_worker.sampling.openai_compat.served import ServedCheckpoint
from model_worker.sampling.openai_compat.server import Server

log = logging.getLogger(__name__)

# A server may ask for a longer pause than an annotator would wait for.
_LONGEST_PAUSE_S: Final = 30.0
_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Drawn:
    """One complete response."""

    seed: int
    text: str
    token_ids: tuple[int, ...]
    completion_tokens: int
    finish_reason: FinishReason
    sum_logprob: float | None
    """As the server counts it; ``None`` where it gave no logprob for some token."""
    weight_version: str | None
    first_token_at: float
    last_token_at: float


@dataclass(slots=True)
class Speech:
    """What was said of a response's text so far: a second try repeats it, and says only what goes beyond."""

    say: Say
    _said: str = ""

    def show(self, text: str) -> None:
        """Say what is new in the text so far; nothing where it is another text than what was said."""
        if len(text) > len(self._said) and text.startswith(self._said):
            new, self._said = text[len(self._said) :], text
            self.say(new)


class Drawer:
    """Draws responses of one checkpoint from one server."""

    def __init__(
        self,
        server: Server,
        dialect: Dialect,
        checkpoint: ServedCheckpoint,
        *,
        retries: int,
        weight_version: str | None = None,
        count: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.checkpoint = checkpoint
        self._server = server
        self._dialect = dialect
        self._retries = retries
        self._weight_version = weight_version
        self._count = count

    async def draw(self, request: DrawRequest, say: Say = lambda _: None) -> Drawn:
        """Draw a response.

        Args:
            request: What to draw.
            say: Called with each text that the response grew by.

        Raises:
            ServerError: The server did not do it, however often it was asked.

        """
        objection = self._dialect.objection(request)
        if objection is not None:
            raise ServerError(objection)
        speech = Speech(say)
        backoff = Backoff()
        for tries_left in reversed(range(self._retries + 1)):
            try:
                return await self._draw_once(request, speech)
            except ServerRefusedError:
                raise
            except ServerError as error:
                if not tries_left:
                    raise
                pause_s = _pause_s(error, backoff)
                details = {"request_id": request.request_id, "reason": str(error), "pause_s": round(pause_s, 2)}
                log.warning("a response is drawn again", extra=details)
                await asyncio.sleep(pause_s)
        raise AssertionError  # pragma: no cover - the last try returns or raises

    async def _draw_once(self, request: DrawRequest, speech: Speech) -> Drawn:
        growing = _Growing(request, self.checkpoint, gives_token_ids=self._dialect.gives_token_ids)
        post, read = self._dialect.post(request), self._dialect.reader()
        async with self._server.stream(post.path, post.body, post.headers) as events:
            async for event in events:
                drawn = growing.add(read(event))
                self._count(drawn)
                speech.show(growing.text)
        return growing.finish(expected_version=self._weight_version)


def _pause_s(error: ServerError, backoff: Backoff) -> float:
    asked = error.retry_after_s if isinstance(error, ServerBusyError) else None
    return min(_LONGEST_PAUSE_S, max(backoff.next_delay(), asked or 0.0))


@dataclass
class _Growing:
    """A response while its stream is read."""

    request: DrawRequest
    checkpoint: ServedCheckpoint
    gives_token_ids: bool
    text: str = ""
    """What can be shown of it."""
    _server_text: str = ""
    _token_ids: list[int] = field(default_factory=list)
    _logprobs: list[float] = field(default_factory=list)
    _versions: set[str] = field(default_factory=set)
    _finish_reason: FinishReason | None = None
    _completion_tokens: int | None = None
    _first_token_at: float | None = None
    _last_token_at: float = 0.0

    def __post_init__(self) -> None:
        self._detokeniser = Detokeniser(self.checkpoint.decode)

    def add(self, piece: Piece) -> int:
        """Add what an event says; returns how many tokens that are, or pieces of text where there are no ids."""
        self._check_prompt(piece)
        new = len(piece.token_ids or ()) if self.gives_token_ids else int(bool(piece.text))
        if new:
            self._last_token_at = time.monotonic()
            self._first_token_at = self._first_token_at or self._last_token_at
        self._server_text += piece.text
        self._logprobs += piece.logprobs
        self._versions.update(piece.weight_versions)
        self._finish_reason = piece.finish_reason or self._finish_reason
        self._completion_tokens = piece.completion_tokens or self._completion_tokens
        if self.gives_token_ids:
            self._add_ids(piece.token_ids or ())
        else:
            self.text = readable(self._server_text)
        return new

    def finish(self, *, expected_version: str | None) -> Drawn:
        """The response, checked.

        Raises:
            ServerAnswerError: The stream ended too early, or the answer contradicts itself or the request.

        """
        if self._finish_reason is None:
            msg = f"The stream broke off after {len(self._token_ids) or len(self._server_text)} tokens or characters."
            raise ServerAnswerError(msg)
        self._check_versions(expected_version)
        token_ids = tuple(self._token_ids) if self.gives_token_ids else self.checkpoint.encode_text(self._server_text)
        completion_tokens = len(token_ids) if self.gives_token_ids else (self._completion_tokens or len(token_ids))
        if completion_tokens > self.request.max_new_tokens:
            msg = f"The server drew {completion_tokens} tokens; at most {self.request.max_new_tokens} were asked for."
            raise ServerAnswerError(msg)
        text = self._checked_text()
        at = time.monotonic()
        return Drawn(
            seed=self.request.seed,
            text=text,
            token_ids=token_ids,
            completion_tokens=completion_tokens,
            finish_reason=self._finish_reason,
            sum_logprob=self._sum_logprob(completion_tokens),
            weight_version=next(iter(self._versions), None),
            first_token_at=self._first_token_at or at,
            last_token_at=self._last_token_at or at,
        )

    def _add_ids(self, token_ids: tuple[int, ...]) -> None:
        vocabulary = len(self.checkpoint.tokenizer)
        for token_id in token_ids:
            if not 0 <= token_id < vocabulary:
                msg = f"The server drew the token {token_id}; the checkpoint's tokenizer has {vocabulary}."
                raise ServerAnswerError(msg)
            self._token_ids.append(token_id)
            self.text += self._detokeniser.push(token_id)

    def _check_prompt(self, piece: Piece) -> None:
        """Whether the model read the prompt that the record will name."""
        asked = self.request.prompt_ids
        read = len(piece.prompt_ids) if piece.prompt_ids is not None else piece.prompt_tokens
        if (piece.prompt_ids is not None and piece.prompt_ids != asked) or (read is not None and read != len(asked)):
            msg = f"The server read another prompt, of {read} tokens, than the one it was sent, of {len(asked)}."
            raise ServerAnswerError(msg)

    def _check_versions(self, expected: str | None) -> None:
        if len(self._versions) > 1:
            msg = f"The weights changed while the response was drawn: {', '.join(sorted(self._versions))}."
            raise WeightsChangedError(msg)
        if expected is not None and self._versions and self._versions != {expected}:
            (found,) = self._versions
            msg = f"The server draws with the weights {found!r}; this worker stands for {expected!r}. Restart it."
            raise WeightsChangedError(msg)

    def _checked_text(self) -> str:
        """The text of the token ids, which the server's own must equal: or its tokenizer is another one."""
        theirs = readable(self._server_text)
        if not self.gives_token_ids:
            return theirs
        ours = readable(self.checkpoint.decode(self._token_ids))
        # Bytes at the end that are no whole character yet are left out by some servers.
        if ours.rstrip(_REPLACEMENT).rstrip() != theirs.rstrip(_REPLACEMENT).rstrip():
            msg = "The server's text is not the text of its token ids: it uses another tokenizer than the checkpoint's."
            raise ServerAnswerError(msg)
        return ours

    def _sum_logprob(self, completion_tokens: int) -> float | None:
        total = math.fsum(self._logprobs)
        return total if len(self._logprobs) == completion_tokens and math.isfinite(total) else None
