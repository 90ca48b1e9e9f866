"""What the worker asks of a sampler, whichever engine is behind it; imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from contract.checkpoint_files import CheckpointError, CheckpointFiles
from contract.errors import ContractError
from contract.sampling import Lease, PairJob, SampledResponse

# Two equal texts cannot be compared: one is drawn again, at most this often, before the pair is sent as it is.
MAX_REDRAWS = 4


class JobError(ContractError):
    """A job that cannot be done however often it is tried; the message tells the annotator why."""


class NoRoomError(CheckpointError):
    """A checkpoint cannot be served for want of memory: it may fit in the place of another one, or later."""


@dataclass(frozen=True, slots=True)
class SamplerFacts:
    """What a sampler says of itself when the worker registers."""

    engine: str
    """Name and version."""
    versions: Mapping[str, str]
    device: str
    dtype: str
    max_pairs: int
    """How many pairs it works on at once."""
    checkpoints: tuple[CheckpointFiles, ...]
    """Those it serves at present. One that is being drained before a swap is not among them."""


class Sink(Protocol):
    """Where a sampler reports to. Calls come from the sampler's thread and must return at once.

    After ``submit`` exactly one of ``done``, ``failed``, ``returned`` and ``cancelled`` follows for the lease.
    """

    def text(self, lease: Lease, spec_index: int, text: str) -> None:
        """The response of the job's ``spec_index``-th spec grew by ``text``."""

    def done(self, lease: Lease, responses: tuple[SampledResponse, ...]) -> None:
        """All responses of the job are complete, in the order of its specs."""

    def failed(self, lease: Lease, reason: str, *, is_retryable: bool) -> None:
        """The job cannot be finished here; ``is_retryable`` says whether another try may help."""

    def returned(self, lease: Lease, reason: str) -> None:
        """There is no room for the job after all, such as when memory ran out: another try is not a failure of it."""

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

    def tokens_drawn(self) -> int:
        """How many tokens it has drawn since it started; only ever grows."""

    def swap(self, folder: Path, files: CheckpointFiles, *, instead_of: str | None) -> None:
        """Serve a checkpoint: beside the others, or in place of the one whose digest is ``instead_of``.

        Returns when the checkpoint is served; called from one thread at a time. The folder is read and its
        digest verified while sampling goes on; then ``instead_of`` takes no more jobs (one submitted in spite of
        that is ``returned``), its live jobs end, and the weights change places. No response mixes two checkpoints.

        Args:
            folder: In Hugging Face format.
            files: What ``inspect_checkpoint(folder)`` said; the weights must still have that digest.
            instead_of: Digest of a served checkpoint, or ``None`` to serve one more.

        Raises:
            CheckpointError: It cannot be served, for want of memory (``NoRoomError``) or because of what is in the
                folder. What was served before still is.

        """

    def close(self, drain_s: float) -> None:
        """Let live jobs run for up to ``drain_s`` seconds, cancel the rest, and end the sampler's threads."""


def lease_of(job: PairJob) -> Lease:
    """The name of a hand-out, which a later hand-out of the same job does not share."""
    return Lease(job_id=job.job_id, attempt=job.attempt)
