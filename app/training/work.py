"""Training runs as workers see them: handed out under a lease, followed step by step, finished or failed."""

import math
from collections.abc import Sequence

from sqlalchemy.orm import Session

from app.accounts import audit
from app.errors import InvalidInputError
from app.models import Evaluation, RewardModel, TrainingPoint, TrainingRun, WorkState, now
from app.sampling import leases, workers
from app.training import queries
from contract.recipe import Recipe
from contract.training import (
    ClaimedRun,
    ClaimRun,
    DatasetRef,
    FailRun,
    FinishRun,
    RewardModelRef,
    RunControl,
    RunEvents,
    RunJob,
)
from contract.training import TrainingPoint as ReportedPoint

_SHA256_CHARACTERS = 64
_DATASET_NAME_CHARACTERS = 200
# The log is for a person who looks at the run's page; the worker keeps all of it.
_LOG_CHARACTERS = 100_000


def claim_run(session: Session, message: ClaimRun, terms: leases.LeaseTerms) -> ClaimedRun:
    """Hand out the oldest run whose chat checkpoint the worker holds, if there is one."""
    at = now()
    worker = workers.seen(session, message.worker_id)
    while (run := queries.next_due(session, message.digests, at=at)) is not None:
        is_lost = run.state is WorkState.LEASED
        if is_lost and not leases.survives_failure(
            run, "The model worker was lost.", max_attempts=terms.max_attempts, at=at
        ):
            session.flush()
            continue
        leases.hand_out(run, worker.id, at=at, lease_s=terms.lease_s)
        run.log = f"{run.log}Attempt {run.attempt}, on {worker.name}.\n"
        return ClaimedRun(job=_job(session, run))
    return ClaimedRun(job=None)


def take_events(session: Session, message: RunEvents, terms: leases.LeaseTerms) -> RunControl:
    """Keep a run's lease alive, store what it reports, and say whether it was cancelled.

    Points that were sent before are passed over.

    Raises:
        LeaseLostError: The worker does not hold the run as this attempt.
        InvalidInputError: A figure is not a number: the training has diverged.

    """
    at = now()
    workers.seen(session, message.worker_id)
    run = queries.locked(session, message.lease.job_id)
    if run is not None and run.state is WorkState.CANCELLED:
        return RunControl(is_cancelled=True, lease_until=at)
    run = leases.held(session, TrainingRun, message.lease.job_id, message.worker_id, message.lease.attempt)
    _store_points(session, run, message.points)
    if message.log:
        run.log = (run.log + message.log)[-_LOG_CHARACTERS:]
    leases.extend(run, at=at, lease_s=terms.lease_s)
    return RunControl(is_cancelled=False, lease_until=run.lease_until or at)


def finish_run(session: Session, message: FinishRun) -> None:
    """Register the reward model that a run has made, with its evaluations.

    Sending the same answer again changes nothing.

    Raises:
        LeaseLostError: The worker does not hold the run as this attempt.
        InvalidInputError: The digest is not a sha256, or two reports are on the same split.

    """
    run = queries.locked(session, message.lease.job_id)
    if run is not None and run.state is WorkState.DONE and _is_from_holder(run, message):
        return
    run = leases.held(session, TrainingRun, message.lease.job_id, message.worker_id, message.lease.attempt)
    _check_finish(message)
    reward_model = RewardModel(
        name=run.name, run_id=run.id, objective=run.objective, path=message.path, digest=message.digest
    )
    session.add(reward_model)
    session.flush()
    session.add_all(
        Evaluation(
            reward_model_id=reward_model.id,
            dataset_name=report.dataset,
            split=report.split,
            kind=report.kind,
            report=report.model_dump(mode="json"),
        )
        for report in message.evaluations
    )
    leases.end(run, WorkState.DONE, at=now())
    audit.record(session, "training.finished", run.name, digest=message.digest)


def fail_run(session: Session, message: FailRun, terms: leases.LeaseTerms) -> None:
    """Take a run back from a worker that could not do it: for another try, or for good.

    Raises:
        LeaseLostError: The worker does not hold the run as this attempt.

    """
    at = now()
    run = leases.held(session, TrainingRun, message.lease.job_id, message.worker_id, message.lease.attempt)
    if not message.is_retryable:
        leases.end(run, WorkState.FAILED, at=at, error=message.reason)
    elif leases.survives_failure(run, message.reason, max_attempts=terms.max_attempts, at=at):
        leases.put_back(run)
    if run.state is WorkState.FAILED:
        audit.record(session, "training.failed", run.name)


def _job(session: Session, run: TrainingRun) -> RunJob:
    # The newest last: the worker measures drift on it.
    datasets = sorted(run.datasets, key=lambda dataset: dataset.frozen_at)
    previous = queries.newest_reward_model_before(session, run, datasets[-1]) if datasets else None
    return RunJob(
        job_id=run.id,
        attempt=run.attempt,
        name=run.name,
        checkpoint_digest=run.checkpoint.digest,
        previous=None
        if previous is None
        else RewardModelRef(name=previous.name, path=previous.path, digest=previous.digest),
        datasets=tuple(DatasetRef(name=dataset.name, manifest_sha256=dataset.manifest_sha256) for dataset in datasets),
        recipe=Recipe.model_validate(run.recipe),
    )


def _store_points(session: Session, run: TrainingRun, points: Sequence[ReportedPoint]) -> None:
    by_step = {point.step: point for point in points}
    for point in by_step.values():
        figures = (point.loss, point.accuracy, point.reward_gap, point.learning_rate, point.elapsed_s)
        if not all(math.isfinite(figure) for figure in figures):
            msg = f"points: a figure of step {point.step} is not a number; the training has diverged."
            raise InvalidInputError(msg)
    known = queries.known_steps(session, run, by_step)
    session.add_all(
        TrainingPoint(run_id=run.id, attempt=run.attempt, **point.model_dump())
        for step, point in by_step.items()
        if step not in known
    )


def _is_from_holder(run: TrainingRun, message: FinishRun) -> bool:
    return run.worker_id == message.worker_id and run.attempt == message.lease.attempt


def _check_finish(message: FinishRun) -> None:
    if len(message.digest) != _SHA256_CHARACTERS:
        msg = "digest: give the sha256 of the reward model, in hexadecimal."
        raise InvalidInputError(msg)
    splits = [(report.dataset, report.split, report.kind) for report in message.evaluations]
    if len(set(splits)) < len(splits):
        msg = "evaluations: two reports are on the same split of the same dataset."
        raise InvalidInputError(msg)
    if any(len(report.dataset) > _DATASET_NAME_CHARACTERS for report in message.evaluations):
        msg = f"evaluations: a dataset's name has more than {_DATASET_NAME_CHARACTERS} characters."
        raise InvalidInputError(msg)
