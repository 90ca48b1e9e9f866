"""The worker API on both databases: hand-out, fencing, lost workers, refused answers."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select, update

from app.accounts import service as accounts
from app.checkpoints import service as checkpoints
from app.database import Database
from app.models import Comparison, ComparisonState, Response, SamplingJob, TokenScope, Worker, WorkState, now
from app.sampling import handing_out
from app.sampling.leases import LeaseTerms
from contract.sampling import Claim, PairJob
from contract.vocabulary import Side
from tests import factories

_TERMS = LeaseTerms(lease_s=30, max_attempts=3)


class FakeWorker:
    """A worker as the app sees it: JSON over HTTP, nothing else."""

    def __init__(self, client: TestClient, headers: dict[str, str], name: str = "w1") -> None:
        self.client = client
        self.headers = headers
        self.digest = factories.checkpoint_files().digest
        answer = self.call(
            "register",
            name=name,
            hostname="h",
            engine="test/1",
            versions={},
            device="cpu",
            dtype="float32",
            max_pairs=8,
            can_sample=True,
            can_train=False,
            checkpoints=[factories.checkpoint_files().model_dump()],
        )
        self.id = answer.json()["worker_id"]

    def call(self, path: str, **body: Any) -> Any:
        """Send a message of the protocol."""
        return self.client.post(f"/api/worker/v1/{path}", json=body, headers=self.headers)

    def claim(self, want: int = 1, digests: list[str] | None = None) -> list[PairJob]:
        """Ask for pairs, without waiting."""
        digests = [self.digest] if digests is None else digests
        answer = self.call("claim", worker_id=self.id, want=want, digests=digests, wait_s=0)
        assert answer.status_code == 200, answer.text
        return [PairJob.model_validate(job) for job in answer.json()["jobs"]]

    def finish(self, job: PairJob, texts: tuple[str, str] = ("yes", "no"), **changes: Any) -> Any:
        """Answer a job; ``changes`` spoil the responses."""
        responses = [
            {
                "response_id": str(spec.response_id),
                "checkpoint_digest": spec.checkpoint_digest,
                "seed": spec.seed,
                "text": text,
                "token_ids": [7, 2],
                "prompt_digest": "0" * 64,
                "stop_token_ids": [2],
                "prompt_tokens": 9,
                "completion_tokens": 2,
                "finish_reason": "stop",
                "sum_logprob": -0.5,
                "first_token_s": 0.1,
                "total_s": 0.2,
                "engine": "test/1",
                "dtype": "float32",
                "device": "cpu",
            }
            | changes
            for spec, text in zip(job.specs, texts, strict=True)
        ]
        lease = {"job_id": str(job.job_id), "attempt": job.attempt}
        return self.call("finish", worker_id=self.id, lease=lease, responses=responses)


@pytest.fixture
def worker(client: TestClient, worker_headers: dict[str, str]) -> FakeWorker:
    return FakeWorker(client, worker_headers)


@pytest.fixture
def comparison_id(database: Database) -> UUID:
    """One comparison that waits for its responses."""
    return _queue(database, 1)[0]


def _queue(database: Database, count: int) -> list[UUID]:
    with database.write() as session:
        factories.make_checkpoint(session)
        batch = factories.make_open_batch(session)
        ann = factories.make_person(session)
        ids = []
        for number in range(count):
            conversation = factories.make_conversation(session, batch, ann)
            ids.append(factories.make_comparison(session, conversation, prompt=f"Prompt {number}").id)
        return ids


def _comparison(database: Database, comparison_id: UUID) -> tuple[Comparison, list[Response], SamplingJob]:
    with database.read() as session:
        comparison = session.get_one(Comparison, comparison_id)
        responses = list(
            session.scalars(select(Response).where(Response.comparison_id == comparison_id).order_by(Response.side))
        )
        job = session.scalars(select(SamplingJob).where(SamplingJob.comparison_id == comparison_id)).one()
        return comparison, responses, job


def _expire_leases(database: Database) -> None:
    with database.write() as session:
        session.execute(
            update(SamplingJob)
            .where(SamplingJob.state == WorkState.LEASED)
            .values(lease_until=now() - timedelta(seconds=1))
        )


def test_a_pair_is_handed_out_drawn_and_offered(database: Database, worker: FakeWorker, comparison_id: UUID) -> None:
    (job,) = worker.claim(want=5)
    assert [message.content for message in job.messages] == ["Prompt 0"]
    assert {spec.temperature for spec in job.specs} == {0.7, 1.2}
    assert worker.claim() == []
    assert worker.finish(job).status_code == 204
    comparison, responses, row = _comparison(database, comparison_id)
    assert comparison.state is ComparisonState.READY
    assert row.state is WorkState.DONE
    assert {response.text for response in responses} == {"yes", "no"}
    assert all(response.worker_id == UUID(worker.id) and response.attempt == 1 for response in responses)


def test_repeating_the_answer_changes_nothing(database: Database, worker: FakeWorker, comparison_id: UUID) -> None:
    (job,) = worker.claim()
    assert worker.finish(job).status_code == 204
    assert worker.finish(job, texts=("other", "text")).status_code == 204
    assert {response.text for response in _comparison(database, comparison_id)[1]} == {"yes", "no"}


def test_a_lost_workers_job_goes_on_and_its_late_answer_is_refused(
    database: Database, worker: FakeWorker, comparison_id: UUID
) -> None:
    (first,) = worker.claim()
    _expire_leases(database)
    other = FakeWorker(worker.client, worker.headers, name="w2")
    (second,) = other.claim()
    assert (second.job_id, second.attempt) == (first.job_id, 2)
    late = worker.finish(first, texts=("late", "lost"))
    assert late.status_code == 409
    assert late.json()["error"]["code"] == "lease_lost"
    assert other.finish(second).status_code == 204
    assert worker.finish(first).status_code == 409
    assert {response.text for response in _comparison(database, comparison_id)[1]} == {"yes", "no"}


@pytest.mark.usefixtures("comparison_id")
def test_a_restarted_worker_gives_back_what_it_held(worker: FakeWorker) -> None:
    (first,) = worker.claim()
    again = FakeWorker(worker.client, worker.headers)
    assert again.id == worker.id
    (second,) = again.claim()
    assert second.attempt == first.attempt + 1
    assert worker.finish(first).status_code == 409


def test_after_three_lost_workers_the_job_fails_with_a_reason(
    database: Database, worker: FakeWorker, comparison_id: UUID
) -> None:
    for _ in range(3):
        assert len(worker.claim()) == 1
        _expire_leases(database)
    assert worker.claim() == []
    comparison, _, job = _comparison(database, comparison_id)
    assert comparison.state is ComparisonState.FAILED
    assert job.state is WorkState.FAILED
    assert job.error is not None
    assert "3 times" in job.error


@pytest.mark.usefixtures("comparison_id")
def test_a_job_waits_for_a_worker_with_its_checkpoint(worker: FakeWorker) -> None:
    assert worker.claim(digests=["0" * 64]) == []
    (job,) = worker.claim()
    wrong = worker.finish(job, checkpoint_digest="0" * 64)
    assert wrong.status_code == 422
    assert "checkpoint" in wrong.json()["error"]["message"]


def test_foreign_or_missing_responses_are_refused(database: Database, worker: FakeWorker, comparison_id: UUID) -> None:
    (job,) = worker.claim()
    foreign = str(UUID(int=1))
    assert worker.finish(job, response_id=foreign).status_code == 422
    assert _comparison(database, comparison_id)[0].state is ComparisonState.SAMPLING


@pytest.mark.usefixtures("comparison_id")
def test_events_keep_the_lease_and_store_each_piece_once(database: Database, worker: FakeWorker) -> None:
    (job,) = worker.claim()
    lease = {"job_id": str(job.job_id), "attempt": job.attempt}

    def send(from_index: int, text: str) -> Any:
        token = lease | {"response_id": str(job.specs[0].response_id), "from_index": from_index, "text": text}
        return worker.call("events", worker_id=worker.id, leases=[lease], tokens=[token]).json()

    assert send(0, "Hel")["drop"] == []
    send(3, "lo")
    send(3, "lo")
    with database.read() as session:
        assert session.get_one(Response, job.specs[0].response_id).text == "Hello"
    stale = worker.call("events", worker_id=worker.id, leases=[lease | {"attempt": 9}])
    assert stale.json()["drop"] == [str(job.job_id)]


def test_a_failed_job_is_tried_again_or_ends(database: Database, worker: FakeWorker, comparison_id: UUID) -> None:
    (job,) = worker.claim()
    lease = {"job_id": str(job.job_id), "attempt": job.attempt}
    worker.call("fail", worker_id=worker.id, lease=lease, reason="out of memory", is_retryable=True)
    (job,) = worker.claim()
    lease = {"job_id": str(job.job_id), "attempt": job.attempt}
    worker.call("fail", worker_id=worker.id, lease=lease, reason="the prompt is too long", is_retryable=False)
    assert worker.claim() == []
    comparison, _, row = _comparison(database, comparison_id)
    assert (comparison.state, row.error) == (ComparisonState.FAILED, "the prompt is too long")


def test_released_jobs_are_free_at_once_without_counting_as_failures(
    database: Database, worker: FakeWorker, comparison_id: UUID
) -> None:
    for attempt in range(1, 6):
        (job,) = worker.claim()
        assert job.attempt == attempt
        lease = {"job_id": str(job.job_id), "attempt": job.attempt}
        assert worker.call("release", worker_id=worker.id, leases=[lease]).status_code == 204
    assert _comparison(database, comparison_id)[2].failures == 0


def test_equal_responses_are_never_offered(database: Database, worker: FakeWorker, comparison_id: UUID) -> None:
    seeds = set()
    for _ in range(3):
        assert _comparison(database, comparison_id)[0].state is ComparisonState.SAMPLING
        (job,) = worker.claim()
        seeds |= {spec.seed for spec in job.specs}
        worker.finish(job, texts=("same", "same"))
    comparison, _, row = _comparison(database, comparison_id)
    assert comparison.state is ComparisonState.EQUAL_RESPONSES
    assert (row.state, row.error) == (WorkState.DONE, "The two responses came out the same.")
    assert len(seeds) == 6
    assert worker.claim() == []


def test_a_pair_that_was_equal_once_is_drawn_again(database: Database, worker: FakeWorker, comparison_id: UUID) -> None:
    (first,) = worker.claim()
    worker.finish(first, texts=("same", "same"))
    (second,) = worker.claim()
    assert (second.job_id, second.attempt) == (first.job_id, 2)
    assert {spec.seed for spec in second.specs}.isdisjoint({spec.seed for spec in first.specs})
    worker.finish(second, texts=("one", "another"))
    assert _comparison(database, comparison_id)[0].state is ComparisonState.READY


def test_tokens_and_protocol_versions_are_checked(
    client: TestClient, database: Database, worker_headers: dict[str, str], worker: FakeWorker
) -> None:
    with database.write() as session:
        other = accounts.create_api_token(session, "reader", TokenScope.DATASETS)
    claim = {"worker_id": worker.id, "want": 1, "digests": [], "wait_s": 0}

    def status(headers: dict[str, str]) -> int:
        return client.post("/api/worker/v1/claim", json=claim, headers=headers).status_code

    assert status(worker_headers) == 200
    assert status(worker_headers | {"Authorization": "Bearer wrong"}) == 401
    assert status({"X-Preferably-Protocol": "2"}) == 401
    assert status(worker_headers | {"Authorization": f"Bearer {other}"}) == 403
    assert status(worker_headers | {"X-Preferably-Protocol": "1"}) == 426
    assert status({"Authorization": worker_headers["Authorization"]}) == 426
    unknown = client.post(
        "/api/worker/v1/events", json={"worker_id": str(UUID(int=5)), "leases": []}, headers=worker_headers
    )
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "unknown_worker")


def test_concurrent_claims_never_hand_out_a_job_twice(database: Database, worker: FakeWorker) -> None:
    _queue(database, 40)
    with database.read() as session:
        worker_id = session.scalars(select(Worker.id)).one()

    def take(_: int) -> list[UUID]:
        claim = Claim(worker_id=worker_id, want=3, digests=(worker.digest,), wait_s=0)
        with database.write() as session:
            return [job.job_id for job in handing_out.claim(session, claim, _TERMS)]

    with ThreadPoolExecutor(8) as pool:
        taken = [job_id for jobs in pool.map(take, range(20)) for job_id in jobs]
    assert len(taken) == len(set(taken)) == 40
    with database.read() as session:
        assert session.scalar(select(func.max(SamplingJob.attempt))) == 1


def test_sides_are_random_and_do_not_follow_the_variants(database: Database) -> None:
    ids = _queue(database, 200)
    with database.read() as session:
        cool_on_a = session.scalar(
            select(func.count())
            .select_from(Response)
            .where(Response.comparison_id.in_(ids), Response.side == Side.A, Response.temperature == 0.7)
        )
    # A fair coin leaves this range less than once in ten million runs.
    assert cool_on_a is not None
    assert 63 < cool_on_a < 137


def test_workers_that_find_a_checkpoint_together_register_it_once(database: Database) -> None:
    """On SQLite the second waits for its turn; on PostgreSQL it finds the row of the first in its way."""
    files = factories.checkpoint_files("shared")
    both_began = Barrier(2)

    def register(_: int) -> UUID:
        with database.write() as session:
            if database.writing.dialect.name == "postgresql":
                both_began.wait(10)
            checkpoint = checkpoints.register(session, files)
            # Long enough for the other one to look for it in vain.
            time.sleep(0.3)
            return checkpoint.id

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(register, range(2))
    assert first == second
