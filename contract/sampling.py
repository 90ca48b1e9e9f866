"""The sampling half of the worker protocol: register, claim pairs, send events, finish, swap checkpoints."""

from uuid import UUID

from pydantic import AwareDatetime, Field

from contract.base import Contract
from contract.checkpoint_files import CheckpointFiles
from contract.conversation import Message
from contract.vocabulary import FinishReason

# A worker of another version is refused with 426 and exits: the two sides are upgraded together.
PROTOCOL_VERSION = 2
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
    max_pairs: int = Field(ge=0)
    """How many pairs it works on at once; 0 for one that only trains."""
    checkpoints: tuple[CheckpointFiles, ...]
    """The chat checkpoints that this worker samples from at present."""


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
    stop_token_ids: tuple[int, ...] = ()
    """Ids that end the response, besides the checkpoint's own end tokens."""


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


class Refusal(Contract):
    """A checkpoint that a worker cannot serve, and why, for the admin to read."""

    checkpoint: str
    """Its digest, or the name of its folder where there is no telling its digest."""
    reason: str = Field(min_length=1, max_length=2000)


class WorkerStatus(Contract):
    """How a worker stands: what the admin's page shows of it."""

    serving: tuple[str, ...]
    """Digests of the checkpoints that it samples from."""
    staging: str | None = None
    """Digest of the checkpoint that it is about to serve, while it is read and verified or waits for live jobs."""
    available: tuple[CheckpointFiles, ...] = ()
    """Checkpoints that it could serve: those it was started with, and those that lie in its library."""
    refused: tuple[Refusal, ...] = ()
    """Checkpoints that were asked for, or lie in its library, and cannot be served."""
    max_pairs: int = Field(ge=0)
    free_pairs: int = Field(ge=0)
    tokens_per_s: float = Field(ge=0)
    """Tokens drawn per second, over the last ten seconds or so."""
    last_error: str | None = Field(default=None, max_length=2000)


class Events(Contract):
    """A worker's heartbeat, with the text that its live jobs have grown by.

    An idle worker sends one every few seconds too: the answer is how promotions reach it.
    """

    worker_id: UUID
    leases: tuple[Lease, ...]
    tokens: tuple[TokenEvent, ...] = ()
    status: WorkerStatus | None = None
    """Given when it has changed, and now and then."""


class Control(Contract):
    """The answer to events, and the app's way to speak to a worker that only ever calls out."""

    drop: tuple[UUID, ...]
    """Jobs to stop at once: cancelled, or no longer held by this worker."""
    lease_until: AwareDatetime
    serve: tuple[str, ...] = ()
    """Digests of the checkpoints that work is or will be asked of, the most wanted first.

    A worker serves as many of them as it has and can hold. One that is not named may go on being served: it is
    given up when its place is needed.
    """


class SampledResponse(Contract):
    """One finished response with the provenance that only the worker knows."""

    response_id: UUID
    checkpoint_digest: str
    seed: int = Field(ge=0, lt=2**63)
    """The seed really used: not the asked one where the response was drawn again because it equalled the other."""
    text: str
    token_ids: tuple[int, ...]
    """The sampled ids, including a final stop token."""
    prompt_digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    """sha256 over the prompt's token ids as the model read them: ``contract.digests.token_digest``."""
    stop_token_ids: tuple[int, ...]
    """Every id that would have ended the response, in ascending order."""
    prompt_tokens: int
    completion_tokens: int
    finish_reason: FinishReason
    sum_logprob: float | None
    """Sum of the tokens' log-probabilities before temperature and top_p, comparable across temperatures.

    ``None`` where the sampler cannot tell: an inference server that gives none, or others.
    """
    first_token_s: float
    """Seconds from the worker's claim to the first token."""
    total_s: float
    """Seconds from the worker's claim to the last token."""
    engine: str = Field(max_length=200)
    """Which sampler drew it, with the versions of what it runs on, such as ``slot-engine/1 torch/2.13.0``."""
    dtype: str = Field(max_length=40)
    device: str = Field(max_length=100)


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
    """A worker gives jobs back without a failure counted: it stops, or has no room for them after all."""

    worker_id: UUID
    leases: tuple[Lease, ...]
    is_stopping: bool = False
    """Whether this is the worker's last word."""


class ErrorBody(Contract):
    """Every error of the API: ``{"error": {"code": ..., "message": ...}}``."""

    code: str
    """A stable word for programs, such as ``lease_lost``."""
    message: str
    """What is wrong and what to do, for people."""
