"""Training runs through the worker API: claimed, followed, finished, lost, cancelled, failed."""

import threading
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response as HttpResponse
from sqlalchemy import func, select

from app.database import Database
from app.models import (
    AuditEvent,
    Evaluation,
    PersonRole,
    PreferenceDataset,
    RewardModel,
    TrainingPoint,
    TrainingRun,
    WorkState,
    now,
)
from app.sampling.leases import LeaseTerms
from app.training import plan, service, work
from app.training.service import RunRequest
from contract.base import Contract
from contract.recipe import Recipe
from contract.sampling import Lease, Register, Registered
from contract.training import (
    ClaimedRun,
    ClaimRun,
    FailRun,
    FinishRun,
    RewardModelRef,
    RunControl,
    RunEvents,
    RunJob,
)
from contract.training import TrainingPoint as ReportedPoint
from contract.vocabulary import Objective, Split
from tests.conftest import Browser
from tests.factories import checkpoint_files, make_checkpoint, make_person
from tests.training_factories import evaluation_report, make_dataset

API = "/api/worker/v1/"
TERMS = LeaseTerms(lease_s=30, max_attempts=3)


class FakeWorker:
    """A model worker that says what a test tells it, as real contract JSON over HTTP."""

    def __init__(self, client: TestClient, headers: dict[str, str], name: str = "gpu-1") -> None:
        self.client, self.headers, self.name = client, headers, name
        self.register()

    def send(self, path: str, message: Contract) -> HttpResponse:
        """Post a message as its JSON."""
        return self.client.post(
            API + path,
            content=message.model_dump_json(),
            headers=self.headers | {"Content-Type": "application/json"},
        )

    def register(self) -> None:
        """Introduce the worker, or a new start of it."""
        message = Register(
            name=self.name,
            hostname="host",
            engine="pair/1",
            versions={"torch": "2"},
            device="cpu",
            dtype="float32",
            max_pairs=8,
            can_sample=True,
            can_train=True,
            checkpoints=(checkpoint_files(),),
        )
        answer = self.send("register", message)
        assert answer.status_code == 200, answer.text
        self.id = Registered.model_validate_json(answer.content).worker_id

    def claim(self) -> RunJob | None:
        """Ask for a run."""
        answer = self.send("runs/claim", ClaimRun(worker_id=self.id, digests=(checkpoint_files().digest,)))
        assert answer.status_code == 200, answer.text
        return ClaimedRun.model_validate_json(answer.content).job

    def events(self, job: RunJob, *steps: int, log: str = "") -> HttpResponse:
        """Report some steps."""
        message = RunEvents(worker_id=self.id, lease=lease(job), points=tuple(map(point, steps)), log=log)
        return self.send("runs/events", message)

    def finish(self, job: RunJob, **changes: Any) -> HttpResponse:
        """Say that the run ended well."""
        message = FinishRun(
            worker_id=self.id,
            lease=lease(job),
            path="/models/helpfulness-1",
            digest="d" * 64,
            evaluations=(evaluation_report("batch-1"),),
        )
        return self.send("runs/finish", message.model_copy(update=changes))

    def fail(self, job: RunJob, reason: str, *, is_retryable: bool) -> HttpResponse:
        """Say that the run ended badly."""
        message = FailRun(worker_id=self.id, lease=lease(job), reason=reason, is_retryable=is_retryable)
        return self.send("runs/fail", message)


def lease(job: RunJob) -> Lease:
    return Lease(job_id=job.job_id, attempt=job.attempt)


def point(step: int) -> ReportedPoint:
    return ReportedPoint(
        step=step,
        total_steps=20,
        loss=0.7 - step / 100,
        accuracy=0.5 + step / 100,
        reward_gap=step / 10,
        learning_rate=1e-5,
        pairs=step * 8,
        elapsed_s=float(step),
    )


