"""The worker's loop: claims pairs, streams their text, delivers the responses, and stops in good order."""

import logging
import threading
import time
from dataclasses import dataclass

from contract.errors import ContractError
from contract.sampling import Claim, Claimed, Events, Fail, Finish, Lease, Release, TokenEvent
from model_worker.backoff import Backoff
from model_worker.client import (
    AppClient,
    AppError,
    AppFailedError,
    AppUnavailableError,
    LeaseLostError,
    ProtocolMismatchError,
    RequestRefusedError,
    UnauthorizedError,
)
from model_worker.live_jobs import Delivery, Failure, LiveJobs, Outcome
from model_worker.registration import Registration
from model_worker.sampling.interface import Sampler

log = logging.getLogger(__name__)

# What no waiting mends: the process ends with the message, and a person mends it.
FATAL_ERRORS = (UnauthorizedError, ProtocolMismatchError)
_MOST_BROKEN = 8


class WorkerStoppedError(ContractError):
    """The worker cannot go on; the message says what to do."""


@dataclass(frozen=True)
class Pace:
    """How often things happen, in seconds."""

    claim_wait_s: float = 5.0
    """How long the app may hold a request for work."""
    events_s: float = 0.25
    """New text is sent at most so often."""
    drain_s: float = 8.0
    """How long responses may run on once the worker stops."""
    give_up_s: float = 300.0
    """How long the app may fail on one outcome before it is given up. An app that is away is waited for."""
    full_s: float = 0.05
    """How often a full sampler is asked again whether something fits."""


