"""What a model worker is told: by the environment (``PREFERABLY_WORKER_...``) or by options of ``run``."""

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, HttpUrl, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from contract.errors import ContractError

PREFIX: Final = "PREFERABLY_WORKER_"


class SettingsError(ContractError):
    """A setting is missing or makes no sense; the message names it."""


# These come from the environment or a file, never from the command line, where every process could read them.
SECRETS: Final = frozenset({"token", "openai_api_key"})


class WorkerSettings(BaseSettings):
    """Settings of one worker process; the text under each is what ``preferably-worker run --help`` says of it."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True, use_attribute_docstrings=True)

    url: HttpUrl
    """Where the web app is, for example https://preferably.example.org."""
    token: SecretStr | None = None
    """The worker's API token. Give this or token_file."""
    token_file: Path | None = None
    """A file that holds the worker's API token."""
    name: str = Field(default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}", min_length=1, max_length=200)
    """How the admins' pages call the worker. Of two workers with one name, the later takes the jobs over."""
    can_sample: bool = True
    """Whether this worker draws responses."""
    can_train: bool = False
    """Whether this worker takes training runs."""
    output_dir: Path = Path("worker-output")
    """Where reward models and downloaded datasets go."""

    checkpoints: Annotated[tuple[Path, ...], NoDecode] = ()
    """Folder of a chat checkpoint to serve, the most wanted first. Repeat the option for several; in the environment
    they are separated by commas."""
    library: Path | None = None
    """A folder in which new checkpoints appear as sub-folders; an admin can promote them without a restart."""
    max_checkpoints: int = Field(default=2, ge=1, le=64)
    """How many chat checkpoints are held in memory at once: two are the newest and the one before."""

    engine: Literal["slots", "openai", "lorem"] = "slots"
    """What draws responses: slots runs checkpoints itself; openai asks an OpenAI-compatible server; lorem makes
    words up and needs neither a checkpoint nor torch."""
    max_pairs: int = Field(default=8, ge=1, le=1024)
    """How many pairs are worked on at once."""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """auto, cpu, cuda or cuda:N; auto takes a GPU where there is one."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto, float32, bfloat16 or float16; auto is bfloat16 on a GPU and float32 elsewhere."""
    max_length: int | None = Field(default=None, ge=16)
    """The most tokens of a prompt and its response together; by default the checkpoint's context."""
    attention: Literal["sdpa", "varlen"] = "sdpa"
    """How attention is computed: sdpa runs everywhere; varlen reads only the keys in use, on a GPU."""
    cuda_graphs: bool = False
    """Whether decoding steps are recorded as CUDA graphs: faster for few pairs, on a GPU."""

    openai_url: HttpUrl | None = None
    """The engine openai: where the server is, such as http://127.0.0.1:8000/v1."""
    openai_model: str | None = Field(default=None, min_length=1, max_length=500)
    """The engine openai: how the server calls the model."""
    openai_dialect: Literal["vllm", "sglang", "openai"] = "vllm"
    """The engine openai: which server it is, vllm, sglang or openai for any other."""
    openai_api_key: SecretStr | None = None
    """The engine openai: the server's API key, where it asks for one."""
    openai_timeout_s: float = Field(default=120.0, gt=0)
    """The engine openai: seconds without a word from the server after which a request is given up."""
    openai_retries: int = Field(default=3, ge=0, le=20)
    """The engine openai: how often a request that the server failed on is tried again."""
    openai_data_parallel: int = Field(default=1, ge=1, le=1024)
    """The engine openai: how many data-parallel engines the server has; a pair's responses share one, and its cache."""
    openai_accepts_unseeded: bool = False
    """The engine openai: whether a server that ignores the seed is good enough; responses cannot be drawn again."""

    lorem_word_s: float = Field(default=0.02, ge=0)
    """The engine lorem: how long it takes for a word, in seconds."""

    claim_wait_s: float = Field(default=20.0, ge=0, le=30)
    """How long the app may hold a request for work, in seconds."""
    drain_s: float = Field(default=8.0, ge=0)
    """How long responses may still run once the worker is asked to stop, in seconds."""
    metrics_port: int | None = Field(default=None, ge=1, le=65535)
    """The port of the worker's Prometheus metrics, under /metrics; by default there are none."""
    metrics_host: str = Field(default="127.0.0.1", min_length=1)
    """The address that the metrics are bound to; they need no password."""
    progress: bool | None = None
    """Whether a line in the terminal shows how the worker does; by default where standard error is a terminal."""
    log_format: Literal["auto", "text", "json"] = "auto"
    """How the log is written: text for people, json with an object a line; auto is text in a terminal, else json."""

    @field_validator("checkpoints", mode="before")
    @classmethod
    def _split_checkpoints(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.token is None) == (self.token_file is None):
            msg = "give the worker's API token in PREFERABLY_WORKER_TOKEN, or a file that holds it in token_file"
            raise ValueError(msg)
        if self.token_file is not None and not os.access(self.token_file, os.R_OK):
            msg = f"token_file: {self.token_file} cannot be read"
            raise ValueError(msg)
        if not (self.can_sample or self.can_train):
            msg = "can_sample and can_train are both off: there is nothing to do"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _check_checkpoints(self) -> Self:
        if self.library is not None and not self.library.is_dir():
            msg = f"library: {self.library} is not a folder"
            raise ValueError(msg)
        if self.engine != "lorem" and not self.checkpoints and self.library is None:
            msg = "checkpoints: name at least one checkpoint folder, or a library of them, or choose the engine lorem"
            raise ValueError(msg)
        if self.engine == "openai" and (self.openai_url is None or self.openai_model is None):
            msg = "the engine openai needs openai_url and openai_model"
            raise ValueError(msg)
        return self

    def read_token(self) -> str:
        """The token, from wherever it was given."""
        if self.token is not None:
            return self.token.get_secret_value().strip()
        if self.token_file is None:  # pragma: no cover - the validator sees to it
            msg = "no token"
            raise ValueError(msg)
        return self.token_file.read_text(encoding="utf-8").strip()


def read_settings(options: Mapping[str, object]) -> WorkerSettings:
    """The settings of the environment, overridden by the options that are not ``None``.

    Raises:
        SettingsError: One of them is missing or makes no sense.

    """
    given = {option: value for option, value in options.items() if value is not None}
    try:
        return WorkerSettings(**given)  # type: ignore[arg-type]  # pydantic checks what mypy cannot know
    except ValidationError as error:
        msg = "; ".join(_message(fault) for fault in error.errors())
        raise SettingsError(msg) from None


def _message(fault: ErrorDetails) -> str:
    field = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "missing":
        return f"{field} is missing: give --{field.replace('_', '-')} or set {PREFIX}{field.upper()}"
    message = fault["msg"].removeprefix("Value error, ")
    return f"{field}: {message}" if field else message
