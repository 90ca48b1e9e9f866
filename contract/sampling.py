"""The sampling half of the worker protocol: register, claim pairs, send events, finish."""

from uuid import UUID

from pydantic import AwareDatetime, Field

from contract.base import Contract
from contract.checkpoint_files import CheckpointFiles
from contract.conversation import Message
from contract.vocabulary import FinishReason

# A worker of another version is refused with 426 and exits: the two sides are upgraded together.
PROTOCOL_VERSION = 1
PROTOCOL_HEADER = "X-Preferably-Protocol"


class Register(Contract):
    """A worker introduces itself. Repeating it is harmless; the answer names the worker from then on."""

    name: str = Field(min_length=1, max_length=200)
    hostname: str = Field(max_length=200)
    engine: str = Field(max_length=200)
    """Which sampler runs, with its version."""
    versions: dict[str, str]
    """Versions of torch, transformers and so on, for the record."""
    device: str
    dtype: str
    can_sample: bool
    can_train: bool
    checkpoints: tuple[CheckpointFiles, ...]
    """The chat checkpoints that this worker can sample from."""


class Registered(Contract):
    """The app's answer to a registration."""

    worker_id: UUID
    lease_s: float
    """How long a lease lasts without a heartbeat, in seconds."""


class Claim(Contract):
    """A worker asks for pairs. The app holds the request for up to ``wait_s`` seconds when there are none."""

    worker_id: UUID
    want: int = Field(ge=1, le=1024)
    """How many pairs fit at present."""
    digests: tuple[str, ...]
    """Digests of the checkpoints that the worker can sample from right now."""
    wait_s: float = Field(ge=0, le=30)


class ResponseSpec(Contract):
    """How one response is to be drawn; every parameter is explicit, no default of the checkpoint applies."""

    response_id: UUID
    checkpoint_digest: str
    temperature: float = Field(ge=0, le=10)
    top_p: float = Field(gt=0, le=1)
    top_k: int = Field(ge=0)
    """0 means no limit."""
    seed: int = Field(ge=0, lt=2**63)
    max_new_tokens: int = Field(ge=1)


class PairJob(Contract):
    """One comparison's work: a conversation that ends with the user's prompt, and the responses to draw."""

    job_id: UUID
    attempt: int
    """Counts the hand-outs of this job; an answer that names an older one is refused (fencing)."""
    messages: tuple[Message, ...]
    specs: tuple[ResponseSpec, ...]


class Claimed(Contract):
    """The pairs handed out, oldest first."""

    jobs: tuple[PairJob, ...]


class Lease(Contract):
    """Names a hand-out: the job and the attempt it was handed out as."""

    job_id: UUID
    attempt: int


class TokenEvent(Contract):
    """Text that a response grew by since the last event; applied only where ``from_index`` fits what is stored."""

    job_id: UUID
    attempt: int
    response_id: UUID
    from_index: int = Field(ge=0)
    """How many characters of the response were sent before."""
    text: str


class Events(Contract):
    """The heartbeat of a worker's live jobs, with the text they have grown by; an empty one keeps leases alive."""

    worker_id: UUID
    leases: tuple[Lease, ...]
    tokens: tuple[TokenEvent, ...] = ()


class Control(Contract):
    """The answer to events, and the app's way to speak to a worker that only ever calls out."""

    drop: tuple[UUID, ...]
    """Jobs to stop at once: cancelled, or no longer held by this worker."""
    lease_until: AwareDatetime


class SampledResponse(Contract):
    """One finished response with the provenance that only the worker knows."""

    response_id: UUID
    checkpoint_digest: str
    seed: int = Field(ge=0, lt=2**63)
    """The seed really used: not the asked one where the response was drawn again because it equalled the other."""
    text: str
    token_ids: tuple[int, ...]
    """The sampled ids, including a final stop token."""
    prompt_tokens: int
    completion_tokens: int
    finish_reason: FinishReason
    sum_logprob: float
    """Sum of the tokens' log-probabilities before temperature and top_p, comparable across temperatures."""
    first_token_s: float
    """Seconds from the worker's claim to the first token."""
    total_s: float
    """Seconds from the worker's claim to the last token."""
    engine: str
    dtype: str
    device: str


class Finish(Contract):
    """All responses of a job at once, so that a pair is complete or absent, never half there."""

    worker_id: UUID
    lease: Lease
    responses: tuple[SampledResponse, ...]


class Fail(Contract):
    """A worker gives a job back: for good, or for another try."""

    worker_id: UUID
    lease: Lease
    reason: str = Field(min_length=1, max_length=2000)
    is_retryable: bool


class Release(Contract):
    """A worker that stops gives its jobs back at once, so that nobody waits for their leases to expire."""

    worker_id: UUID
    leases: tuple[Lease, ...]


class ErrorBody(Contract):
    """Every error of the API: ``{"error": {"code": ..., "message": ...}}``."""

    code: str
    """A stable word for programs, such as ``lease_lost``."""
    message: str
    """What is wrong and what to do, for people."""
