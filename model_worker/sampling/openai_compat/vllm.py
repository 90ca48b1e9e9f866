"""vLLM (0.33): token ids both ways, seeds, weight versions, and weights replaced while it runs.

Two requests for a pair and not one with ``n=2``, whose responses share all parameters. vLLM's prefix cache computes the
prompt once where both reach the same engine and neither asks for the prompt's logprobs or an echo.
"""

from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from contract.checkpoint_files import CheckpointError
from model_worker.sampling.openai_compat.completions import read_completion
from model_worker.sampling.openai_compat.dialect import DrawRequest, Post, ReadEvent, ServerFacts
from model_worker.sampling.openai_compat.errors import ServerAnswerError, ServerError, ServerRefusedError
from model_worker.sampling.openai_compat.models import list_models
from model_worker.sampling.openai_compat.server import Server

# A 70B checkpoint is read from a network disk in minutes; a pause waits for the responses of other clients, too.
_LOAD_S: Final = 1800.0


class VllmDialect:
    """A :class:`~model_worker.sampling.openai_compat.dialect.Dialect`."""

    gives_token_ids = True

    def __init__(self, model: str | None) -> None:
        self._model = model

    async def identify(self, server: Server, example: DrawRequest) -> ServerFacts:
        """``/version`` and ``/v1/models``."""
        del example
        said = await server.get("/version")
        version = said.get("version") if isinstance(said, dict) else None
        if not isinstance(version, str):
            msg = f"{server.url}/version does not say which vLLM this is. Is the dialect right?"
            raise ServerAnswerError(msg)
        models = await list_models(server)
        served = next((model for model in models if model.id == self._model), models[0] if models else None)
        return ServerFacts(
            engine=f"vllm/{version}",
            models=tuple(model.id for model in models),
            context_length=served.max_model_len if served else None,
            folder=served.root if served else None,
        )

    def objection(self, request: DrawRequest) -> str | None:
        """None: it can say everything."""
        del request
        return None

    def post(self, request: DrawRequest) -> Post:
        """``/v1/completions`` with token ids; whatever was left out would come from ``generation_config.json``."""
        headers = {"X-Request-Id": request.request_id}
        if request.rank is not None:
            headers["X-data-parallel-rank"] = str(request.rank)
        body: dict[str, Any] = {
            "model": self._model,
            "prompt": list(request.prompt_ids),
            "n": 1,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": request.top_k,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "seed": request.seed,
            "max_tokens": request.max_new_tokens,
            "stop_token_ids": list(request.stop_token_ids),
            "logprobs": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            "return_token_ids": True,
            "return_weight_versions": True,
        }
        return Post("/v1/completions", body, headers)

    def reader(self) -> ReadEvent:
        """Events add to each other: there is nothing to remember."""
        return read_completion

    async def load(self, server: Server, folder: Path, version: str) -> None:
        """Pause, reload, forget cached prompts, label, resume. Needs ``VLLM_SERVER_DEV_MODE=1``."""
        try:
            await server.post("/pause?mode=wait", timeout_s=_LOAD_S)
        except ServerRefusedError as error:
            if error.status not in {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}:
                raise
            msg = (
                f"vLLM at {server.url} takes no new weights while it runs: start it with VLLM_SERVER_DEV_MODE=1, where "
                "nobody but the worker can reach it, or restart it and the worker with the new checkpoint."
            )
            raise CheckpointError(msg) from error
        reload = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
        await server.post("/collective_rpc", reload, timeout_s=_LOAD_S)
        _check_reset(await server.post("/reset_prefix_cache"))
        await server.post("/update_weight_version", {"new_version": version})
        await server.post("/resume")
        told = await server.get("/weight_info")
        if not isinstance(told, Mapping) or told.get("weight_version") != version:
            msg = f"vLLM was given the weights {version[:12]}, but says that it serves {told}."
            raise ServerError(msg)


def _check_reset(told: Any) -> None:
    """The cache of another checkpoint's prompts must be gone; older versions answer with nothing."""
    if isinstance(told, Mapping) and told.get("success") is False:
        msg = "vLLM did not forget the cached prompts of the old weights."
        raise ServerError(msg)