@pytest.fixture
def run_id(database: Database) -> UUID:
    """A queued run on a frozen dataset of 200 training comparisons."""
    with database.write() as session:
        make_checkpoint(session)
        dataset = make_dataset(session, rows=200)
        trainer = make_person(session, "Tim", PersonRole.TRAINER)
        request = RunRequest(
            recipe=Recipe(objective=Objective.HELPFULNESS), dataset_ids=[dataset.id], fits_pairs_per_step=True
        )
        return service.queue_run(session, request, actor=trainer).id


@pytest.fixture
def worker(client: TestClient, worker_headers: dict[str, str]) -> FakeWorker:
    return FakeWorker(client, worker_headers)


def stored_run(database: Database, run_id: UUID) -> TrainingRun:
    with database.read() as session:
        return session.get_one(TrainingRun, run_id)


def count(database: Database, model: type[Any]) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(model)) or 0


def expire(database: Database, run_id: UUID) -> None:
    with database.write() as session:
        run = session.get_one(TrainingRun, run_id)
        run.lease_until = now().replace(year=2000)


def test_a_run_goes_from_the_queue_to_a_reward_model(database: Database, run_id: UUID, worker: FakeWorker) -> None:
    job = worker.claim()
    assert job is not None
    assert (job.job_id, job.attempt, job.name) == (run_id, 1, "helpfulness-1")
    assert job.checkpoint_digest == checkpoint_files().digest
    assert [ref.name for ref in job.datasets] == ["batch-1"]
    # 200 comparisons make 20 steps of 10, where the paper's 512 would make a single one.
    assert job.recipe == Recipe(objective=Objective.HELPFULNESS, pairs_per_step=10)
    assert worker.claim() is None

    control = RunControl.model_validate_json(worker.events(job, 1, 2, log="two steps\n").content)
    assert not control.is_cancelled
    assert control.lease_until > now()
    assert worker.events(job, 2, 3, log="one more\n").status_code == 200
    assert count(database, TrainingPoint) == 3
    assert stored_run(database, run_id).log.endswith("two steps\none more\n")

    assert worker.finish(job).status_code == 204
    run = stored_run(database, run_id)
    assert (run.state, run.lease_until) == (WorkState.DONE, None)
    with database.read() as session:
        reward_model = session.scalars(select(RewardModel)).one()
        evaluation = session.scalars(select(Evaluation)).one()
    assert (reward_model.name, reward_model.path) == ("helpfulness-1", "/models/helpfulness-1")
    assert (evaluation.dataset_name, evaluation.split, evaluation.kind) == ("batch-1", Split.TEST, "after_training")
    assert evaluation.report == evaluation_report("batch-1").model_dump(mode="json")


@pytest.mark.usefixtures("run_id")
def test_a_run_names_the_newest_reward_model_that_has_not_seen_its_newest_batch(
    database: Database, worker: FakeWorker
) -> None:
    """The measure of drift: the last reward model on the new batch, before anybody trains on it."""

    def queue(*datasets: PreferenceDataset, objective: Objective = Objective.HELPFULNESS) -> None:
        request = RunRequest(recipe=Recipe(objective=objective), dataset_ids=[dataset.id for dataset in datasets])
        with database.write() as session:
            service.queue_run(session, request)

    def claim_and_finish(digit: str) -> RunJob:
        job = worker.claim()
        assert job is not None
        assert worker.finish(job, path=f"/models/{digit}", digest=digit * 64, evaluations=()).status_code == 204
        return job

    assert claim_and_finish("1").previous is None
    with database.write() as session:
        first = session.scalars(select(PreferenceDataset)).one()
        second = make_dataset(session)
        corrected = make_dataset(session, parent=second)
        safety = make_dataset(session, objective=Objective.SAFETY)
    queue(first, second)
    assert claim_and_finish("2").previous == RewardModelRef(name="helpfulness-1", path="/models/1", digest="1" * 64)
    queue(first, corrected)
    assert claim_and_finish("3").previous == RewardModelRef(name="helpfulness-1", path="/models/1", digest="1" * 64)
    queue(safety, objective=Objective.SAFETY)
    assert claim_and_finish("4").previous is None


