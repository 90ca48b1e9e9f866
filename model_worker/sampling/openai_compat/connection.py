"""The connection to one server: what it is, whether it does as asked, what it serves, and how that is replaced."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, Self

from contract.checkpoint_files import CheckpointError, CheckpointFiles, inspect_checkpoint
from model_worker.backoff import Backoff
from model_worker.sampling.interface import NoRoomError
from model_worker.sampling.openai_compat.dialect import Dialect, ServerFacts
from model_worker.sampling.openai_compat.drawing import Drawer
from model_worker.sampling.openai_compat.errors import ServerError, ServerRefusedError, UnfaithfulServerError
from model_worker.sampling.openai_compat.pair import Place, Provenance
from model_worker.sampling.openai_compat.plain import PlainDialect
from model_worker.sampling.openai_compat.probe import Verdict, probe, probe_request
from model_worker.sampling.openai_compat.served import ServedCheckpoint, same_shape
from model_worker.sampling.openai_compat.server import Server
from model_worker.sampling.openai_compat.sglang import SglangDialect
from model_worker.sampling.openai_compat.vllm import VllmDialect
from model_worker.settings import WorkerSettings

log = logging.getLogger(__name__)

_DEVICE: Final = "remote"
_DIALECTS: Final[Mapping[str, Callable[[str], Dialect]]] = MappingProxyType(
    {"vllm": VllmDialect, "sglang": SglangDialect, "openai": PlainDialect}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """Where the server is, and how to speak to it; :class:`~model_worker.settings.WorkerSettings` says what each is."""

    url: str
    model: str
    dialect: Literal["vllm", "sglang", "openai"]
    api_key: str | None = None
    timeout_s: float = 120.0
    retries: int = 3
    accepts_unseeded: bool = False
    data_parallel: int = 1
    dtype: str = "unknown"

    @classmethod
    def of(cls, settings: WorkerSettings) -> Self:
        """The settings' part that is about the server.

        Raises:
            CheckpointError: The address or the name of the model is missing.

        """
        if settings.openai_url is None or settings.openai_model is None:
            msg = "The engine openai needs openai_url and openai_model."
            raise CheckpointError(msg)
        return cls(
            url=str(settings.openai_url),
            model=settings.openai_model,
            dialect=settings.openai_dialect,
            api_key=settings.openai_api_key.get_secret_value() if settings.openai_api_key is not None else None,
            timeout_s=settings.openai_timeout_s,
            retries=settings.openai_retries,
            accepts_unseeded=settings.openai_accepts_unseeded,
            data_parallel=settings.openai_data_parallel,
            dtype="unknown" if settings.dtype == "auto" else settings.dtype,
        )


class Connection:
    """To one server. ``place`` is ``None`` until it was probed, and after a swap that went wrong for good."""

    def __init__(self, options: ServerOptions, *, count: Callable[[int], None]) -> None:
        self._options = options
        self._count = count
        self._server = Server(options.url, api_key=options.api_key, timeout_s=options.timeout_s)
        self._dialect: Dialect = _DIALECTS[options.dialect](options.model)
        self._said = ServerFacts(engine=options.dialect)
        self.place: Place | None = None

    @property
    def provenance(self) -> Provenance:
        """What records say of the server at present."""
        if self.place is not None:
            return self.place.provenance
        return Provenance(engine=self._said.engine, dtype=self._options.dtype, device=_DEVICE, has_raw_logprobs=False)

    async def open(self, folder: Path, files: CheckpointFiles) -> None:
        """Ask the server what it is, and probe it.

        Raises:
            CheckpointError: The folder cannot be sampled from, or the server does not do as it is asked.
            ServerError: The server does not answer, or does not serve the model.

        """
        checkpoint = ServedCheckpoint.read(folder, files)
        self._said = await self._identify(checkpoint)
        if self._said.models and self._options.model not in self._said.models:
            names = ", ".join(self._said.models)
            msg = f"{self._server.url} does not serve a model called {self._options.model!r}, but {names}."
            raise CheckpointError(msg)
        if self._said.folder is not None and Path(self._said.folder) != checkpoint.folder:
            details = {"server_folder": self._said.folder, "worker_folder": str(checkpoint.folder)}
            log.warning("the server loaded another path: make sure it is the same checkpoint", extra=details)
        self.place = await self._probed(checkpoint, weight_version=None)

    async def close(self) -> None:
        """Close all connections."""
        await self._server.close()

    def stage(self, folder: Path, files: CheckpointFiles, *, instead_of: str | None) -> ServedCheckpoint:
        """Read and verify a checkpoint that is to take the place of the served one.

        Raises:
            CheckpointError: It cannot, and nothing has changed.

        """
        served = self.place.drawer.checkpoint if self.place is not None else None
        if served is None or instead_of != served.files.digest:
            msg = "One inference server serves one checkpoint: another one can only take its place."
            raise NoRoomError(msg)
        if inspect_checkpoint(folder).digest != files.digest:
            msg = f"{folder} has changed since it was looked at: it no longer is {files.digest[:12]}."
            raise CheckpointError(msg)
        if files.tokenizer_digest != served.files.tokenizer_digest or not same_shape(served.folder, folder):
            msg = f"{folder.name} has another config or tokenizer than {served.files.name}: restart the server with it."
            raise CheckpointError(msg)
        return ServedCheckpoint.read(folder, files)

    async def swap(self, staged: ServedCheckpoint) -> None:
        """Let the server load the staged checkpoint, and probe it; go back where that fails.

        Raises:
            CheckpointError: The server does not serve it; the message says what it serves instead.

        """
        before, self.place = self.place, None
        if before is None:  # pragma: no cover - stage has seen to it
            msg = "There is no checkpoint to replace."
            raise CheckpointError(msg)
        try:
            await self._dialect.load(self._server, staged.folder, staged.files.digest)
            self.place = await self._probed(staged, weight_version=staged.files.digest)
        except UnfaithfulServerError as error:
            await self._go_back(before, staged, error)
        except CheckpointError:
            self.place = before
            raise
        except ServerError as error:
            await self._go_back(before, staged, error)

    async def _go_back(self, before: Place, staged: ServedCheckpoint, reason: Exception) -> None:
        old = before.drawer.checkpoint
        try:
            await self._dialect.load(self._server, old.folder, old.files.digest)
            self.place = await self._probed(old, weight_version=old.files.digest)
        except (CheckpointError, ServerError) as error:
            msg = (
                f"The server could not load {staged.files.name} ({reason}), nor {old.files.name} again ({error}). "
                "What it serves is unknown, and this worker draws no more responses: restart both."
            )
            raise CheckpointError(msg) from error
        msg = f"The server could not load {staged.files.name}, and serves {old.files.name} again: {reason}"
        raise CheckpointError(msg) from reason

    async def _identify(self, checkpoint: ServedCheckpoint) -> ServerFacts:
        """Patiently: server and worker may have been started together."""
        backoff = Backoff(first_s=1.0)
        for tries_left in reversed(range(self._options.retries + 1)):
            try:
                return await self._dialect.identify(self._server, probe_request(checkpoint))
            except ServerRefusedError:
                raise
            except ServerError as error:
                if not tries_left:
                    raise
                log.warning("the server does not answer yet", extra={"reason": str(error), "tries_left": tries_left})
                await asyncio.sleep(backoff.next_delay())
        raise AssertionError  # pragma: no cover - the last try returns or raises

    async def _probed(self, checkpoint: ServedCheckpoint, *, weight_version: str | None) -> Place:
        """A place to draw from; its responses must have the weight version that the probe's had."""
        drawer = self._drawer(checkpoint, weight_version)
        verdict = await probe(drawer, accepts_unseeded=self._options.accepts_unseeded)
        limits = [checkpoint.context_length, self._said.context_length or checkpoint.context_length]
        return Place(
            drawer=self._drawer(checkpoint, weight_version or verdict.weight_version),
            provenance=Provenance(
                engine=self._engine(verdict),
                dtype=self._options.dtype,
                device=_DEVICE,
                has_raw_logprobs=verdict.has_raw_logprobs,
            ),
            context_length=min(limits),
            ranks=self._options.data_parallel,
        )

    def _drawer(self, checkpoint: ServedCheckpoint, weight_version: str | None) -> Drawer:
        return Drawer(
            self._server,
            self._dialect,
            checkpoint,
            retries=self._options.retries,
            weight_version=weight_version,
            count=self._count,
        )

    def _engine(self, verdict: Verdict) -> str:
        """The server's name and version, with what a reader of a record must know."""
        notes = [] if self._dialect.gives_token_ids else ["ids from text"]
        notes += [] if verdict.is_seeded else ["unseeded"]
        return f"{self._said.engine} ({', '.join(notes)})" if notes else self._said.engine
