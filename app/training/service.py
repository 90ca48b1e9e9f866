"""What trainers do with training runs: queue one, look at it, cancel it, try it again."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.orm import Session

from app.accounts import audit
from app.checkpoints import service as checkpoints
from app.errors import ConflictError, InvalidInputError, NotFoundError
from app.models import Checkpoint, Person, PreferenceDataset, RewardModel, TrainingRun, Worker, WorkState, now
from app.sampling import leases
from app.training import plan, queries
from contract.dataset import Manifest
from contract.recipe import Recipe
from contract.vocabulary import Objective

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ENDED = frozenset({WorkState.DONE, WorkState.FAILED, WorkState.CANCELLED})


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """What a trainer asks for."""

    recipe: Recipe
    dataset_ids: Sequence[UUID]
    name: str = ""
    """Empty: the objective and the next free number."""
    checkpoint_id: UUID | None = None
    """Empty: the current chat checkpoint."""
    fits_pairs_per_step: bool = False
    """Whether the recipe's pairs per step may be lowered to fit a small dataset."""


def problems(session: Session, request: RunRequest) -> dict[str, str]:
    """Why a run cannot be queued: a message for each field that does not fit the others or what there is."""
    found: dict[str, str] = {}
    if request.name and _NAME.fullmatch(request.name) is None:
        found["name"] = "use up to 100 letters, digits, dots, dashes and underscores; start with a letter or digit."
    elif request.name in queries.run_names(session):
        found["name"] = f"there is a training run called {request.name} already."
    if request.checkpoint_id is None and checkpoints.current(session) is None:
        found["checkpoint"] = "no chat checkpoint is promoted yet, so there is nothing to start from."
    problem = _dataset_problem(session, request)
    if problem:
        found["datasets"] = problem
    return found


def queue_run(session: Session, request: RunRequest, *, actor: Person | None = None) -> TrainingRun:
    """Queue the training of a reward model.

    Raises:
        InvalidInputError: ``problems`` finds one.

    """
    for field, problem in problems(session, request).items():
        msg = f"{field}: {problem}"
        raise InvalidInputError(msg)
    recipe = request.recipe
    datasets = queries.datasets_by_id(session, request.dataset_ids)
    if request.fits_pairs_per_step:
        pairs = plan.training_pairs(manifests_of(datasets), recipe.objective)
        recipe = recipe.model_copy(update={"pairs_per_step": plan.fitting_pairs_per_step(pairs, recipe)})
    run = TrainingRun(
        name=request.name or _free_name(session, recipe.objective),
        objective=recipe.objective,
        checkpoint_id=_checkpoint(session, request.checkpoint_id).id,
        recipe=recipe.model_dump(mode="json"),
        created_by=actor.id if actor is not None else None,
        datasets=datasets,
    )
    session.add(run)
    session.flush()
    audit.record(session, "training.queued", run.name, actor=actor, datasets=[dataset.name for dataset in datasets])
    return run


def get_run(session: Session, name: str) -> TrainingRun:
    """A run by name, with its datasets and checkpoint.

    Raises:
        NotFoundError: There is no such run.

    """
    run = queries.run_by_name(session, name)
    if run is None:
        msg = f"There is no training run {name}."
        raise NotFoundError(msg)
    return run


def get_reward_model(session: Session, name: str) -> RewardModel:
    """A reward model by name.

    Raises:
        NotFoundError: There is no such reward model.

    """
    reward_model = queries.reward_model_by_name(session, name)
    if reward_model is None:
        msg = f"There is no reward model {name}."
        raise NotFoundError(msg)
    return reward_model


def manifests_of(datasets: Sequence[PreferenceDataset]) -> list[Manifest]:
    """What some datasets say about themselves."""
    return [Manifest.model_validate(dataset.manifest) for dataset in datasets]


def cancel_run(session: Session, run: TrainingRun, *, actor: Person) -> None:
    """Stop a run. A worker that trains it learns so from the answer to its next events.

    Raises:
        ConflictError: It has ended already.

    """
    run = queries.locked(session, run.id) or run
    if run.state in _ENDED:
        msg = f"The training run {run.name} is {run.state} already."
        raise ConflictError(msg)
    leases.end(run, WorkState.CANCELLED, at=now())
    audit.record(session, "training.cancelled", run.name, actor=actor)


def retry_run(session: Session, run: TrainingRun, *, actor: Person) -> None:
    """Queue a run that failed or was cancelled once more.

    Raises:
        ConflictError: It is queued, running, or done.

    """
    run = queries.locked(session, run.id) or run
    if run.state not in {WorkState.FAILED, WorkState.CANCELLED}:
        msg = f"The training run {run.name} is {run.state}; only a failed or cancelled one can be tried again."
        raise ConflictError(msg)
    run.failures = 0
    run.error = None
    run.finished_at = None
    run.queued_at = now()
    leases.put_back(run)
    audit.record(session, "training.retried", run.name, actor=actor)


def put_back_runs(session: Session, worker: Worker) -> None:
    """Return what a worker held before it started anew to the queue."""
    for run in queries.leased_to(session, worker.id):
        leases.put_back(run)


def _free_name(session: Session, objective: Objective) -> str:
    taken = queries.run_names(session)
    number = 1
    while (name := f"{objective}-{number}") in taken:
        number += 1
    return name


def _checkpoint(session: Session, checkpoint_id: UUID | None) -> Checkpoint:
    chosen = checkpoints.get(session, checkpoint_id) if checkpoint_id is not None else checkpoints.current(session)
    if chosen is None:  # pragma: no cover - problems() has found that
        msg = "checkpoint: no chat checkpoint is promoted yet, so there is nothing to start from."
        raise InvalidInputError(msg)
    return chosen


def _dataset_problem(session: Session, request: RunRequest) -> str:
    """Why some datasets cannot be trained on together; empty if they can."""
    datasets = queries.datasets_by_id(session, request.dataset_ids)
    if not datasets or len(datasets) < len(set(request.dataset_ids)):
        return "choose at least one frozen dataset."
    by_batch: dict[UUID, str] = {}
    for dataset in datasets:
        other = by_batch.setdefault(dataset.batch_id, dataset.name)
        if other != dataset.name:
            return f"{other} and {dataset.name} are versions of the same batch; choose one of them."
    if not plan.training_pairs(manifests_of(datasets), request.recipe.objective):
        return f"none of these holds training comparisons for {request.recipe.objective}."
    return ""
