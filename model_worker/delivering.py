"""Brings outcomes to the app: responses, failures, returned jobs. A slow or broken one holds up no other."""

import logging
import threading
from typing import Final

from contract.sampling import Fail, Finish, Registered, Release
from model_worker.claiming import Claiming
from model_worker.client import (
    FATAL_ERRORS,
    AppClient,
    AppError,
    AppFailedError,
    AppUnavailableError,
    LeaseLostError,
    RequestRefusedError,
)
from model_worker.live_jobs import Delivery, Failure, LiveJobs, Returned
from model_worker.metrics import JobEnd, Metrics
from model_worker.pace import Pace
from model_worker.registration import Registration
from model_worker.stopping import Stopping, WorkerStoppedError

log = logging.getLogger(__name__)

_THREADS: Final = 4
_MOST_BROKEN: Final = 8
_LONGEST_REASON: Final = 2000
_POLL_S: Final = 0.5


class Delivering:
    """A few threads that each send one outcome at a time; it is kept until the app has accepted or refused it."""

    def __init__(
        self,
        client: AppClient,
        registration: Registration,
        claiming: Claiming,
        live: LiveJobs,
        metrics: Metrics,
        pace: Pace,
    ) -> None:
        self._client = client
        self._registration = registration
        self._claiming = claiming
        self._live = live
        self._metrics = metrics
        self._pace = pace
        self._is_over = threading.Event()
        self._lock = threading.Lock()
        self._broken_in_a_row = 0

    def start(self, stopping: Stopping) -> None:
        """Start the threads. They go on while the worker drains, until :meth:`end` or an error that nothing mends."""
        for index in range(_THREADS):
            stopping.start_thread(lambda: self._run(stopping), f"delivery-{index + 1}")

    def end(self) -> None:
        """Start no other delivery."""
        self._is_over.set()

    def is_over(self) -> bool:
        """Whether :meth:`end` was called."""
        return self._is_over.is_set()

    def _run(self, stopping: Stopping) -> None:
        while not self._is_over.is_set() and stopping.error is None:
            delivery = self._live.next_delivery(_POLL_S)
            if delivery is not None:
                self._try(delivery)

    def _try(self, delivery: Delivery) -> None:
        job_id = {"job_id": str(delivery.lease.job_id), "attempt": delivery.lease.attempt}
        try:
            self._registration.ask(lambda registered: self._send(delivery, registered))
        except FATAL_ERRORS:
            raise
        except AppUnavailableError as error:
            self._metrics.app_failed("delivery", error)
            if delivery.patience.is_over(error, limit_s=self._pace.give_up_s):
                self._give_up(delivery, error)
                return
            delay = self._live.put_off(delivery)
            log.warning("delivery failed", extra=job_id | {"reason": str(error), "retry_s": round(delay, 2)})
            return
        except LeaseLostError as error:
            self._metrics.job_ended(JobEnd.LATE)
            log.info("delivery came too late", extra=job_id | {"reason": str(error)})
            self._live.drop(delivery.lease)
        except AppError as error:
            self._give_up(delivery, error)
        else:
            self._live.drop(delivery.lease)
            self._note(delivery, job_id)

    def _send(self, delivery: Delivery, registered: Registered) -> None:
        outcome, lease, worker_id = delivery.outcome, delivery.lease, registered.worker_id
        if isinstance(outcome, Returned):
            self._client.release(Release(worker_id=worker_id, leases=(lease,)))
        elif isinstance(outcome, Failure):
            fail = Fail(worker_id=worker_id, lease=lease, reason=outcome.reason, is_retryable=outcome.is_retryable)
            self._client.fail(fail)
        else:
            self._client.finish(Finish(worker_id=worker_id, lease=lease, responses=outcome))

    def _give_up(self, delivery: Delivery, error: AppError) -> None:
        """The app will never take this outcome: say so in its place, so that nobody waits for the lease to end."""
        self._metrics.app_failed("delivery", error)
        job_id = {"job_id": str(delivery.lease.job_id), "attempt": delivery.lease.attempt}
        log.error("delivery refused", extra=job_id | {"reason": str(error)})
        is_final = not isinstance(error, (RequestRefusedError, AppFailedError))
        if is_final or not isinstance(delivery.outcome, tuple):
            self._live.drop(delivery.lease)
            return
        reason = f"The app did not take the responses: {error}"
        self._live.failed(delivery.lease, reason[:_LONGEST_REASON], is_retryable=isinstance(error, AppFailedError))

    def _note(self, delivery: Delivery, job_id: dict[str, object]) -> None:
        outcome = delivery.outcome
        if isinstance(outcome, Returned):
            log.warning("returned", extra=job_id | {"reason": outcome.reason})
            self._metrics.job_ended(JobEnd.RETURNED)
            self._claiming.hold_off()
        elif isinstance(outcome, Failure):
            log.warning("failed", extra=job_id | {"reason": outcome.reason})
            self._metrics.job_ended(JobEnd.FAILED)
            self._metrics.note_error(outcome.reason)
            self._require_health(outcome)
        else:
            tokens = sum(response.completion_tokens for response in outcome)
            log.info("delivered", extra=job_id | {"tokens": tokens})
            self._metrics.pair_done(outcome)
            self._claiming.go_on()
            with self._lock:
                self._broken_in_a_row = 0

    def _require_health(self, failure: Failure) -> None:
        """Stop where every job breaks: a GPU in that state would burn the whole queue, and only a restart mends it.

        Raises:
            WorkerStoppedError: So many jobs broke one after the other.

        """
        with self._lock:
            self._broken_in_a_row = self._broken_in_a_row + 1 if failure.is_retryable else 0
            is_broken = self._broken_in_a_row >= _MOST_BROKEN
        if is_broken:
            msg = f"the last {_MOST_BROKEN} jobs broke, so this worker stops. The last reason: {failure.reason}"
            raise WorkerStoppedError(msg)
