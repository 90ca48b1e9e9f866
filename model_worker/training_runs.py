"""Takes training runs from the app, one at a time, and has a child process do them while sampling goes on."""

import logging
import re
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from contract.digests import model_digest
from contract.sampling import Lease
from contract.training import ClaimRun, FailRun, FinishRun, RunControl, RunEvents, RunJob, TrainingPoint
from model_worker.backoff import Backoff, Patience
from model_worker.client import (
    AppClient,
    AppError,
    AppUnavailableError,
    LeaseLostError,
    ProtocolMismatchError,
    UnauthorizedError,
)
from model_worker.datasets import fetch_dataset
from model_worker.errors import DatasetError
from model_worker.registration import Registration
from model_worker.training_child import TRAIN_COMMAND, RunPaths, TrainingChild, TrainingResult, read_result

log = logging.getLogger(__name__)

AnswerT = TypeVar("AnswerT")

# One message holds at most so much, so that what gathers while the app is away does not come at once.
_MOST_POINTS = 500
_MOST_LOG = 50_000
_LONGEST_REASON = 8000


class _RunLostError(Exception):
    """The run was cancelled, or is no longer this worker's."""


class _WorkerStopsError(Exception):
    """The worker was asked to stop."""


@dataclass(frozen=True)
class TrainingPlace:
    """What a worker trains with."""

    checkpoints: Mapping[str, Path]
    """Folders of chat checkpoints, by digest."""
    output_dir: Path
    command: Sequence[str] = TRAIN_COMMAND


@dataclass(frozen=True)
class TrainingPace:
    """How often things happen, in seconds."""

    poll_s: float = 5.0
    events_s: float = 1.0
    give_up_s: float = 300.0
    """How long the app may fail on one request before the run is given back. An app that is away is waited for."""


class TrainingRuns:
    """The loop of the worker's training thread."""

    def __init__(self, client: AppClient, registration: Registration, place: TrainingPlace, pace: TrainingPace) -> None:
        self._client = client
        self._registration = registration
        self._place = place
        self._pace = pace

    def run(self, stopping: threading.Event) -> None:
        """Take runs until ``stopping`` is set.

        Raises:
            UnauthorizedError: The token is not, or no longer, a worker's.
            ProtocolMismatchError: The app is of another version.

        """
        backoff = Backoff()
        while not stopping.is_set():
            try:
                job = self._claim()
            except (UnauthorizedError, ProtocolMismatchError):
                raise
            except AppError as error:
                delay = backoff.next_delay()
                log.warning("claim of a training run failed", extra={"reason": str(error), "retry_s": round(delay, 2)})
                stopping.wait(delay)
                continue
            backoff.reset()
            if job is None:
                stopping.wait(self._pace.poll_s)
            else:
                log.info("claimed a training run", extra={"job_id": str(job.job_id), "attempt": job.attempt})
                _Run(self._client, self._registration, self._place, self._pace, job, stopping).do()

    def _claim(self) -> RunJob | None:
        digests = tuple(self._place.checkpoints)
        return self._registration.ask(
            lambda registered: self._client.claim_run(ClaimRun(worker_id=registered.worker_id, digests=digests))
        ).job


