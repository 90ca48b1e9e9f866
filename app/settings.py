"""Settings of the web app: from PREFERABLY_ environment variables, with secrets made on first start."""

import os
import secrets
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from contract.errors import ContractError

_SECRET_BYTES = 32
_SECRET_MIN_CHARACTERS = 32
_KEY_FILE = "pseudonym.key"


class WeakSecretError(ContractError):
    """A secret is too short to be one."""


class Settings(BaseSettings):
    """Where the app keeps its things and how it behaves; every field has a PREFERABLY_ variable."""

    model_config = SettingsConfigDict(env_prefix="PREFERABLY_", extra="ignore", use_attribute_docstrings=True)

    data_dir: Path = Path("var")
    """Everything that the app writes lives here: the embedded database, secrets, datasets."""
    database_url: str = ""
    """PostgreSQL (``postgresql://...``) or SQLite; without one, an embedded SQLite file in ``data_dir``."""
    datasets_dir: Path | None = None
    """Where frozen datasets are kept; several app processes must share it. Default: ``data_dir``/datasets."""
    dataset_store: str = ""
    """A URI that ``pyarrow.fs`` opens, such as ``s3://bucket/datasets``: every dataset is kept there as well, and a
    machine that has not a dataset's files fetches them from there. Without one, ``datasets_dir`` is the only place."""
    dataset_licence: str = Field(default="to-be-decided", max_length=100, pattern=r"^[A-Za-z0-9 .()+-]+$")
    """The licence that the cards of datasets name, such as ``cc-by-4.0``; a dataset keeps that of its freeze."""
    public_url: str = "http://127.0.0.1:8000"
    """The address that people open; sign-in links start with it, and form posts must come from it."""
    pseudonym_secret: SecretStr = SecretStr("")
    """Keys annotators' pseudonyms in datasets. Must be the same in every app process; made on first start."""
    metrics_token: SecretStr = SecretStr("")
    """The bearer token that opens ``/metrics`` to a monitoring system; without one there is no such page."""
    lease_s: float = Field(default=30.0, gt=0)
    """How long a worker may be silent before its job is handed to another, in seconds."""
    max_attempts: int = Field(default=3, ge=1)
    """How often a sampling job is handed out before it fails for good."""
    reconcile_every_s: float = Field(default=2.0, ge=0)
    """How often each app process looks for a due step of the weekly cycle; 0 turns it off."""
    sign_in_link_hours: float = Field(default=24.0, gt=0)
    session_hours: float = Field(default=24.0 * 14, gt=0)
    max_prompt_characters: int = Field(default=20_000, ge=1)
    hand_out_minutes: float = Field(default=30.0, gt=0)
    """How long an annotator may be idle before a comparison that was handed to them goes to somebody else."""
    max_open_conversations: int = Field(default=5, ge=1)
    """How many conversations an annotator may have under way at once."""
    stock_per_annotator: int = Field(default=3, ge=1)
    """How many comparisons from the prompt pool are kept ready ahead of each active annotator."""

    @model_validator(mode="after")
    def _resolve(self) -> Self:
        self.data_dir = self.data_dir.expanduser().resolve()
        if not self.database_url:
            self.database_url = f"sqlite:///{self.data_dir / 'preferably.db'}"
        if self.datasets_dir is None:
            self.datasets_dir = self.data_dir / "datasets"
        self.public_url = self.public_url.rstrip("/")
        return self

    @property
    def datasets_root(self) -> Path:
        """The folder of frozen datasets."""
        if self.datasets_dir is None:  # pragma: no cover - the validator fills it
            msg = "datasets_dir is not resolved"
            raise RuntimeError(msg)
        return self.datasets_dir

    @property
    def is_https(self) -> bool:
        """Whether people reach the app over TLS; cookies are then marked secure."""
        return self.public_url.startswith("https://")

    def ensure_secrets(self) -> None:
        """Use the configured pseudonym secret, or the one in ``data_dir``, made there if absent.

        Raises:
            WeakSecretError: A secret is too short to be one.

        """
        if 0 < len(self.metrics_token.get_secret_value()) < _SECRET_MIN_CHARACTERS:
            msg = (
                f"PREFERABLY_METRICS_TOKEN must have at least {_SECRET_MIN_CHARACTERS} characters. "
                "Leave it unset to have no metrics."
            )
            raise WeakSecretError(msg)
        if not self.pseudonym_secret.get_secret_value():
            self.pseudonym_secret = SecretStr(_read_or_create_secret(self.data_dir / _KEY_FILE))
        if len(self.pseudonym_secret.get_secret_value()) < _SECRET_MIN_CHARACTERS:
            msg = (
                f"PREFERABLY_PSEUDONYM_SECRET must have at least {_SECRET_MIN_CHARACTERS} characters. "
                "Leave it unset to have one made."
            )
            raise WeakSecretError(msg)


def _read_or_create_secret(file: Path) -> str:
    """Read a secret file, or create it readable by its owner only; safe when two processes start at once."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as stream:
        stream.write(secrets.token_urlsafe(_SECRET_BYTES))
    try:
        # A hard link fails where the file exists: the first process wins and the others read its secret.
        os.link(fresh, file)
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
    return file.read_text(encoding="ascii").strip()