class Worker:
    """Samples for the app until it is told to stop.

    Two threads: one claims, the caller's reports. The sampler has its own.
    """

    def __init__(self, client: AppClient, registration: Registration, sampler: Sampler, pace: Pace) -> None:
        self._client = client
        self._registration = registration
        self._sampler = sampler
        self._pace = pace
        self._live = LiveJobs()
        self._claim_backoff = Backoff()
        self._events_backoff = Backoff()
        self._next_events_at = 0.0
        self._heartbeat_at = 0.0
        self._fatal: Exception | None = None
        self._broken_in_a_row = 0

    def run(self, stopping: threading.Event) -> None:
        """Work until ``stopping`` is set, then drain and release what is left.

        Raises:
            UnauthorizedError: The token is not, or no longer, a worker's.
            ProtocolMismatchError: The app is of another version.
            WorkerStoppedError: A thread of the worker broke, or job after job did.

        """
        claiming = threading.Thread(target=self._claim_until, args=(stopping,), name="claim", daemon=True)
        claiming.start()
        try:
            while not stopping.is_set():
                self._report()
                self._live.wait_for_news(min(self._pace.events_s, 0.1))
        except Exception:
            # A worker that cannot report must not go on claiming; the error itself goes to the caller.
            stopping.set()
            raise
        self._stop(claiming)
        if isinstance(self._fatal, ContractError):
            raise self._fatal
        if self._fatal is not None:
            msg = f"the worker broke: {type(self._fatal).__name__}: {self._fatal}"
            raise WorkerStoppedError(msg) from self._fatal

    # Claiming ---------------------------------------------------------------------------------------------------

    def _claim_until(self, stopping: threading.Event) -> None:
        while not stopping.is_set():
            want = self._sampler.capacity()
            if want < 1:
                stopping.wait(self._pace.full_s)
                continue
            try:
                self._take(self._claim(want))
            except FATAL_ERRORS as error:
                self._fatal = error
                stopping.set()
            except AppError as error:
                delay = self._claim_backoff.next_delay()
                log.warning("claim failed", extra={"reason": str(error), "retry_s": round(delay, 2)})
                stopping.wait(delay)
            except Exception as error:
                # A broken thread must not leave a worker that looks alive and never claims.
                log.exception("claiming broke")
                self._fatal = error
                stopping.set()

    def _claim(self, want: int) -> Claimed:
        digests = tuple(files.digest for files in self._sampler.facts().checkpoints)
        claimed = self._registration.ask(
            lambda registered: self._client.claim(
                Claim(worker_id=registered.worker_id, want=want, digests=digests, wait_s=self._pace.claim_wait_s)
            )
        )
        self._claim_backoff.reset()
        return claimed

    def _take(self, claimed: Claimed) -> None:
        for job in claimed.jobs:
            for older in self._live.add(job):
                self._sampler.cancel(older)
            log.info("claimed", extra={"job_id": str(job.job_id), "attempt": job.attempt})
            self._sampler.submit(job, self._live)

    # Reporting --------------------------------------------------------------------------------------------------

    def _report(self) -> None:
        for delivery in self._live.due_deliveries():
            self._try(delivery)
        leases = self._live.leases()
        at = time.monotonic()
        if not leases or at < self._next_events_at:
            return
        tokens = self._live.unsent_text()
        if tokens or at >= self._heartbeat_at:
            self._send_events(tuple(leases), tokens)

    def _send_events(self, leases: tuple[Lease, ...], tokens: tuple[TokenEvent, ...]) -> None:
        try:
            control = self._registration.ask(
                lambda registered: self._client.events(
                    Events(worker_id=registered.worker_id, leases=leases, tokens=tokens)
                )
            )
        except FATAL_ERRORS:
            raise
        except AppError as error:
            delay = self._events_backoff.next_delay()
            log.warning("events failed", extra={"reason": str(error), "retry_s": round(delay, 2)})
            self._next_events_at = time.monotonic() + delay
            return
        self._events_backoff.reset()
        self._live.text_was_sent(tokens)
        for lease in self._live.drop_jobs(control.drop, leases):
            log.info("dropped", extra={"job_id": str(lease.job_id), "attempt": lease.attempt})
            self._sampler.cancel(lease)
        at = time.monotonic()
        self._next_events_at = at + self._pace.events_s
        self._heartbeat_at = at + self._registration.current().lease_s / 3

    def _try(self, delivery: Delivery) -> None:
        """Send an outcome; it is kept until the app has accepted or refused it."""
        try:
            self._send(delivery)
        except FATAL_ERRORS:
            raise
        except AppUnavailableError as error:
            if delivery.patience.is_over(error, limit_s=self._pace.give_up_s):
                self._give_up(delivery, error)
                return
            delay = self._live.put_off(delivery)
            log.warning("delivery failed", extra={"reason": str(error), "retry_s": round(delay, 2)})
            return
        except LeaseLostError as error:
            log.info("delivery came too late", extra={"job_id": str(delivery.lease.job_id), "reason": str(error)})
        except AppError as error:
            self._give_up(delivery, error)
            return
        else:
            self._require_health(delivery.outcome)
        self._live.drop(delivery.lease)

    def _send(self, delivery: Delivery) -> None:
        outcome, lease = delivery.outcome, delivery.lease
        if isinstance(outcome, Failure):
            self._registration.ask(
                lambda registered: self._client.fail(
                    Fail(
                        worker_id=registered.worker_id,
                        lease=lease,
                        reason=outcome.reason,
                        is_retryable=outcome.is_retryable,
                    )
                )
            )
        else:
            self._registration.ask(
                lambda registered: self._client.finish(
                    Finish(worker_id=registered.worker_id, lease=lease, responses=outcome)
                )
            )

    def _give_up(self, delivery: Delivery, error: AppError) -> None:
        """The app will never take this outcome: say so in its place, so that nobody waits for the lease to end."""
        log.error("delivery refused", extra={"job_id": str(delivery.lease.job_id), "reason": str(error)})
        if isinstance(delivery.outcome, Failure) or not isinstance(error, (RequestRefusedError, AppFailedError)):
            self._live.drop(delivery.lease)
            return
        reason = f"The app did not take the responses: {error}"
        self._live.failed(delivery.lease, reason[:2000], is_retryable=isinstance(error, AppFailedError))

    def _require_health(self, outcome: Outcome) -> None:
        """Stop where every job breaks: a GPU in that state would burn the whole queue, and only a restart mends it.

        Raises:
            WorkerStoppedError: So many jobs broke one after the other.

        """
        is_broken = isinstance(outcome, Failure) and outcome.is_retryable
        self._broken_in_a_row = self._broken_in_a_row + 1 if is_broken else 0
        if isinstance(outcome, Failure) and self._broken_in_a_row >= _MOST_BROKEN:
            msg = f"the last {_MOST_BROKEN} jobs broke, so this worker stops. The last reason: {outcome.reason}"
            raise WorkerStoppedError(msg)

    # Stopping ---------------------------------------------------------------------------------------------------

    def _stop(self, claiming: threading.Thread) -> None:
        """Drain for a while, then give back what is left: also what a claim under way brings."""
        deadline = time.monotonic() + self._pace.drain_s
        while self._fatal is None and time.monotonic() < deadline and (self._live.leases() or claiming.is_alive()):
            self._report()
            self._live.wait_for_news(0.05)
        claiming.join(timeout=max(0.0, deadline + self._pace.claim_wait_s - time.monotonic()))
        self._sampler.close(0.0)
        left = self._live.leases()
        if self._fatal is not None or not left:
            return
        try:
            self._registration.ask(
                lambda registered: self._client.release(Release(worker_id=registered.worker_id, leases=left))
            )
        except AppError as error:
            log.warning("release failed; the leases will expire", extra={"reason": str(error), "jobs": len(left)})
        else:
            log.info("released", extra={"jobs": len(left)})
