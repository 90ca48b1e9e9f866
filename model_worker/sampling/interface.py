"""What the worker asks of a sampler, whichever engine is behind it; imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from contract.checkpoint_files import CheckpointFiles
from contract.errors import ContractError
from contract.sampling import Lease, PairJob, SampledResponse

# Two equal texts cannot be compared: one is drawn again, at most this often, before the pair is sent as it is.
MAX_REDRAWS = 4


class JobError(ContractError):
    """A job that cannot be done however often it is tried; the message tells the annotator why."""


@dataclass(frozen=True, slots=True)
class SamplerFacts:
    """What a sampler says of itself when the worker registers."""

    engine: str
    """Name and version."""
    versions: Mapping[str, str]
    device: str
    dtype: str
    checkpoints: tuple[CheckpointFiles, ...]
    """Those it serves at present."""


class Sink(Protocol):
    """Where a sampler reports to. Calls come from the sampler's thread and must return at once.

    After ``submit`` exactly one of ``done``, ``failed`` and ``cancelled`` follows for the lease.
    """

    def text(self, lease: Lease, spec_index: int, text: str) -> None:
        """The response of the job's ``spec_index``-th spec grew by ``text``."""

    def done(self, lease: Lease, responses: tuple[SampledResponse, ...]) -> None:
        """All responses of the job are complete, in the order of its specs."""

    def failed(self, lease: Lease, reason: str, *, is_retryable: bool) -> None:
        """The job cannot be finished here; ``is_retryable`` says whether another try may help."""

    def cancelled(self, lease: Lease) -> None:
        """The job was stopped by ``cancel`` or ``close``."""


class Sampler(Protocol):
    """Draws the responses of many jobs at once. Methods may be called from any thread."""

    def facts(self) -> SamplerFacts:
        """What this sampler is and which checkpoints it serves."""

    def capacity(self) -> int:
        """How many more jobs fit at present."""

    def submit(self, job: PairJob, sink: Sink) -> None:
        """Start a job, or queue it. Returns at once; every outcome goes to the sink."""

    def cancel(self, lease: Lease) -> None:
        """Stop a job before its next token. An unknown lease is no error: the job may just have ended."""

    def close(self, drain_s: float) -> None:
        """Let live jobs run for up to ``drain_s`` seconds, cancel the rest, and end the sampler's threads."""


def lease_of(job: PairJob) -> Lease:
    """The name of a hand-out, which a later hand-out of the same job does not share."""
    return Lease(job_id=job.job_id, attempt=job.attempt)
