"""One response under way: what it has drawn so far, and when it ends."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from contract.sampling import ResponseSpec
from contract.vocabulary import FinishReason
from model_worker.checkpoint import Checkpoint
from model_worker.sampling.detokenise import Detokeniser, readable
from model_worker.sampling.nucleus import Draw

# Decoding a few tokens at once costs no more than decoding one, and nobody reads faster than this.
_TEXT_INTERVAL_S: Final = 0.05


@dataclass(eq=False, slots=True)
class Row:
    """A response as it grows. Rows are compared by identity."""

    spec: ResponseSpec
    seed: int
    """In force: not the spec's where the response is drawn again."""
    checkpoint: Checkpoint
    prompt_ids: tuple[int, ...]
    limit: int
    """How many tokens it may have: what was asked for, or what the prompt leaves room for."""
    token_ids: list[int] = field(default_factory=list)
    sum_logprob: float = 0.0
    finish_reason: FinishReason | None = None
    first_token_at: float = 0.0
    """``time.monotonic``."""
    last_token_at: float = 0.0
    stop_ids: frozenset[int] = field(init=False)
    _detokeniser: Detokeniser = field(init=False)
    _said_at: float = 0.0

    def __post_init__(self) -> None:
        self.stop_ids = self.checkpoint.stop_ids | frozenset(self.spec.stop_token_ids)
        self._detokeniser = Detokeniser(self.checkpoint.decode)

    @property
    def is_done(self) -> bool:
        """Whether it has ended."""
        return self.finish_reason is not None

    @property
    def length(self) -> int:
        """Tokens of prompt and response so far."""
        return len(self.prompt_ids) + len(self.token_ids)

    @property
    def text(self) -> str:
        """The whole response so far."""
        is_stopped = self.finish_reason is FinishReason.STOP
        return readable(self.checkpoint.decode(self.token_ids[:-1] if is_stopped else self.token_ids))

    def next_draw(self) -> Draw:
        """How its next token is to be drawn."""
        spec = self.spec
        return Draw(spec.temperature, spec.top_p, spec.top_k, self.seed, len(self.token_ids))

    def add(self, token_id: int, logprob: float, now: float) -> None:
        """Take a token; a stop token or the last that there is room for ends the response."""
        self.last_token_at = now
        if not self.token_ids:
            self.first_token_at = now
        self.token_ids.append(token_id)
        self.sum_logprob += logprob
        if token_id in self.stop_ids:
            self.finish_reason = FinishReason.STOP
        elif len(self.token_ids) >= self.limit:
            self.finish_reason = FinishReason.LENGTH

    def new_text(self) -> str:
        """The text that has come since the last call, or nothing if that was a moment ago."""
        if not self.is_done and self.last_token_at - self._said_at < _TEXT_INTERVAL_S:
            return ""
        self._said_at = self.last_token_at
        is_stopped = self.finish_reason is FinishReason.STOP
        text = self._detokeniser.push(*self._unsaid(without_last=is_stopped))
        return text + self._detokeniser.finish() if self.is_done else text

    def _unsaid(self, *, without_last: bool) -> Iterable[int]:
        end = len(self.token_ids) - 1 if without_last else len(self.token_ids)
        return self.token_ids[self._detokeniser.pushed : end]
