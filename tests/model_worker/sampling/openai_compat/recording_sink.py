"""A sink that keeps what it is told, and waits for outcomes."""

import threading
from collections import defaultdict
from typing import Any

from contract.sampling import Lease, PairJob, SampledResponse
from model_worker.sampling.interface import lease_of


class RecordingSink:
    """See :class:`~model_worker.sampling.interface.Sink`."""

    def __init__(self) -> None:
        self._outcomes: dict[Lease, list[tuple[str, Any]]] = defaultdict(list)
        self._texts: dict[Lease, dict[int, str]] = defaultdict(lambda: defaultdict(str))
        self._changed = threading.Condition()

    def text(self, lease: Lease, spec_index: int, text: str) -> None:
        """Add to a response's text."""
        assert text
        self._texts[lease][spec_index] += text

    def done(self, lease: Lease, responses: tuple[SampledResponse, ...]) -> None:
        """Note responses."""
        self._note(lease, "done", responses)

    def failed(self, lease: Lease, reason: str, *, is_retryable: bool) -> None:
        """Note a failure."""
        self._note(lease, "failed", (reason, is_retryable))

    def returned(self, lease: Lease, reason: str) -> None:
        """Note that there was no room."""
        self._note(lease, "returned", reason)

    def cancelled(self, lease: Lease) -> None:
        """Note that it was stopped."""
        self._note(lease, "cancelled", None)

    def outcomes(self, job: PairJob) -> int:
        """How many outcomes the job had."""
        return len(self._outcomes[lease_of(job)])

    def texts(self, job: PairJob) -> list[str]:
        """What was said of each response, without the white space that its record leaves out at the end."""
        return [self._texts[lease_of(job)][index].strip() for index in range(len(job.specs))]

    def wait_done(self, job: PairJob) -> tuple[SampledResponse, ...]:
        """The job's responses."""
        responses: tuple[SampledResponse, ...] = self._wait(job, "done")
        return responses

    def wait_failed(self, job: PairJob) -> tuple[str, bool]:
        """Why the job failed, and whether another try may help."""
        failure: tuple[str, bool] = self._wait(job, "failed")
        return failure

    def wait_returned(self, job: PairJob) -> str:
        """Why the job was given back."""
        return str(self._wait(job, "returned"))

    def wait_cancelled(self, job: PairJob) -> None:
        """Until it is."""
        self._wait(job, "cancelled")

    def _note(self, lease: Lease, kind: str, what: object) -> None:
        with self._changed:
            self._outcomes[lease].append((kind, what))
            self._changed.notify_all()

    def _wait(self, job: PairJob, kind: str) -> Any:
        with self._changed:
            assert self._changed.wait_for(lambda: self._outcomes[lease_of(job)], timeout=120), "nothing came"
            ((found, what),) = self._outcomes[lease_of(job)]
        assert found == kind, what
        return what