def test_finishing_twice_changes_nothing(database: Database, run_id: UUID, worker: FakeWorker) -> None:
    job = worker.claim()
    assert job is not None
    assert worker.finish(job).status_code == 204
    finished_at = stored_run(database, run_id).finished_at
    assert worker.finish(job, path="/elsewhere").status_code == 204
    assert stored_run(database, run_id).finished_at == finished_at
    assert (count(database, RewardModel), count(database, Evaluation)) == (1, 1)


def test_a_late_answer_is_refused_and_stores_nothing(
    database: Database, run_id: UUID, worker: FakeWorker, worker_headers: dict[str, str]
) -> None:
    late = worker.claim()
    assert late is not None
    expire(database, run_id)
    other = FakeWorker(worker.client, worker_headers, "gpu-2")
    job = other.claim()
    assert job is not None
    assert (job.job_id, job.attempt) == (run_id, 2)
    for answer in (worker.finish(late), worker.events(late, 1), worker.fail(late, "too late", is_retryable=False)):
        assert answer.status_code == 409
        assert answer.json()["error"]["code"] == "lease_lost"
    assert (count(database, RewardModel), count(database, Evaluation), count(database, TrainingPoint)) == (0, 0, 0)
    assert other.finish(job).status_code == 204
    assert worker.finish(late).status_code == 409


def test_an_expired_lease_that_nobody_took_over_still_counts(
    database: Database, run_id: UUID, worker: FakeWorker
) -> None:
    job = worker.claim()
    assert job is not None
    expire(database, run_id)
    assert worker.events(job, 1).status_code == 200
    assert worker.finish(job).status_code == 204


def test_a_lost_worker_counts_as_a_failure_until_there_are_too_many(
    database: Database, run_id: UUID, worker: FakeWorker
) -> None:
    for attempt in (1, 2, 3):
        job = worker.claim()
        assert job is not None
        assert job.attempt == attempt
        expire(database, run_id)
    assert worker.claim() is None
    run = stored_run(database, run_id)
    assert run.state is WorkState.FAILED
    assert run.error == "The model worker was lost. It was tried 3 times."


def test_a_worker_that_starts_anew_gives_its_run_back(database: Database, run_id: UUID, worker: FakeWorker) -> None:
    first = worker.claim()
    assert first is not None
    worker.register()
    assert stored_run(database, run_id).state is WorkState.QUEUED
    again = worker.claim()
    assert again is not None
    assert again.attempt == 2
    assert worker.events(first, 1).status_code == 409
    # The chart shows the present attempt only.
    assert worker.events(again, 1).status_code == 200
    assert worker.events(again, 1, 2).status_code == 200
    assert count(database, TrainingPoint) == 2


def test_a_failed_run_is_tried_again_or_not(database: Database, run_id: UUID, worker: FakeWorker) -> None:
    job = worker.claim()
    assert job is not None
    assert worker.fail(job, "The worker was stopped.", is_retryable=True).status_code == 204
    run = stored_run(database, run_id)
    assert (run.state, run.failures, run.error) == (WorkState.QUEUED, 1, "The worker was stopped.")
    job = worker.claim()
    assert job is not None
    assert worker.fail(job, "CUDA out of memory", is_retryable=False).status_code == 204
    run = stored_run(database, run_id)
    assert (run.state, run.error) == (WorkState.FAILED, "CUDA out of memory")
    assert worker.claim() is None


def test_a_cancel_reaches_the_worker(
    database: Database, run_id: UUID, worker: FakeWorker, sign_in: Callable[..., Browser]
) -> None:
    job = worker.claim()
    assert job is not None
    trainer = sign_in(PersonRole.TRAINER)
    assert trainer.post("/training/runs/helpfulness-1/cancel").status_code == 303
    assert RunControl.model_validate_json(worker.events(job, 1).content).is_cancelled
    assert worker.finish(job).status_code == 409
    assert count(database, RewardModel) == 0
    assert trainer.post("/training/runs/helpfulness-1/cancel").status_code == 409
    assert trainer.post("/training/runs/helpfulness-1/retry").status_code == 303
    assert stored_run(database, run_id).state is WorkState.QUEUED
    again = worker.claim()
    assert again is not None
    assert again.attempt == 2
    with database.read() as session:
        actions = set(session.scalars(select(AuditEvent.action).where(AuditEvent.subject == "helpfulness-1")))
    assert {"training.queued", "training.cancelled", "training.retried"} <= actions


