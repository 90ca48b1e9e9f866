"""The worker's heartbeat: sends new text and the worker's status, and passes on what the app answers."""

import logging
import time

from contract.sampling import Control, Events, Lease, TokenEvent, WorkerStatus
from model_worker.backoff import Backoff
from model_worker.client import FATAL_ERRORS, AppClient, AppError
from model_worker.live_jobs import LiveJobs
from model_worker.metrics import Metrics
from model_worker.pace import Pace
from model_worker.promotion import Promotion
from model_worker.registration import Registration
from model_worker.sampling.interface import Sampler
from model_worker.status import StatusBoard, is_news

log = logging.getLogger(__name__)


class Reporting:
    """One events call at a time, so that text arrives in order."""

    def __init__(
        self,
        client: AppClient,
        registration: Registration,
        sampler: Sampler,
        live: LiveJobs,
        promotion: Promotion,
        board: StatusBoard,
        metrics: Metrics,
        pace: Pace,
    ) -> None:
        self._client = client
        self._registration = registration
        self._sampler = sampler
        self._live = live
        self._promotion = promotion
        self._board = board
        self._metrics = metrics
        self._pace = pace
        self._backoff = Backoff()
        self._next_at = 0.0
        self._heartbeat_at = 0.0
        self._told: WorkerStatus | None = None

    def report(self) -> None:
        """Send events, if any are due.

        Raises:
            UnauthorizedError: The token is not, or no longer, a worker's.
            ProtocolMismatchError: The app is of another version.

        """
        at = time.monotonic()
        if at < self._next_at:
            return
        leases, tokens, status = self._live.leases(), self._live.unsent_text(), self._board.now()
        is_heartbeat = at >= self._heartbeat_at
        is_changed = is_news(status, self._told)
        if tokens or is_heartbeat or is_changed:
            self._send(leases, tokens, status if is_heartbeat or is_changed else None)
        else:
            self._next_at = at + self._pace.events_s

    def _send(self, leases: tuple[Lease, ...], tokens: tuple[TokenEvent, ...], status: WorkerStatus | None) -> None:
        try:
            control = self._registration.ask(
                lambda registered: self._client.events(
                    Events(worker_id=registered.worker_id, leases=leases, tokens=tokens, status=status),
                    read_s=max(self._pace.heartbeat_s, registered.lease_s / 3),
                )
            )
        except FATAL_ERRORS:
            raise
        except AppError as error:
            delay = self._backoff.next_delay()
            self._metrics.app_failed("events", error)
            log.warning("events failed", extra={"reason": str(error), "retry_s": round(delay, 2)})
            self._next_at = time.monotonic() + delay
            return
        self._backoff.reset()
        self._live.text_was_sent(tokens)
        self._obey(control, leases)
        at = time.monotonic()
        self._next_at = at + self._pace.events_s
        # A heartbeat carries the status, so that one that only brought text puts the next off no further.
        if status is not None:
            self._told = status
            self._heartbeat_at = at + min(self._pace.heartbeat_s, self._registration.current().lease_s / 3)

    def _obey(self, control: Control, leases: tuple[Lease, ...]) -> None:
        for lease in self._live.drop_jobs(control.drop, leases):
            log.info("dropped", extra={"job_id": str(lease.job_id), "attempt": lease.attempt})
            self._sampler.cancel(lease)
        self._promotion.want(control.serve)
