"""The answer of ``/v1/completions`` as OpenAI defined it, with what vLLM adds: read event by event."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from contract.vocabulary import FinishReason
from model_worker.sampling.openai_compat.dialect import Piece, finish_reason_of
from model_worker.sampling.openai_compat.errors import ServerAnswerError


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Logprobs(_Answer):
    token_logprobs: tuple[float | None, ...] | None = None


class _Span(_Answer):
    version: str
    start: int
    end: int


class _Choice(_Answer):
    text: str | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None
    token_ids: tuple[int, ...] | None = None
    prompt_token_ids: tuple[int, ...] | None = None
    weight_versions: tuple[_Span, ...] | None = None


class _Usage(_Answer):
    prompt_tokens: int
    completion_tokens: int


class _Event(_Answer):
    choices: tuple[_Choice, ...] = ()
    usage: _Usage | None = None
    error: Any = None


def read_completion(event: Mapping[str, Any]) -> Piece:
    """What one event of a completion's stream adds.

    Raises:
        ServerAnswerError: It is an error, or not such an event, or the server ended the response of its own accord.

    """
    try:
        read = _Event.model_validate(event)
    except ValidationError as error:
        msg = f"The server's stream holds an event of another shape: {error.errors()[0]['msg']}"
        raise ServerAnswerError(msg) from error
    if read.error is not None:
        msg = f"The server failed while it drew the response: {read.error}"[:500]
        raise ServerAnswerError(msg)
    usage = read.usage
    choice = read.choices[0] if read.choices else _Choice()
    return Piece(
        token_ids=choice.token_ids,
        logprobs=_known(choice.logprobs),
        text=choice.text or "",
        finish_reason=_finish_reason(choice.finish_reason),
        prompt_ids=choice.prompt_token_ids,
        prompt_tokens=usage.prompt_tokens if usage else None,
        completion_tokens=usage.completion_tokens if usage else None,
        weight_versions=tuple(span.version for span in choice.weight_versions or ()),
    )


def _finish_reason(word: str | None) -> FinishReason | None:
    if word is None:
        return None
    reason = finish_reason_of(word)
    if reason is None:
        msg = f"The server ended the response early: {word}."
        raise ServerAnswerError(msg)
    return reason


def _known(logprobs: _Logprobs | None) -> tuple[float, ...]:
    given = (logprobs.token_logprobs or ()) if logprobs is not None else ()
    return tuple(value for value in given if value is not None)
