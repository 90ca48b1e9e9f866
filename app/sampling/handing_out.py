"""The life of a job among workers: claimed, followed by events, finished, failed or given back."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from sqlalchemy.orm import Session

from app.conversations.history import prompts_with_context
from app.errors import InvalidInputError
from app.models import ComparisonState, Response, SamplingJob, WorkState, now
from app.sampling import leases, queries, workers
from app.sampling.leases import LeaseTerms
from app.sampling.stored_text import storable
from app.sampling.variants import can_differ, draw_again
from contract.conversation import Message
from contract.sampling import (
    Claim,
    Control,
    Events,
    Fail,
    Finish,
    Lease,
    PairJob,
    Release,
    ResponseSpec,
    SampledResponse,
    TokenEvent,
)

_LOG = structlog.get_logger(__name__)
_LOST = "The worker was lost."
_EQUAL = "The two responses came out the same."
# What a finished response is stored with as the worker says it.
_PROVENANCE = (
    "seed",
    "prompt_digest",
    "prompt_tokens",
    "completion_tokens",
    "finish_reason",
    "sum_logprob",
    "first_token_s",
    "total_s",
    "engine",
    "dtype",
    "device",
)


def count_due(session: Session, digests: Sequence[str], *, limit: int) -> int:
    """How many jobs there are to claim, up to a limit; a look that takes no lock."""
    return queries.count_due_jobs(session, digests, at=now(), limit=limit)


def claim(session: Session, message: Claim, terms: LeaseTerms) -> list[PairJob]:
    """Hand out up to ``message.want`` pairs, oldest first, whose checkpoints the worker can sample from."""
    at = now()
    worker = workers.seen(session, message.worker_id)
    handed_out = []
    for job in queries.due_jobs(session, message.digests, at=at, limit=message.want):
        if job.state is WorkState.LEASED and not _survives_failure(job, terms, _LOST, at=at):
            continue
        leases.hand_out(job, worker.id, at=at, lease_s=terms.lease_s)
        for response in job.comparison.responses:
            response.text = ""
        handed_out.append(job)
        _note("job_claimed", job, worker=worker.name)
    prompts = prompts_with_context(session, [job.comparison for job in handed_out])
    return [_pair_job(job, prompts[job.comparison_id]) for job in handed_out]


def take_events(session: Session, message: Events, terms: LeaseTerms) -> Control:
    """Extend the leases a worker still holds, store the text that grew, and say which jobs to drop."""
    at = now()
    worker = workers.seen(session, message.worker_id)
    if message.status is not None:
        workers.take_status(session, worker, message.status)
    jobs = _jobs_of(session, message.leases)
    until = at + timedelta(seconds=terms.lease_s)
    dropped = set()
    for lease in message.leases:
        job = jobs.get(lease.job_id)
        if job is not None and leases.is_held(job, message.worker_id, lease.attempt):
            until = min(until, leases.extend(job, at=at, lease_s=terms.lease_s))
        else:
            dropped.add(lease.job_id)
            leases.note_lost(lease.job_id, message.worker_id, lease.attempt)
    for event in message.tokens:
        _append_text(jobs.get(event.job_id), event, message.worker_id)
    return Control(drop=tuple(dropped), lease_until=until)


def finish(session: Session, message: Finish, terms: LeaseTerms) -> bool:
    """Store both responses of a job and offer the comparison for judgement; whether they are news.

    Equal responses are no pair: they are drawn again with new seeds, as often as a job may fail, and then given up.
    Sending the same answer again changes nothing.

    Raises:
        LeaseLostError: The worker does not hold the job as this attempt.
        InvalidInputError: The responses are not the ones that were asked for.

    """
    at = now()
    job = queries.with_pair(session, message.lease.job_id)
    if _is_finished_by(job, message):
        return False
    held = leases.held(session, SamplingJob, message.lease.job_id, message.worker_id, message.lease.attempt)
    job = queries.with_pair(session, held.id) or held
    responses = job.comparison.responses
    sampled = {response.response_id: response for response in message.responses}
    if len(sampled) != len(message.responses) or sampled.keys() != {row.id for row in responses}:
        msg = "responses: exactly the responses of the job must be given, each once."
        raise InvalidInputError(msg)
    for response in responses:
        _store(response, sampled[response.id], message)
    is_pair = len({response.text for response in responses}) == len(responses)
    if not is_pair and _may_differ_next_time(job, terms):
        draw_again(responses)
        leases.put_back(job)
        _note("equal_responses_drawn_again", job, failures=job.failures)
        return True
    leases.end(job, WorkState.DONE, at=at, error=None if is_pair else _EQUAL)
    job.comparison.state = ComparisonState.READY if is_pair else ComparisonState.EQUAL_RESPONSES
    job.comparison.ready_at = at
    _note("job_finished", job, worker_id=str(message.worker_id), is_pair=is_pair)
    return True


def fail(session: Session, message: Fail, terms: LeaseTerms) -> None:
    """Take a job back from a worker that could not do it: for another try, or for good.

    Raises:
        LeaseLostError: The worker does not hold the job as this attempt.

    """
    at = now()
    held = leases.held(session, SamplingJob, message.lease.job_id, message.worker_id, message.lease.attempt)
    job = queries.with_pair(session, held.id) or held
    reason = storable(message.reason)
    if not message.is_retryable:
        leases.end(job, WorkState.FAILED, at=at, error=reason)
        job.comparison.state = ComparisonState.FAILED
        _note("job_failed", job, reason=reason)
    elif _survives_failure(job, terms, reason, at=at):
        leases.put_back(job)


def release(session: Session, message: Release) -> None:
    """Put jobs that a worker gives back into the queue; those it no longer holds are passed over."""
    if message.is_stopping:
        # Before the jobs, as everybody locks them.
        workers.stop(session, message.worker_id)
        session.flush()
    jobs = _jobs_of(session, message.leases)
    for lease in message.leases:
        job = jobs.get(lease.job_id)
        if job is not None and leases.is_held(job, message.worker_id, lease.attempt):
            leases.put_back(job)
            _note("job_released", job, worker_id=str(message.worker_id))


def _jobs_of(session: Session, held: Iterable[Lease]) -> dict[UUID, SamplingJob]:
    job_ids = {lease.job_id for lease in held}
    return queries.jobs_by_id(session, job_ids) if job_ids else {}


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


def _append_text(job: SamplingJob | None, event: TokenEvent, worker_id: UUID) -> None:
    """Add what a response grew by, unless something is missing in between or it was added before."""
    if job is None or not leases.is_held(job, worker_id, event.attempt):
        return
    for response in job.comparison.responses:
        if response.id == event.response_id and len(response.text) == event.from_index:
            response.text += storable(event.text)


def _is_finished_by(job: SamplingJob | None, message: Finish) -> bool:
    return (
        job is not None
        and job.state is WorkState.DONE
        and job.worker_id == message.worker_id
        and job.attempt == message.lease.attempt
    )


def _may_differ_next_time(job: SamplingJob, terms: LeaseTerms) -> bool:
    """Whether equal responses are worth another draw, which is counted as a failure of the job."""
    if not can_differ(job.comparison.responses):
        return False
    job.failures += 1
    return job.failures < terms.max_attempts


def _store(response: Response, sampled: SampledResponse, message: Finish) -> None:
    if sampled.checkpoint_digest != response.checkpoint.digest:
        msg = f"responses: {response.id} was asked of checkpoint {response.checkpoint.digest[:12]}, not another one."
        raise InvalidInputError(msg)
    for field in _PROVENANCE:
        setattr(response, field, getattr(sampled, field))
    response.text = storable(sampled.text)
    response.token_ids = list(sampled.token_ids)
    response.stop_token_ids = list(sampled.stop_token_ids)
    response.worker_id = message.worker_id
    response.attempt = message.lease.attempt


def _survives_failure(job: SamplingJob, terms: LeaseTerms, reason: str, *, at: datetime) -> bool:
    """Count a failure; the last one that is allowed ends the job."""
    survives = leases.survives_failure(job, reason, max_attempts=terms.max_attempts, at=at)
    _note("job_gets_another_try" if survives else "job_failed", job, reason=reason)
    if not survives:
        job.comparison.state = ComparisonState.FAILED
    return survives


def _note(event: str, job: SamplingJob, **detail: object) -> None:
    _LOG.info(event, job_id=str(job.id), attempt=job.attempt, **detail)
