"""The sampler that asks an inference server: jobs in, responses out, and one thread for all connections."""

import asyncio
import importlib.metadata
import logging
import threading
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from contract.checkpoint_files import CheckpointError, CheckpointFiles
from contract.sampling import Lease, PairJob, SampledResponse
from model_worker.sampling.interface import JobError, SamplerFacts, Sink, lease_of
from model_worker.sampling.openai_compat.connection import Connection, ServerOptions
from model_worker.sampling.openai_compat.errors import ServerError
from model_worker.sampling.openai_compat.pair import draw_job
from model_worker.settings import WorkerSettings

log = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")
# The contract's limit for the reason of a failed job, in characters.
_LONGEST_REASON: Final = 2000


@dataclass
class _Live:
    """A job under way; only the loop's thread touches it."""

    task: asyncio.Task[tuple[SampledResponse, ...]] | None = None
    is_cancelled: bool = False


class OpenAICompatSampler:
    """A :class:`~model_worker.sampling.interface.Sampler` over one server, which serves one checkpoint.

    The checkpoint's folder names what is served, by digest, and holds the tokenizer and the template used here. That
    the server has loaded the same folder is the administrator's word: it cannot be seen from outside.
    """

    def __init__(self, options: ServerOptions, folder: Path, files: CheckpointFiles, *, max_pairs: int) -> None:
        self._max_pairs = max_pairs
        self._changed = threading.Condition()
        self._live: dict[Lease, _Live] = {}
        self._is_closing = False
        self._is_swapping = False
        self._tokens_drawn = 0
        self._versions = {package: importlib.metadata.version(package) for package in ("httpx", "transformers")}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="openai-compat", daemon=True)
        self._thread.start()
        # Before anything can go wrong, since close needs it.
        self._connection = Connection(options, count=self._count)
        try:
            self._wait_for(self._connection.open(folder, files))
        except BaseException:
            self.close(0.0)
            raise

    @classmethod
    def from_settings(cls, settings: WorkerSettings, files: Mapping[Path, CheckpointFiles]) -> Self:
        """Connect to the server and probe it.

        Raises:
            CheckpointError: The checkpoint cannot be served, or the server does not do as it is asked.
            ServerError: The server does not answer.

        """
        if len(files) != 1:
            msg = (
                f"The engine openai serves the one checkpoint that its server has loaded; {len(files)} were named. Run "
                "a worker for each server."
            )
            raise CheckpointError(msg)
        ((folder, inspected),) = files.items()
        return cls(ServerOptions.of(settings), folder, inspected, max_pairs=settings.max_pairs)

    def facts(self) -> SamplerFacts:
        """The server's engine and the checkpoint; none while it is being replaced, or after that went wrong."""
        place, provenance = self._connection.place, self._connection.provenance
        with self._changed:
            is_serving = place is not None and not self._is_swapping
        return SamplerFacts(
            engine=provenance.engine,
            versions=self._versions,
            device=provenance.device,
            dtype=provenance.dtype,
            max_pairs=self._max_pairs,
            checkpoints=(place.drawer.checkpoint.files,) if place is not None and is_serving else (),
        )

    def capacity(self) -> int:
        """How many more pairs are taken."""
        with self._changed:
            is_open = self._connection.place is not None and not self._is_closing and not self._is_swapping
            return max(0, self._max_pairs - len(self._live)) if is_open else 0

    def tokens_drawn(self) -> int:
        """How many tokens the server sent, or pieces of text where it names no tokens."""
        return self._tokens_drawn

    def submit(self, job: PairJob, sink: Sink) -> None:
        """Start a pair: its requests go out at once."""
        lease = lease_of(job)
        with self._changed:
            objection = self._objection(job)
            if objection is None:
                self._live[lease] = _Live()
                self._loop.call_soon_threadsafe(self._begin, job, sink)
        if objection is not None:
            sink.returned(lease, objection)

    def cancel(self, lease: Lease) -> None:
        """Close the pair's connections, which stops the server's work on it."""
        with self._changed:
            if lease in self._live:
                self._loop.call_soon_threadsafe(self._stop, self._live[lease])

    def swap(self, folder: Path, files: CheckpointFiles, *, instead_of: str | None) -> None:
        """Let the server load another checkpoint from the same path as here, once its live pairs have ended.

        Raises:
            CheckpointError: The server cannot do that; what it served before it still serves, unless the message says
                otherwise.

        """
        staged = self._connection.stage(folder, files, instead_of=instead_of)
        with self._changed:
            self._is_swapping = True
            self._changed.wait_for(lambda: not self._live)
        try:
            self._wait_for(self._connection.swap(staged))
        finally:
            with self._changed:
                self._is_swapping = False

    def close(self, drain_s: float) -> None:
        """Drain, cancel what is left, close the connections, end the thread. Closing twice is no error."""
        with self._changed:
            is_closed, self._is_closing = self._is_closing, True
            if is_closed:
                return
            self._changed.wait_for(lambda: not self._live, timeout=drain_s)
            for live in self._live.values():
                self._loop.call_soon_threadsafe(self._stop, live)
            self._changed.wait_for(lambda: not self._live)
        self._wait_for(self._connection.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _objection(self, job: PairJob) -> str | None:
        place = self._connection.place
        if self._is_closing:
            return "This model worker is stopping."
        if place is None or self._is_swapping:
            return "This model worker is changing its checkpoint."
        digest = place.drawer.checkpoint.files.digest
        unknown = [spec.checkpoint_digest for spec in job.specs if spec.checkpoint_digest != digest]
        return f"This model worker does not serve the checkpoint {unknown[0][:12]}." if unknown else None

    def _begin(self, job: PairJob, sink: Sink) -> None:
        """Start the task of a job, in the loop's thread; what it ends with is reported however it ends."""
        lease = lease_of(job)
        live = self._live[lease]
        live.task = self._loop.create_task(self._draw(job, sink))
        live.task.add_done_callback(lambda ended: self._end(lease, sink, ended))
        if live.is_cancelled:
            live.task.cancel()

    def _stop(self, live: "_Live") -> None:
        live.is_cancelled = True
        if live.task is not None:
            live.task.cancel()

    async def _draw(self, job: PairJob, sink: Sink) -> tuple[SampledResponse, ...]:
        lease, place = lease_of(job), self._connection.place
        if place is None:  # pragma: no cover - a swap waits until no job is live
            msg = "This model worker serves no checkpoint."
            raise ServerError(msg)
        return await draw_job(job, place, lambda spec_index, text: sink.text(lease, spec_index, text))

    def _end(self, lease: Lease, sink: Sink, ended: asyncio.Task[tuple[SampledResponse, ...]]) -> None:
        """Report how a job ended, before its place is free."""
        try:
            _report(lease, sink, ended)
        finally:
            with self._changed:
                del self._live[lease]
                self._changed.notify_all()

    def _count(self, tokens: int) -> None:
        self._tokens_drawn += tokens

    def _wait_for(self, work: Coroutine[Any, Any, ResultT]) -> ResultT:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def _report(lease: Lease, sink: Sink, ended: asyncio.Task[tuple[SampledResponse, ...]]) -> None:
    if ended.cancelled():
        sink.cancelled(lease)
        return
    error = ended.exception()
    details = {"job_id": str(lease.job_id), "reason": str(error)}
    if error is None:
        sink.done(lease, ended.result())
    elif isinstance(error, JobError):
        log.warning("job refused", extra=details)
        sink.failed(lease, str(error)[:_LONGEST_REASON], is_retryable=False)
    elif isinstance(error, ServerError):
        log.warning("job failed", extra=details)
        sink.failed(lease, str(error)[:_LONGEST_REASON], is_retryable=True)
    else:
        # Whatever went wrong in this job, the others go on, and this one is handed out again.
        log.error("job failed", extra=details, exc_info=error)
        sink.failed(lease, f"{type(error).__name__}: {error}"[:_LONGEST_REASON], is_retryable=True)
