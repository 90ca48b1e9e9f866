"""The sampling worker: claims pairs, streams their text, delivers the responses, and stops in good order."""

import logging
import time

from contract.sampling import Release
from model_worker.claiming import Claiming
from model_worker.client import AppClient, AppError
from model_worker.delivering import Delivering
from model_worker.library import Library
from model_worker.live_jobs import LiveJobs
from model_worker.metrics import Metrics
from model_worker.pace import Pace
from model_worker.promotion import Promotion
from model_worker.registration import Registration
from model_worker.reporting import Reporting
from model_worker.sampling.interface import Sampler
from model_worker.status import StatusBoard
from model_worker.stopping import Stopping
from model_worker.throughput import TokenRate

log = logging.getLogger(__name__)

_TICK_S = 0.05
_JOIN_S = 2.0


class Worker:
    """Samples for the app until it is told to stop.

    Its threads: the caller's reports, one claims, a few deliver, one takes checkpoints up, one watches the library.
    The sampler has its own.
    """

    def __init__(
        self,
        client: AppClient,
        registration: Registration,
        sampler: Sampler,
        library: Library,
        metrics: Metrics,
        *,
        max_checkpoints: int = 2,
        pace: Pace,
    ) -> None:
        self._client = client
        self._registration = registration
        self._sampler = sampler
        self._library = library
        self._pace = pace
        self._live = LiveJobs()
        rate = TokenRate(sampler.tokens_drawn)
        metrics.watch(sampler, self._live, rate)
        self._claiming = Claiming(client, registration, sampler, self._live, metrics, pace)
        self._promotion = Promotion(
            sampler, library, metrics, max_checkpoints=max_checkpoints, on_change=self._claiming.interrupt
        )
        self.board = StatusBoard(sampler, library, self._promotion, metrics, rate)
        self._delivering = Delivering(client, registration, self._claiming, self._live, metrics, pace)
        self._reporting = Reporting(
            client, registration, sampler, self._live, self._promotion, self.board, metrics, pace
        )

    def run(self, stopping: Stopping) -> None:
        """Work until asked to stop, then drain and release what is left.

        Raises:
            UnauthorizedError: The token is not, or no longer, a worker's.
            ProtocolMismatchError: The app is of another version.
            WorkerStoppedError: A thread of the worker broke, or job after job did.

        """
        claiming = stopping.start_thread(lambda: self._claiming.run(stopping), "claim")
        self._delivering.start(stopping)
        stopping.start_thread(lambda: self._promotion.run(stopping), "promotion")
        stopping.start_thread(lambda: self._library.run(stopping), "library")
        # It reports in a thread of its own, so that a slow call does not hold up the stop.
        reporting = stopping.start_thread(lambda: self._report(stopping), "events")
        try:
            stopping.wait_for_ever()
            self._claiming.interrupt()
            claiming.join(_JOIN_S)
            self._drain(stopping)
        finally:
            self._delivering.end()
            self._sampler.close(0.0)
        reporting.join(_JOIN_S)
        if stopping.error is None or not isinstance(stopping.error, AppError):
            self._say_farewell()

    def _report(self, stopping: Stopping) -> None:
        while not self._delivering.is_over() and stopping.error is None:
            self._reporting.report()
            time.sleep(_TICK_S)

    def _drain(self, stopping: Stopping) -> None:
        """Let responses end and be delivered, as long as the worker may take."""
        deadline = time.monotonic() + self._pace.drain_s
        while stopping.error is None and time.monotonic() < deadline and not self._live.wait_until_empty(_TICK_S):
            pass

    def _say_farewell(self) -> None:
        """Give back what is left, and say that this was the last word."""
        left = self._live.leases()
        try:
            self._registration.ask(
                lambda registered: self._client.release(
                    Release(worker_id=registered.worker_id, leases=left, is_stopping=True),
                    read_s=self._pace.farewell_s,
                )
            )
        except AppError as error:
            log.warning("release failed; the leases will expire", extra={"reason": str(error), "jobs": len(left)})
        else:
            log.info("released", extra={"jobs": len(left)})
