"""Looks at everything after a storm: whether each job was done exactly once, and each response is where it belongs."""

import json
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import selectinload

from app.conversations.history import prompts_with_context
from app.database import Database
from app.models import Comparison, ComparisonState, Response, SamplingJob, Worker, WorkState
from contract.sampling import Lease, PairJob, ResponseSpec, SampledResponse
from model_worker.sampling.interface import Sampler
from tests.end_to_end.storm.ledger import Ledger
from tests.end_to_end.storm.load import Asked
from tests.end_to_end.storm.stage import Actor, Stage

_STATES = {
    WorkState.DONE: ComparisonState.READY,
    WorkState.FAILED: ComparisonState.FAILED,
    WorkState.CANCELLED: ComparisonState.ABANDONED,
}
# What a sampler says of a response, apart from how long it took and where.
_SAME = (
    "checkpoint_digest",
    "seed",
    "text",
    "token_ids",
    "prompt_digest",
    "stop_token_ids",
    "prompt_tokens",
    "completion_tokens",
    "finish_reason",
    "engine",
)
_ALARMS = ("Traceback", '"level": "error"', "CRITICAL", "Internal Server Error")


@dataclass
class Redrawn:
    """A sink: what the sampler says, in calm weather, to the same jobs."""

    responses: dict[UUID, SampledResponse] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    ended: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def text(self, lease: Lease, spec_index: int, text: str) -> None:
        """Only whole responses count here."""

    def done(self, lease: Lease, responses: tuple[SampledResponse, ...]) -> None:
        """Keep the responses."""
        del lease
        self.responses |= {response.response_id: response for response in responses}
        self.ended.release()

    def failed(self, lease: Lease, reason: str, *, is_retryable: bool) -> None:
        """The same job was done before, or it could not have been."""
        self.errors.append(f"{lease.job_id} cannot be drawn again: {reason} ({is_retryable=})")
        self.ended.release()

    def returned(self, lease: Lease, reason: str) -> None:
        """As ``failed``."""
        self.failed(lease, reason, is_retryable=True)

    def cancelled(self, lease: Lease) -> None:
        """As ``failed``."""
        self.failed(lease, "cancelled", is_retryable=True)


@dataclass(frozen=True)
class Story:
    """How one job went, as the database tells it."""

    job: SamplingJob
    comparison: Comparison
    responses: tuple[Response, ...]
    again: PairJob
    """The job as it was asked for, to be drawn again."""


def stories(database: Database, asked: Sequence[Asked]) -> list[Story]:
    """All jobs, with the seeds that were asked for first."""
    seeds = {one.response_id: one.seed for one in asked}
    with database.read() as session:
        jobs = session.scalars(
            select(SamplingJob).options(
                selectinload(SamplingJob.comparison)
                .selectinload(Comparison.responses)
                .selectinload(Response.checkpoint)
            )
        ).all()
        prompts = prompts_with_context(session, [job.comparison for job in jobs])
    told = []
    for job in jobs:
        responses = tuple(job.comparison.responses)
        specs = tuple(
            ResponseSpec(
                response_id=response.id,
                checkpoint_digest=response.checkpoint.digest,
                temperature=response.temperature,
                top_p=response.top_p,
                top_k=response.top_k,
                seed=seeds.get(response.id, response.seed),
                max_new_tokens=response.max_new_tokens,
            )
            for response in responses
        )
        again = PairJob(job_id=job.id, attempt=job.attempt, messages=prompts[job.comparison_id], specs=specs)
        told.append(Story(job, job.comparison, responses, again))
    return told


def count_checkpoints(told: Sequence[Story]) -> int:
    """How many checkpoints the finished responses are of."""
    done = [story for story in told if story.job.state is WorkState.DONE]
    return len({response.checkpoint_id for story in done for response in story.responses})


def redraw(sampler: Sampler, told: Sequence[Story]) -> Redrawn:
    """Draw every pair once more, with nothing in the way."""
    redrawn = Redrawn()
    for story in told:
        sampler.submit(story.again, redrawn)
    for _ in told:
        redrawn.ended.acquire()
    return redrawn


def wrongs_of_jobs(database: Database, told: Sequence[Story], asked: Sequence[Asked], redrawn: Redrawn) -> list[str]:
    """What is wrong with the jobs, comparisons and responses in the database; empty if nothing is."""
    with database.read() as session:
        workers = set(session.scalars(select(Worker.id)))
    found = list(redrawn.errors)
    if {one.comparison_id for one in asked} != {story.comparison.id for story in told}:
        found.append("The comparisons that were asked for are not those that have jobs.")
    for story in told:
        name = f"job {story.job.id} ({story.job.state}, attempt {story.job.attempt})"
        found += [f"{name}: {wrong}" for wrong in _wrongs_of_story(story, workers, redrawn)]
    return found


