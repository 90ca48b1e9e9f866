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


class WorkerSettings(BaseSettings):
    """Settings of one worker process. A secret comes from the environment or a file, never from the command line."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True, use_attribute_docstrings=True)

    url: HttpUrl
    """Where the web app is, for example ``https://preferably.example.org``."""
    token: SecretStr | None = None
    """The worker's API token. Give this or ``token_file``."""
    token_file: Path | None = None
    """A file that holds the token."""
    checkpoints: Annotated[tuple[Path, ...], NoDecode] = ()
    """Folders of the chat checkpoints to serve, separated by commas in the environment."""
    engine: Literal["pair", "lorem"] = "pair"
    """``pair`` runs checkpoints; ``lorem`` makes words up and needs neither a checkpoint nor torch."""
    name: str = Field(default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}", min_length=1, max_length=200)
    """How the worker is called on the admins' pages. Of two workers with one name, the later takes the jobs over."""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """``auto`` takes a GPU where there is one."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """``auto`` is bfloat16 on a GPU and float32 elsewhere."""
    max_pairs: int = Field(default=8, ge=1, le=1024)
    """How many prompts are worked on at once."""
    output_dir: Path = Path("worker-output")
    """Where reward models and downloaded datasets go."""
    can_sample: bool = True
    """Whether this worker draws responses."""
    can_train: bool = False
    """Whether this worker takes training runs."""
    claim_wait_s: float = Field(default=5.0, ge=0, le=30)
    """How long the app may hold a request for work, in seconds; an idle worker takes as long to stop."""
    lorem_word_s: float = Field(default=0.02, ge=0)
    """How long the engine ``lorem`` takes for a word, in seconds."""
    drain_s: float = Field(default=8.0, ge=0)
    """How long responses may still run once the worker is asked to stop, in seconds."""

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
        if self.engine == "pair" and not self.checkpoints:
            msg = "checkpoints: name at least one checkpoint folder, or choose the engine lorem"
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
