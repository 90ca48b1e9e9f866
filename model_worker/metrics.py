"""Counts what a worker does, for Prometheus and for the line in the terminal, and keeps its last error."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from contract.errors import ContractError
from contract.sampling import SampledResponse
from model_worker.client import AppError
from model_worker.live_jobs import LiveJobs
from model_worker.sampling.interface import Sampler
from model_worker.throughput import TokenRate

_FIRST_TOKEN_S: Final = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_PAIR_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0)
# The contract's limit for an error in a worker's status, in characters.
_LONGEST_ERROR: Final = 2000


class MetricsPortError(ContractError):
    """The metrics cannot be served on the port that the settings name."""


class JobEnd(StrEnum):
    """How a job ended, as the app took it."""

    DONE = "done"
    FAILED = "failed"
    RETURNED = "returned"
    """Given back for want of room, no failure counted."""
    LATE = "late"
    """The job was no longer this worker's when its outcome came."""


class Metrics:
    """Prometheus metrics of one worker, in a registry of their own. Methods may be called from any thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._lock = threading.Lock()
        self._last_error: str | None = None
        jobs = Counter("preferably_worker_jobs", "Jobs that ended, by how.", ["end"], registry=self.registry)
        self._jobs = {end: jobs.labels(end.value) for end in JobEnd}
        self._app_errors = Counter(
            "preferably_worker_app_errors", "Requests to the app that failed.", ["request"], registry=self.registry
        )
        self._swaps = Counter(
            "preferably_worker_swaps", "Checkpoints taken up since the start.", registry=self.registry
        )
        self._refusals = Counter("preferably_worker_refusals", "Checkpoints refused.", registry=self.registry)
        self._first_token = Histogram(
            "preferably_worker_first_token_seconds",
            "From a pair's claim to the first token of a response.",
            buckets=_FIRST_TOKEN_S,
            registry=self.registry,
        )
        self._pair = Histogram(
            "preferably_worker_pair_seconds",
            "From a pair's claim to the last token of its responses.",
            buckets=_PAIR_S,
            registry=self.registry,
        )

    def watch(self, sampler: Sampler, live: LiveJobs, rate: TokenRate) -> None:
        """Read the gauges off these whenever somebody asks. Called once."""
        gauges = {
            "pairs_live": ("Pairs that are being sampled.", live.sampling),
            "pairs_free": ("Pairs that would fit beside them.", sampler.capacity),
            "tokens_per_second": ("Tokens drawn per second, over the last ten seconds or so.", rate.per_s),
        }
        for name, (meaning, read) in gauges.items():
            Gauge(f"preferably_worker_{name}", meaning, registry=self.registry).set_function(read)
        self.registry.register(_TokensDrawn(sampler))

    def pair_done(self, responses: tuple[SampledResponse, ...]) -> None:
        """A pair was delivered."""
        self.job_ended(JobEnd.DONE)
        for response in responses:
            self._first_token.observe(response.first_token_s)
        self._pair.observe(max((response.total_s for response in responses), default=0.0))

    def job_ended(self, end: JobEnd) -> None:
        """A job ended."""
        self._jobs[end].inc()

    def jobs(self, end: JobEnd) -> int:
        """How many jobs ended so."""
        return int(self.registry.get_sample_value("preferably_worker_jobs_total", {"end": end.value}) or 0)

    def app_failed(self, request: str, error: AppError) -> None:
        """A request to the app did not succeed."""
        self._app_errors.labels(request).inc()
        self.note_error(str(error))

    def swapped(self) -> None:
        """A checkpoint was taken up."""
        self._swaps.inc()

    def refused(self, reason: str) -> None:
        """A checkpoint cannot be served."""
        self._refusals.inc()
        self.note_error(reason)

    def note_error(self, message: str) -> None:
        """Keep an error, in place of the one before."""
        with self._lock:
            self._last_error = message[:_LONGEST_ERROR]

    @property
    def last_error(self) -> str | None:
        """What went wrong last."""
        with self._lock:
            return self._last_error


class _TokensDrawn(Collector):
    """A counter that the sampler keeps itself."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    def collect(self) -> Iterator[CounterMetricFamily]:
        yield CounterMetricFamily(
            "preferably_worker_tokens", "Tokens drawn since the start.", value=self._sampler.tokens_drawn()
        )


@contextmanager
def metrics_served(metrics: Metrics, *, host: str, port: int | None) -> Iterator[None]:
    """Serve the metrics over HTTP until the block ends; without a port, do nothing.

    Raises:
        MetricsPortError: Another program listens there.

    """
    if port is None:
        yield
        return
    try:
        server, thread = start_http_server(port, addr=host, registry=metrics.registry)
    except OSError as error:
        msg = f"the metrics cannot be served on {host}:{port}: {error.strerror or error}"
        raise MetricsPortError(msg) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
