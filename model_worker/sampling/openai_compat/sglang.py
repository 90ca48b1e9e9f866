"""SGLang (0.5.23): its own ``/generate``, which takes token ids; one request for each response.

Its radix cache shares the prompt of the pair, and the two responses stream apart. Seeds count only where the server was
started with ``--enable-deterministic-inference``, which the probe finds out. The logprobs are those after temperature
unless ``SGLANG_RETURN_ORIGINAL_LOGPROB=1`` is set, which the probe finds out as well.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contract.vocabulary import FinishReason
from model_worker.sampling.openai_compat.dialect import (
    DrawRequest,
    Piece,
    Post,
    ReadEvent,
    ServerFacts,
    finish_reason_of,
)
from model_worker.sampling.openai_compat.errors import ServerAnswerError, ServerError
from model_worker.sampling.openai_compat.models import list_models
from model_worker.sampling.openai_compat.server import Server

_LOAD_S: Final = 1800.0
# What SGLang takes for "no limit".
_ALL_TOKENS: Final = -1


class SglangDialect:
    """A :class:`~model_worker.sampling.openai_compat.dialect.Dialect`."""

    gives_token_ids = True

    def __init__(self, model: str | None) -> None:
        self._model = model

    async def identify(self, server: Server, example: DrawRequest) -> ServerFacts:
        """``/get_server_info`` and ``/v1/models``."""
        del example
        said = await server.get("/get_server_info")
        version = said.get("version") if isinstance(said, Mapping) else None
        if not isinstance(version, str):
            msg = f"{server.url}/get_server_info does not say which SGLang this is. Is the dialect right?"
            raise ServerAnswerError(msg)
        models = await list_models(server)
        served = next((model for model in models if model.id == self._model), models[0] if models else None)
        folder = said.get("model_path")
        return ServerFacts(
            engine=f"sglang/{version}",
            models=tuple(model.id for model in models),
            context_length=served.max_model_len if served else None,
            folder=folder if isinstance(folder, str) else None,
        )

    def objection(self, request: DrawRequest) -> str | None:
        """None: it can say everything."""
        del request
        return None

    def post(self, request: DrawRequest) -> Post:
        """``/generate`` with token ids."""
        sampling_params: dict[str, Any] = {
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": request.top_k or _ALL_TOKENS,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "sampling_seed": request.seed,
            "max_new_tokens": request.max_new_tokens,
            "stop_token_ids": list(request.stop_token_ids),
            "skip_special_tokens": True,
        }
        body: dict[str, Any] = {
            "rid": request.request_id,
            "input_ids": list(request.prompt_ids),
            "sampling_params": sampling_params,
            "return_logprob": True,
            "stream": True,
        }
        if request.rank is not None:
            body["data_parallel_rank"] = request.rank
        return Post("/generate", body)

    def reader(self) -> ReadEvent:
        """Each event repeats those before it, unless the server was told to send what is new."""
        return _Reader()

    async def load(self, server: Server, folder: Path, version: str) -> None:
        """``/update_weights_from_disk``, which also forgets cached prompts."""
        body = {"model_path": str(folder), "weight_version": version, "flush_cache": True}
        told = await server.post("/update_weights_from_disk", body, timeout_s=_LOAD_S)
        if not isinstance(told, Mapping) or told.get("success") is not True:
            msg = f"SGLang did not take the weights of {folder}: {told}"[:500]
            raise ServerError(msg)


class _FinishReason(BaseModel):
    model_config = ConfigDict(extra="ignore")
    type: str
    message: str | None = None


class _MetaInfo(BaseModel):
    model_config = ConfigDict(extra="ignore")
    prompt_tokens: int
    completion_tokens: int
    finish_reason: _FinishReason | None = None
    weight_version: str | None = None
    output_token_logprobs: tuple[tuple[float | None, int, str | None], ...] | None = None


class _Event(BaseModel):
    model_config = ConfigDict(extra="ignore")
    text: str = ""
    output_ids: tuple[int, ...] = Field(default=())
    meta_info: _MetaInfo


class _Reader:
    """Turns what SGLang repeats into what is new; the number of tokens so far tells the two ways of sending apart."""

    def __init__(self) -> None:
        self._tokens = 0
        self._characters = 0

    def __call__(self, event: Mapping[str, Any]) -> Piece:
        if "error" in event:
            msg = f"SGLang failed while it drew the response: {event['error']}"[:500]
            raise ServerAnswerError(msg)
        try:
            read = _Event.model_validate(event)
        except ValidationError as error:
            msg = f"SGLang's stream holds an event of another shape: {error.errors()[0]['msg']}"
            raise ServerAnswerError(msg) from error
        meta = read.meta_info
        had, is_repeating = self._tokens, len(read.output_ids) == meta.completion_tokens
        if not is_repeating and had + len(read.output_ids) != meta.completion_tokens:
            msg = f"SGLang counts {meta.completion_tokens} tokens and sends {len(read.output_ids)}, after {had}."
            raise ServerAnswerError(msg)
        text = read.text[self._characters :] if is_repeating else read.text
        self._tokens = meta.completion_tokens
        self._characters += len(text)
        return Piece(
            token_ids=read.output_ids[had:] if is_repeating else read.output_ids,
            logprobs=_new_logprobs(meta, had),
            text=text,
            finish_reason=_finish_reason(meta.finish_reason),
            prompt_tokens=meta.prompt_tokens,
            completion_tokens=meta.completion_tokens,
            weight_versions=(meta.weight_version,) if meta.weight_version is not None else (),
        )


def _new_logprobs(meta: _MetaInfo, had: int) -> tuple[float, ...]:
    given = meta.output_token_logprobs or ()
    new = given[had:] if len(given) == meta.completion_tokens else given
    return tuple(value for value, *_ in new if value is not None)


def _finish_reason(told: _FinishReason | None) -> FinishReason | None:
    if told is None:
        return None
    reason = finish_reason_of(told.type)
    if reason is None:
        msg = f"SGLang ended the response early: {told.type} {told.message or ''}".rstrip()
        raise ServerAnswerError(msg)
    return reason
