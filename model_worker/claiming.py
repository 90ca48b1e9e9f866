"""The thread that asks the app for work whenever a pair fits, and hands it to the sampler."""

import logging
import time

from contract.sampling import Claim, Claimed
from model_worker.backoff import Backoff
from model_worker.client import FATAL_ERRORS, AppClient, AppError
from model_worker.held_requests import RequestInterruptedError
from model_worker.live_jobs import LiveJobs
from model_worker.metrics import Metrics
from model_worker.pace import Pace
from model_worker.registration import Registration
from model_worker.sampling.interface import Sampler
from model_worker.stopping import Stopping

log = logging.getLogger(__name__)


class Claiming:
    """Claims pairs as long as the worker runs."""

    def __init__(
        self,
        client: AppClient,
        registration: Registration,
        sampler: Sampler,
        live: LiveJobs,
        metrics: Metrics,
        pace: Pace,
    ) -> None:
        self._client = client
        self._registration = registration
        self._sampler = sampler
        self._live = live
        self._metrics = metrics
        self._pace = pace
        self._backoff = Backoff()
        self._hold_off_backoff = Backoff()
        self._hold_off_until = 0.0

    def run(self, stopping: Stopping) -> None:
        """Claim until the worker stops.

        Raises:
            UnauthorizedError: The token is not, or no longer, a worker's.
            ProtocolMismatchError: The app is of another version.

        """
        while not stopping.is_set():
            digests = tuple(files.digest for files in self._sampler.facts().checkpoints)
            want = self._sampler.capacity() if digests and time.monotonic() >= self._hold_off_until else 0
            if want < 1:
                stopping.wait(self._pace.full_s)
                continue
            try:
                self._take(self._claim(want, digests))
            except RequestInterruptedError:
                continue
            except FATAL_ERRORS:
                raise
            except AppError as error:
                delay = self._backoff.next_delay()
                self._metrics.app_failed("claim", error)
                log.warning("claim failed", extra={"reason": str(error), "retry_s": round(delay, 2)})
                stopping.wait(delay)

    def interrupt(self) -> None:
        """End a claim that the app holds: what it was asked with is no longer true."""
        self._client.interrupt_claim()

    def hold_off(self) -> None:
        """A job was returned for want of room: asking for it again at once would go round in circles."""
        self._hold_off_until = time.monotonic() + self._hold_off_backoff.next_delay()

    def go_on(self) -> None:
        """A job was done: there is room."""
        self._hold_off_backoff.reset()

    def _claim(self, want: int, digests: tuple[str, ...]) -> Claimed:
        claimed = self._registration.ask(
            lambda registered: self._client.claim(
                Claim(worker_id=registered.worker_id, want=want, digests=digests, wait_s=self._pace.claim_wait_s)
            )
        )
        self._backoff.reset()
        return claimed

    def _take(self, claimed: Claimed) -> None:
        for job in claimed.jobs:
            for older in self._live.add(job):
                self._sampler.cancel(older)
            log.info("claimed", extra={"job_id": str(job.job_id), "attempt": job.attempt})
            self._sampler.submit(job, self._live)