def test_two_claims_at_once_get_one_run(database: Database, run_id: UUID, worker: FakeWorker) -> None:
    jobs: list[RunJob | None] = []
    start = threading.Barrier(2)

    def claim() -> None:
        message = ClaimRun(worker_id=worker.id, digests=(checkpoint_files().digest,))
        start.wait()
        with database.write() as session:
            jobs.append(work.claim_run(session, message, TERMS).job)

    threads = [threading.Thread(target=claim) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [job.job_id for job in jobs if job is not None] == [run_id]


def test_a_run_waits_for_a_worker_that_holds_its_checkpoint(run_id: UUID, worker: FakeWorker) -> None:
    answer = worker.send("runs/claim", ClaimRun(worker_id=worker.id, digests=("0" * 64,)))
    assert ClaimedRun.model_validate_json(answer.content).job is None
    assert worker.claim() is not None
    del run_id


def test_figures_that_are_not_numbers_are_refused(database: Database, run_id: UUID, worker: FakeWorker) -> None:
    job = worker.claim()
    assert job is not None
    message = RunEvents(worker_id=worker.id, lease=lease(job), points=(point(1),))
    body = message.model_dump_json().replace('"loss":0.69', '"loss":NaN')
    assert "NaN" in body
    headers = worker.headers | {"Content-Type": "application/json"}
    answer = worker.client.post(API + "runs/events", content=body, headers=headers)
    assert answer.status_code == 422
    assert "diverged" in answer.json()["error"]["message"] or "finite" in answer.json()["error"]["message"]
    assert count(database, TrainingPoint) == 0
    del run_id


def test_a_finish_that_makes_no_sense_is_refused_whole(database: Database, run_id: UUID, worker: FakeWorker) -> None:
    job = worker.claim()
    assert job is not None
    report = evaluation_report("batch-1")
    assert worker.finish(job, evaluations=(report, report)).status_code == 422
    assert worker.finish(job, digest="short").status_code == 422
    assert count(database, RewardModel) == 0
    assert stored_run(database, run_id).state is WorkState.LEASED


@pytest.mark.parametrize("path", ["runs/claim", "runs/events", "runs/finish", "runs/fail"])
def test_the_api_wants_a_token_and_the_protocol(client: TestClient, worker_headers: dict[str, str], path: str) -> None:
    assert client.post(API + path, json={}, headers={"X-Preferably-Protocol": "2"}).status_code == 401
    other = worker_headers | {"X-Preferably-Protocol": "1"}
    assert client.post(API + path, json={}, headers=other).json()["error"]["code"] == "protocol_mismatch"
    assert client.post(API + path, json={}, headers=worker_headers).json()["error"]["code"] == "invalid_input"


@pytest.mark.parametrize(
    ("pairs", "epochs", "expected"),
    [(5, 1, 1), (200, 1, 10), (200, 2, 20), (10_239, 1, 511), (10_240, 1, 512), (1_000_000, 1, 512)],
    ids=str,
)
def test_pairs_per_step_fit_the_data(pairs: int, epochs: int, expected: int) -> None:
    recipe = Recipe(objective=Objective.HELPFULNESS, epochs=epochs)
    assert plan.fitting_pairs_per_step(pairs, recipe) == expected


def test_short_runs_are_remarked_upon() -> None:
    paper = Recipe(objective=Objective.HELPFULNESS)
    # LLAMA2.md, C22: 2,560 pairs make five steps of the paper's size, all of them warm-up.
    assert "only 5 optimiser steps, 5 of them warm-up" in plan.step_note(2560, paper)
    assert "the paper's 512 would make 1" in plan.step_note(200, paper.model_copy(update={"pairs_per_step": 10}))
    assert plan.step_note(100_000, paper) == ""
