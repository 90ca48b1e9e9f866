"""``/v1/models``: the names that a server serves models under."""

from pydantic import BaseModel, ConfigDict, ValidationError

from model_worker.sampling.openai_compat.errors import ServerAnswerError
from model_worker.sampling.openai_compat.server import Server


class ListedModel(BaseModel):
    """A model as a server lists it; vLLM and SGLang say more than the name."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())

    id: str
    owned_by: str | None = None
    root: str | None = None
    """The folder that vLLM loaded it from."""
    max_model_len: int | None = None
    """vLLM's and SGLang's context, in tokens."""


class _Models(BaseModel):
    data: tuple[ListedModel, ...]


async def list_models(server: Server) -> tuple[ListedModel, ...]:
    """What the server lists.

    Raises:
        ServerError: There is no such list.

    """
    try:
        return _Models.model_validate(await server.get("/v1/models")).data
    except ValidationError as error:
        msg = f"{server.url}/v1/models does not list models. Is this an inference server?"
        raise ServerAnswerError(msg) from error
