"""Sampling jobs: asks for a pair, hands it to a worker, takes the responses, survives lost workers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.orm import Session

from app.conversations.history import prompts_with_context
from app.errors import InvalidInputError, NotFoundError
from app.models import (
    BatchVariant,
    Comparison,
    ComparisonState,
    Response,
    SamplingJob,
    Worker,
    WorkState,
    now,
)
from app.sampling import leases, queries
from app.sampling.variants import draw_pair, new_seed
from contract.conversation import Message
from contract.sampling import (
    Claim,
    Control,
    Events,
    Fail,
    Finish,
    PairJob,
    Register,
    Release,
    ResponseSpec,
    SampledResponse,
    TokenEvent,
)

_NUL = "\0"


class UnknownWorkerError(NotFoundError):
    """No worker of this id is registered; it must introduce itself again."""

    code = "unknown_worker"


@dataclass(frozen=True)
class LeaseTerms:
    """How long a lease lasts, and how often work is handed out before it fails."""

    lease_s: float
    max_attempts: int


def request_pair(
    session: Session, comparison: Comparison, variants: Sequence[BatchVariant], *, max_new_tokens: int
) -> SamplingJob:
    """Queue the sampling of a comparison's two responses, drawn from two different variants."""
    responses = draw_pair(comparison, variants, max_new_tokens=max_new_tokens)
    job = SamplingJob(comparison_id=comparison.id)
    session.add_all([*responses, job])
    return job


def register(session: Session, message: Register) -> Worker:
    """Note a worker, or a new start of one: what its predecessor held goes back to the queue."""
    worker = queries.worker_by_name(session, message.name)
    if worker is None:
        worker = Worker(**message.model_dump(exclude={"checkpoints"}))
        session.add(worker)
    else:
        for field, value in message.model_dump(exclude={"checkpoints", "name"}).items():
            setattr(worker, field, value)
        worker.registered_at = worker.last_seen_at = now()
        for job in queries.leased_to(session, worker.id):
            leases.put_back(job)
    session.flush()
    return worker


def seen(session: Session, worker_id: UUID) -> Worker:
    """Note that a worker called.

    Raises:
        UnknownWorkerError: It is not registered.

    """
    worker = session.get(Worker, worker_id)
    if worker is None:
        msg = "This worker is not registered here; register again."
        raise UnknownWorkerError(msg)
    worker.last_seen_at = now()
    return worker


def has_due_jobs(session: Session, digests: Sequence[str]) -> bool:
    """Whether there is anything to claim; a look that takes no lock."""
    return queries.has_due_jobs(session, digests, at=now())


def claim(session: Session, message: Claim, terms: LeaseTerms) -> list[PairJob]:
    """Hand out up to ``message.want`` pairs, oldest first, whose checkpoints the worker can sample from."""
    at = now()
    worker = seen(session, message.worker_id)
    handed_out = []
    for job in queries.due_jobs(session, message.digests, at=at, limit=message.want):
        if job.state is WorkState.LEASED and not _survives_failure(job, terms, "The worker was lost.", at=at):
            continue
        leases.hand_out(job, worker.id, at=at, lease_s=terms.lease_s)
        for response in job.comparison.responses:
            response.text = ""
        handed_out.append(job)
    prompts = prompts_with_context(session, [job.comparison for job in handed_out])
    return [_pair_job(job, prompts[job.comparison_id]) for job in handed_out]


def take_events(session: Session, message: Events, terms: LeaseTerms) -> Control:
    """Extend the leases a worker still holds, store the text that grew, and say which jobs to drop."""
    at = now()
    seen(session, message.worker_id)
    jobs = queries.jobs_by_id(session, {lease.job_id for lease in message.leases})
    until = at + timedelta(seconds=terms.lease_s)
    drop = []
    for lease in message.leases:
        job = jobs.get(lease.job_id)
        if job is not None and leases.is_held(job, message.worker_id, lease.attempt):
            job.lease_until = until
        else:
            drop.append(lease.job_id)
    for event in message.tokens:
        if event.job_id not in drop:
            _append_text(jobs.get(event.job_id), event)
    return Control(drop=tuple(drop), lease_until=until)


def finish(session: Session, message: Finish) -> None:
    """Store both responses of a job and offer the comparison for judgement.

    Sending the same answer again changes nothing.

    Raises:
        LeaseLostError: The worker does not hold the job as this attempt.
        InvalidInputError: The responses are not the ones that were asked for.

    """
    at = now()
    job = queries.with_pair(session, message.lease.job_id)
    if _is_finished_by(job, message):
        return
    held = leases.held(session, SamplingJob, message.lease.job_id, message.worker_id, message.lease.attempt)
    job = queries.with_pair(session, held.id) or held
    sampled = {response.response_id: response for response in message.responses}
    if len(sampled) != len(message.responses) or sampled.keys() != {row.id for row in job.comparison.responses}:
        msg = "responses: exactly the responses of the job must be given, each once."
        raise InvalidInputError(msg)
    for response in job.comparison.responses:
        _store(response, sampled[response.id], message)
    leases.end(job, WorkState.DONE, at=at)
    texts = {response.text for response in job.comparison.responses}
    is_pair = len(texts) == len(job.comparison.responses)
    job.comparison.state = ComparisonState.READY if is_pair else ComparisonState.EQUAL_RESPONSES
    job.comparison.ready_at = at


