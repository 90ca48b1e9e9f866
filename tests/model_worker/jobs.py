"""Jobs to sample, and a sink that remembers."""

import threading
from collections import defaultdict
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from contract.conversation import Message
from contract.sampling import Lease, PairJob, ResponseSpec, SampledResponse
from contract.vocabulary import Role


def make_spec(digest: str, *, seed: int = 1, temperature: float = 1.0, **changes: object) -> ResponseSpec:
    fields = {"top_p": 1.0, "top_k": 0, "max_new_tokens": 40} | changes
    return ResponseSpec.model_validate(
        {"response_id": uuid4(), "checkpoint_digest": digest, "seed": seed, "temperature": temperature} | fields
    )


def make_job(*specs: ResponseSpec, prompt: str = "read me a story", job_id: UUID | None = None) -> PairJob:
    messages = (Message(role=Role.USER, content=prompt),)
    return PairJob(job_id=job_id or uuid4(), attempt=1, messages=messages, specs=specs)


@dataclass
class RecordingSink:
    """A sink that keeps all it is told."""

    texts: dict[Lease, dict[int, str]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(str)))
    responses: dict[Lease, tuple[SampledResponse, ...]] = field(default_factory=dict)
    failures: dict[Lease, tuple[str, bool]] = field(default_factory=dict)
    cancellations: list[Lease] = field(default_factory=list)
    returns: dict[Lease, str] = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def text(self, lease: Lease, spec_index: int, text: str) -> None:
        """Add to a response."""
        with self.changed:
            self.texts[lease][spec_index] += text
            self.changed.notify_all()

    def done(self, lease: Lease, responses: tuple[SampledResponse, ...]) -> None:
        """Keep the responses."""
        with self.changed:
            self.responses[lease] = responses
            self.changed.notify_all()

    def failed(self, lease: Lease, reason: str, *, is_retryable: bool) -> None:
        """Keep the failure."""
        with self.changed:
            self.failures[lease] = (reason, is_retryable)
            self.changed.notify_all()

    def returned(self, lease: Lease, reason: str) -> None:
        """Keep the reason."""
        with self.changed:
            self.returns[lease] = reason
            self.changed.notify_all()

    def cancelled(self, lease: Lease) -> None:
        """Keep the cancellation."""
        with self.changed:
            self.cancellations.append(lease)
            self.changed.notify_all()

    def wait_for_ends(self, count: int, timeout_s: float = 20.0) -> None:
        """Wait until so many jobs have ended."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.ends() >= count, timeout_s), "the sampler says nothing"

    def wait_for_text(self, timeout_s: float = 20.0) -> None:
        """Wait for the first text of any job."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.texts, timeout_s), "the sampler says nothing"

    def ends(self) -> int:
        """How many jobs have ended."""
        return len(self.responses) + len(self.failures) + len(self.cancellations) + len(self.returns)