class _Run:
    """One hand-out of a training run."""

    def __init__(
        self,
        client: AppClient,
        registration: Registration,
        place: TrainingPlace,
        pace: TrainingPace,
        job: RunJob,
        stopping: threading.Event,
    ) -> None:
        self._client = client
        self._registration = registration
        self._place = place
        self._pace = pace
        self._job = job
        self._stopping = stopping
        self._lease = Lease(job_id=job.job_id, attempt=job.attempt)
        self._paths = RunPaths(
            folder=place.output_dir / "runs" / str(job.job_id),
            output=place.output_dir / "reward-models" / _folder_name(job),
            attempt=job.attempt,
        )
        self._unsent_points: list[TrainingPoint] = []
        self._unsent_log = ""
        self._heartbeat_at = 0.0

    def do(self) -> None:
        """Train and deliver. Whatever goes wrong in the run is told to the app, not raised."""
        try:
            self._do()
        except (_RunLostError, LeaseLostError):
            log.info("training run dropped", extra={"job_id": str(self._job.job_id)})
        except _WorkerStopsError:
            self._fail("The model worker was stopped.", is_retryable=True)
        except (UnauthorizedError, ProtocolMismatchError):
            raise
        except (AppError, DatasetError) as error:
            self._fail(str(error), is_retryable=isinstance(error, AppUnavailableError))
        except Exception as error:
            log.exception("training run failed", extra={"job_id": str(self._job.job_id)})
            self._fail(f"{type(error).__name__}: {error}", is_retryable=True)

    def _do(self) -> None:
        result = read_result(self._paths)
        if result is None:
            child = self._start()
            try:
                self._watch(child)
            finally:
                child.stop()
            result = read_result(self._paths) if child.exit_code == 0 else None
            if result is None:
                self._fail(child.reason(), is_retryable=(child.exit_code or 0) < 0)
                return
        self._finish(result)

    def _start(self) -> TrainingChild:
        checkpoint = self._place.checkpoints.get(self._job.checkpoint_digest)
        if checkpoint is None:
            msg = f"this worker does not hold the checkpoint {self._job.checkpoint_digest[:12]}"
            raise LookupError(msg)
        datasets = [self._fetch(position) for position in range(len(self._job.datasets))]
        previous = self._find_previous()
        self._send_events()
        # Of an earlier attempt that was killed before it could say that it was done, or before it could tidy up.
        shutil.rmtree(self._paths.output, ignore_errors=True)
        for draft in self._paths.output.parent.glob(f".{self._paths.output.name}-*"):
            shutil.rmtree(draft, ignore_errors=True)
        return TrainingChild(
            self._paths,
            checkpoint=checkpoint,
            datasets=datasets,
            recipe=self._job.recipe,
            previous=previous,
            command=self._place.command,
        )

    def _fetch(self, position: int) -> Path:
        """Download a dataset, as often as an app that comes and goes makes necessary."""
        ref = self._job.datasets[position]
        self._unsent_log += f"fetching dataset {ref.name}\n"
        self._send_events()
        datasets = self._place.output_dir / "datasets"
        return self._insist(lambda: fetch_dataset(self._client, ref, datasets, self._beat))

    def _find_previous(self) -> Path | None:
        """The folder of the previous reward model; another worker may have saved it where this one cannot read."""
        previous = self._job.previous
        if previous is None:
            return None
        folder = Path(previous.path)
        if (folder / "config.json").is_file() and model_digest(folder, on_chunk=self._beat) == previous.digest:
            return folder
        self._unsent_log += f"the previous reward model {previous.name} is not on this machine: drift is not measured\n"
        return None

    def _watch(self, child: TrainingChild) -> None:
        """Pass on what the child does until it ends."""
        while child.exit_code is None:
            self._send_news(child)
            if self._stopping.wait(self._pace.events_s):
                raise _WorkerStopsError
        self._send_news(child)

    def _send_news(self, child: TrainingChild) -> None:
        self._unsent_points += child.new_points()
        self._unsent_log += child.new_log()
        self._send_events()

    def _beat(self) -> None:
        """Keep the lease alive during something long."""
        if self._stopping.is_set():
            raise _WorkerStopsError
        if time.monotonic() >= self._heartbeat_at:
            self._send_events()

    def _send_events(self) -> None:
        """Send the run's heartbeat; what cannot be sent now is kept for the next one."""
        try:
            self._send_once()
        except AppUnavailableError as error:
            log.warning("training events failed", extra={"reason": str(error)})

    def _send_once(self) -> None:
        """One message.

        Raises:
            _RunLostError: The run was cancelled.
            LeaseLostError: Another worker has the run.

        """
        points, lines = tuple(self._unsent_points[:_MOST_POINTS]), self._unsent_log[:_MOST_LOG]
        control: RunControl = self._registration.ask(
            lambda registered: self._client.run_events(
                RunEvents(worker_id=registered.worker_id, lease=self._lease, points=points, log=lines)
            )
        )
        self._heartbeat_at = time.monotonic() + self._registration.current().lease_s / 3
        del self._unsent_points[: len(points)]
        self._unsent_log = self._unsent_log[len(lines) :]
        if control.is_cancelled:
            raise _RunLostError

    def _finish(self, result: TrainingResult) -> None:
        while self._unsent_points or self._unsent_log:
            self._insist(self._send_once)
        self._insist(
            lambda: self._registration.ask(
                lambda registered: self._client.finish_run(
                    FinishRun(
                        worker_id=registered.worker_id,
                        lease=self._lease,
                        path=str(self._paths.output.resolve()),
                        digest=result.digest,
                        evaluations=result.evaluations,
                    )
                )
            )
        )
        log.info("training run finished", extra={"job_id": str(self._job.job_id)})

    def _fail(self, reason: str, *, is_retryable: bool) -> None:
        """Give the run back; if the app cannot be told now, the lease tells it by expiring."""
        log.warning("training run failed", extra={"job_id": str(self._job.job_id), "reason": reason})
        try:
            self._registration.ask(
                lambda registered: self._client.fail_run(
                    FailRun(
                        worker_id=registered.worker_id,
                        lease=self._lease,
                        reason=reason[:_LONGEST_REASON] or "no reason given",
                        is_retryable=is_retryable,
                    )
                )
            )
        except (UnauthorizedError, ProtocolMismatchError):
            raise
        except AppError as error:
            log.warning("the app was not told", extra={"reason": str(error)})

    def _insist(self, request: Callable[[], AnswerT]) -> AnswerT:
        """Repeat a request while the app is away; a result is on disk by then and outlives this process."""
        backoff = Backoff()
        patience = Patience()
        while True:
            try:
                return request()
            except AppUnavailableError as error:
                if patience.is_over(error, limit_s=self._pace.give_up_s):
                    raise
                delay = backoff.next_delay()
                log.warning("app unavailable", extra={"reason": str(error), "retry_s": round(delay, 2)})
                if self._stopping.wait(delay):
                    raise _WorkerStopsError from error


def _folder_name(job: RunJob) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", job.name).strip(".-")[:80]
    return f"{name or 'reward-model'}-{str(job.job_id)[:8]}"