def fail(session: Session, message: Fail, terms: LeaseTerms) -> None:
    """Take a job back from a worker that could not do it: for another try, or for good.

    Raises:
        LeaseLostError: The worker does not hold the job as this attempt.

    """
    at = now()
    held = leases.held(session, SamplingJob, message.lease.job_id, message.worker_id, message.lease.attempt)
    job = queries.with_pair(session, held.id) or held
    if not message.is_retryable:
        _fail_for_good(job, message.reason, at=at)
    elif _survives_failure(job, terms, message.reason, at=at):
        leases.put_back(job)


def release(session: Session, message: Release) -> None:
    """Put the jobs of a worker that stops back into the queue; those it no longer holds are passed over."""
    jobs = queries.jobs_by_id(session, {lease.job_id for lease in message.leases})
    for lease in message.leases:
        job = jobs.get(lease.job_id)
        if job is not None and leases.is_held(job, message.worker_id, lease.attempt):
            leases.put_back(job)


def retry(session: Session, comparison: Comparison) -> None:
    """Draw a failed or equal pair once more, with new seeds. The responses must be loaded."""
    job = queries.job_of(session, comparison.id)
    if job is None or comparison.state not in {ComparisonState.FAILED, ComparisonState.EQUAL_RESPONSES}:
        msg = "Only a comparison whose sampling failed can be sampled again."
        raise InvalidInputError(msg)
    for response in comparison.responses:
        response.seed = new_seed()
        response.text = ""
        response.token_ids = None
        response.finish_reason = None
    comparison.state = ComparisonState.SAMPLING
    comparison.ready_at = None
    job.failures = 0
    job.error = None
    job.finished_at = None
    leases.put_back(job)


def cancel(session: Session, comparisons: Iterable[Comparison]) -> None:
    """Stop the sampling of comparisons that nobody waits for any more."""
    for job in queries.jobs_of(session, [comparison.id for comparison in comparisons]):
        if job.state in {WorkState.QUEUED, WorkState.LEASED}:
            leases.end(job, WorkState.CANCELLED, at=now())


def _pair_job(job: SamplingJob, messages: tuple[Message, ...]) -> PairJob:
    specs = tuple(
        ResponseSpec(
            response_id=response.id,
            checkpoint_digest=response.checkpoint.digest,
            temperature=response.temperature,
            top_p=response.top_p,
            top_k=response.top_k,
            seed=response.seed,
            max_new_tokens=response.max_new_tokens,
        )
        for response in job.comparison.responses
    )
    return PairJob(job_id=job.id, attempt=job.attempt, messages=messages, specs=specs)


def _append_text(job: SamplingJob | None, event: TokenEvent) -> None:
    """Add what a response grew by, unless something is missing in between or it was added before."""
    if job is None:
        return
    for response in job.comparison.responses:
        if response.id == event.response_id and len(response.text) == event.from_index:
            response.text += _storable(event.text)


def _storable(text: str) -> str:
    """A model's text without NUL, which its tokenizer may know as a byte and PostgreSQL cannot store as text."""
    return text.replace(_NUL, "\N{REPLACEMENT CHARACTER}")


def _is_finished_by(job: SamplingJob | None, message: Finish) -> bool:
    return (
        job is not None
        and job.state is WorkState.DONE
        and job.worker_id == message.worker_id
        and job.attempt == message.lease.attempt
    )


def _store(response: Response, sampled: SampledResponse, message: Finish) -> None:
    if sampled.checkpoint_digest != response.checkpoint.digest:
        msg = f"responses: {response.id} was asked of checkpoint {response.checkpoint.digest[:12]}, not another one."
        raise InvalidInputError(msg)
    for field in (
        "seed",
        "prompt_tokens",
        "completion_tokens",
        "finish_reason",
        "sum_logprob",
        "first_token_s",
        "total_s",
        "engine",
        "dtype",
        "device",
    ):
        setattr(response, field, getattr(sampled, field))
    response.text = _storable(sampled.text)
    response.token_ids = list(sampled.token_ids)
    response.worker_id = message.worker_id
    response.attempt = message.lease.attempt


def _survives_failure(job: SamplingJob, terms: LeaseTerms, reason: str, *, at: datetime) -> bool:
    """Count a failure; the last one that is allowed ends the job."""
    if leases.survives_failure(job, reason, max_attempts=terms.max_attempts, at=at):
        return True
    job.comparison.state = ComparisonState.FAILED
    return False


def _fail_for_good(job: SamplingJob, reason: str, *, at: datetime) -> None:
    leases.end(job, WorkState.FAILED, at=at, error=reason)
    job.comparison.state = ComparisonState.FAILED