def _wrongs_of_story(story: Story, workers: set[UUID], redrawn: Redrawn) -> Iterator[str]:
    job = story.job
    if job.state not in _STATES:
        yield "it never ended"
        return
    if story.comparison.state is not _STATES[job.state]:
        yield f"its comparison is {story.comparison.state}"
    if len(story.responses) != 2:
        yield f"it has {len(story.responses)} responses"
    if job.state is WorkState.FAILED and not job.error:
        yield "it failed without a reason"
    if job.state is not WorkState.DONE:
        for response in story.responses:
            yield from _wrongs_of_unfinished(response, redrawn)
    else:
        yield from _wrongs_of_done(story, workers, redrawn)


def _wrongs_of_done(story: Story, workers: set[UUID], redrawn: Redrawn) -> Iterator[str]:
    job = story.job
    if len({response.text for response in story.responses}) < len(story.responses):
        yield "two equal responses are offered for judgement"
    if job.worker_id not in workers:
        yield "nobody knows the worker that did it"
    for response in story.responses:
        if (response.attempt, response.worker_id) != (job.attempt, job.worker_id):
            yield f"{response.side} is of attempt {response.attempt} by {response.worker_id}, not {job.worker_id}"
        yield from _wrongs_of_finished(response, redrawn)


def _wrongs_of_finished(response: Response, redrawn: Redrawn) -> Iterator[str]:
    drawn = redrawn.responses.get(response.id)
    if drawn is None:
        return
    for name in _SAME:
        wanted = getattr(drawn, name)
        stored = response.checkpoint.digest if name == "checkpoint_digest" else getattr(response, name)
        if stored != (list(wanted) if isinstance(wanted, tuple) else wanted):
            yield f"{response.side}: {name} is {stored!r} and should be {wanted!r}"


def _wrongs_of_unfinished(response: Response, redrawn: Redrawn) -> Iterator[str]:
    if response.token_ids is not None or response.finish_reason is not None:
        yield f"{response.side} is finished, though its job is not done"
    drawn = redrawn.responses.get(response.id)
    if drawn is not None and not drawn.text.startswith(response.text):
        yield f"{response.side}: the text so far is {response.text!r}, which {drawn.text!r} does not begin with"


def wrongs_of_exchanges(ledger: Ledger, told: Sequence[Story]) -> list[str]:
    """What is wrong with the requests and answers: double hand-outs, deliveries that were taken twice, errors."""
    found = [f"{one.verb} of {one.line} was answered {one.status}: {one.answer[:300]!r}" for one in ledger.unexpected()]
    found += [
        f"{job} was handed out {times} times as one attempt" for job, times in ledger.hand_outs().items() if times > 1
    ]
    by_id = {str(story.job.id): story for story in told}
    asked = ledger.asked_checkpoints()
    for one in ledger.accepted():
        message = one.asked()
        lease = message["lease"]
        story = by_id[lease["job_id"]]
        final = (WorkState.DONE, story.job.attempt, str(story.job.worker_id))
        if (story.job.state, lease["attempt"], message["worker_id"]) != final:
            found.append(f"a delivery of {json.dumps(lease)} was taken, but the job is {final}")
        stored = {str(response.id): response.text for response in story.responses}
        if {each["response_id"]: each["text"] for each in message["responses"]} != stored:
            found.append(f"what was delivered for {json.dumps(lease)} is not what is stored")
        # Of a hand-out whose answer was lost with its app nothing is known here, and no worker could have done it.
        wanted = asked.get((lease["job_id"], lease["attempt"]))
        if {each["response_id"]: each["checkpoint_digest"] for each in message["responses"]} != wanted:
            found.append(f"{json.dumps(lease)} was taken from other checkpoints than it was handed out for")
    return found


def wrongs_of_processes(stage: Stage, asked_to_stop: Sequence[Actor]) -> list[str]:
    """What is wrong with the processes: broken ones, alarms in their logs, and workers that did not stop in order."""
    found = [
        f"{worker.log.name} ended with {worker.process.returncode}: {worker.said()[-1500:]}"
        for worker in asked_to_stop
        if worker.process.returncode != 0 and not _was_just_starting(worker)
    ]
    ended = [actor for actor in (*stage.apps, *stage.workers) if not (actor.is_killed or actor.is_asked_to_stop)]
    found += [
        f"{actor.log.name} ended by itself with {actor.process.returncode}: {actor.said()[-1500:]}"
        for actor in ended
        if actor.process.poll() is not None
    ]
    for log in sorted({actor.log for actor in (*stage.apps, *stage.past, *stage.workers)}):
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        alarms = [at for at, line in enumerate(lines) if any(alarm in line for alarm in _ALARMS)]
        found += [f"{log.name}: " + "\n".join(lines[at : at + 30])[:3000] for at in alarms[:3]]
    return found


def _was_just_starting(worker: Actor) -> bool:
    """Whether it was asked to stop while Python still read its modules, and so ended at once with nothing begun."""
    return worker.process.returncode == -signal.SIGTERM and not worker.said()
