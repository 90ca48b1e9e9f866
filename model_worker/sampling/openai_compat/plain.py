"""Any other server of OpenAI's ``/v1/completions``: only what the standard has, and token ids where it takes them.

``/v1/chat/completions`` is not used: there the template is the server's, and what the model read would be unknown.
The standard has no ``top_k`` and no stop ids. It names no token ids either: the response's text is encoded here.
"""

from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from contract.checkpoint_files import CheckpointError
from model_worker.sampling.openai_compat.completions import read_completion
from model_worker.sampling.openai_compat.dialect import DrawRequest, Post, ReadEvent, ServerFacts
from model_worker.sampling.openai_compat.errors import ServerError, ServerRefusedError
from model_worker.sampling.openai_compat.models import list_models
from model_worker.sampling.openai_compat.server import Server

# A wrong key, a wrong address, a wrong method: not a matter of how the prompt is written.
_NOT_ABOUT_THE_PROMPT: Final = frozenset(
    {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}
)


class PlainDialect:
    """A :class:`~model_worker.sampling.openai_compat.dialect.Dialect`."""

    gives_token_ids = False

    def __init__(self, model: str | None) -> None:
        self._model = model
        self._sends_token_ids = False

    async def identify(self, server: Server, example: DrawRequest) -> ServerFacts:
        """``/v1/models``, which some servers fill with what they could load, and a prompt as token ids."""
        try:
            models = await list_models(server)
        except ServerError:
            # ``transformers serve`` fails on this where the machine has no cache of its hub. The probe will show.
            models = ()
        self._sends_token_ids = await self._takes_token_ids(server, example)
        served = next((model for model in models if model.id == self._model), None)
        owner = (served.owned_by if served else None) or "unnamed"
        return ServerFacts(engine=f"openai/{owner}", context_length=served.max_model_len if served else None)

    def objection(self, request: DrawRequest) -> str | None:
        """Top-k, stop ids that the checkpoint does not name, and prompts that no text spells cannot be said."""
        if request.top_k:
            return f"the server's dialect has no top_k, and top_k={request.top_k} is asked for"
        if request.extra_stop_token_ids:
            return f"the server's dialect has no stop ids, and {list(request.extra_stop_token_ids)} are asked for"
        if not self._sends_token_ids and request.prompt_text is None:
            return "the server takes prompts as text only, and no text is read as this prompt's token ids"
        return None

    def post(self, request: DrawRequest) -> Post:
        """``/v1/completions`` with standard fields only: some servers refuse any other."""
        body: dict[str, Any] = {
            "model": self._model,
            "prompt": list(request.prompt_ids) if self._sends_token_ids else request.prompt_text,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": request.seed,
            "max_tokens": request.max_new_tokens,
            "logprobs": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        return Post("/v1/completions", body, {"X-Request-Id": request.request_id})

    def reader(self) -> ReadEvent:
        """Events add to each other: there is nothing to remember."""
        return read_completion

    async def load(self, server: Server, folder: Path, version: str) -> None:
        """The standard has no such request."""
        del version
        msg = (
            f"The server at {server.url} takes no new weights while it runs. Restart it with {folder.name}, and then "
            "this worker with the folder of that checkpoint; with several servers, one after the other."
        )
        raise CheckpointError(msg)

    async def _takes_token_ids(self, server: Server, example: DrawRequest) -> bool:
        body = {"model": self._model, "prompt": list(example.prompt_ids), "max_tokens": 1}
        try:
            answer = await server.post("/v1/completions", body)
        except ServerRefusedError as error:
            if error.status in _NOT_ABOUT_THE_PROMPT:
                raise
            return False
        except ServerError:
            # A server that fails on a list is asked with text; if it fails on everything, the probe will say so.
            return False
        usage = answer.get("usage") if isinstance(answer, dict) else None
        return isinstance(usage, dict) and usage.get("prompt_tokens") == len(example.prompt_ids)
