"""One thread that advances every live job by one step in turn; samplers differ only in what a step is."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from contract.sampling import Lease, PairJob, SampledResponse
from model_worker.sampling.interface import JobError, Sink, lease_of

log = logging.getLogger(__name__)

# The contract's limit for the reason of a failed job, in characters.
_LONGEST_REASON = 2000


class NotServedError(Exception):
    """A job names a checkpoint that is not served, or no longer: another worker may have it."""


class Progress(Protocol):
    """A job under way."""

    def step(self) -> tuple[SampledResponse, ...] | None:
        """Advance by one token for each response; return the responses once all are complete."""


# Starts a job: the job, a function that takes (spec index, new text), and the time of the claim (time.monotonic).
Start = Callable[[PairJob, Callable[[int, str], None], float], Progress]


class _Live:
    def __init__(self, job: PairJob, sink: Sink) -> None:
        self.job = job
        self.lease = lease_of(job)
        self.sink = sink
        self.claimed_at = time.monotonic()
        self.progress: Progress | None = None
        self.is_cancelled = False

    def say(self, spec_index: int, text: str) -> None:
        if not self.is_cancelled:
            self.sink.text(self.lease, spec_index, text)


class Stepper:
    """Holds the live jobs and the thread that owns the model."""

    def __init__(self, start: Start, *, max_pairs: int, name: str) -> None:
        self._start = start
        self._max_pairs = max_pairs
        self._live: dict[Lease, _Live] = {}
        self._changed = threading.Condition()
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def capacity(self) -> int:
        """How many more jobs fit."""
        with self._changed:
            return 0 if self._is_closing else max(0, self._max_pairs - len(self._live))

    def submit(self, job: PairJob, sink: Sink) -> None:
        """Take a job; it makes its first step when the present round is over."""
        live = _Live(job, sink)
        with self._changed:
            is_taken = not self._is_closing
            if is_taken:
                self._live[live.lease] = live
                self._changed.notify_all()
        if not is_taken:
            sink.returned(live.lease, "This model worker is stopping.")

    def cancel(self, lease: Lease) -> None:
        """Mark a job, which the thread drops before its next step."""
        with self._changed:
            if lease in self._live:
                self._live[lease].is_cancelled = True
                self._changed.notify_all()

    def wait_for_end_of(self, is_meant: Callable[[PairJob], bool]) -> bool:
        """Wait until no live job is meant; ``False`` if the stepper was closed meanwhile."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._is_closing or not any(is_meant(live.job) for live in self._live.values())
            )
            return not self._is_closing

    def close(self, drain_s: float) -> None:
        """Wait for live jobs, cancel what is left, end the thread. Closing twice is no error."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._live, timeout=drain_s)
            for live in self._live.values():
                live.is_cancelled = True
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._live or self._is_closing)
                if not self._live:
                    return
                jobs = list(self._live.values())
            for live in jobs:
                if self._advance(live):
                    with self._changed:
                        del self._live[live.lease]
                        self._changed.notify_all()

    def _advance(self, live: _Live) -> bool:
        """Make one step, and report and return ``True`` when it was the job's last."""
        if live.is_cancelled:
            live.sink.cancelled(live.lease)
            return True
        try:
            if live.progress is None:
                live.progress = self._start(live.job, live.say, live.claimed_at)
            responses = live.progress.step()
        except NotServedError as error:
            live.sink.returned(live.lease, str(error))
            return True
        except JobError as error:
            log.warning("job refused", extra={"job_id": str(live.job.job_id), "reason": str(error)})
            live.sink.failed(live.lease, _reason(error), is_retryable=False)
            return True
        except Exception as error:
            # Whatever went wrong in this job, the others go on, and this one is handed out again.
            log.exception("job failed", extra={"job_id": str(live.job.job_id)})
            live.sink.failed(live.lease, _reason(error), is_retryable=True)
            return True
        if responses is None:
            return False
        live.sink.done(live.lease, responses)
        return True


def _reason(error: Exception) -> str:
    text = str(error) if isinstance(error, JobError) else f"{type(error).__name__}: {error}"
    return text[:_LONGEST_REASON] or type(error).__name__
