"""Pairs of the newest and the previous checkpoint: pinned when a batch opens, moved by promotions."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.batches import service as batches
from app.batches.reconciler import reconcile
from app.batches.service import BatchSettings, VariantSettings
from app.database import Database
from app.models import (
    BatchVariant,
    Checkpoint,
    Comparison,
    ComparisonState,
    PersonRole,
    Response,
    SamplingJob,
    Worker,
    now,
)
from app.sampling import handing_out, leases
from app.sampling.leases import LeaseTerms
from app.settings import Settings
from contract.sampling import Claim, Finish, Lease, SampledResponse
from contract.vocabulary import FinishReason, Generation
from tests.app.batch_form import fields
from tests.app.generations import BOTH, ask_for_pairs, pair, pairs, pinned, promote
from tests.conftest import Browser
from tests.factories import (
    make_open_batch,
    make_ready,
)

TERMS = LeaseTerms(lease_s=30, max_attempts=3)
STAND_IN = "There is no checkpoint before chat-1"


@pytest.fixture
def admin(sign_in: Callable[..., Browser]) -> Browser:
    return sign_in(PersonRole.ADMIN)


def make_worker(session: Session) -> Worker:
    worker = Worker(
        name="gpu-1", hostname="h", engine="e", device="cpu", dtype="float32", can_sample=True, can_train=False
    )
    session.add(worker)
    session.flush()
    return worker


def test_a_first_week_and_a_second_one(database: Database, settings: Settings, admin: Browser) -> None:
    opens_at = now() - timedelta(hours=1)
    with database.write() as session:
        first = batches.create(
            session, BatchSettings(opens_at=opens_at, closes_at=opens_at + timedelta(days=7), variants=BOTH)
        )
    text = admin.get("/admin/batches/1").text
    assert "This batch samples from" not in text
    assert "There is no checkpoint before" not in text
    text = admin.get("/admin").text
    assert "<td>newest</td><td>the newest one when the batch opens</td>" in text
    assert "<td>previous</td><td>the previous one when the batch opens</td>" in text
    promote(database, "chat-1")
    assert reconcile(database, settings, now()) == 1
    with database.read() as session:
        assert pinned(session, first) == dict.fromkeys(Generation, "chat-1")
    assert STAND_IN in admin.get("/admin/batches/1").text
    assert STAND_IN in admin.get("/admin").text
    ask_for_pairs(database, first, 3)
    with database.read() as session:
        assert set(pairs(session).values()) == {pair("chat-1", "chat-1")}

    promote(database, "chat-2")
    at = opens_at + timedelta(days=8)
    while reconcile(database, settings, at):
        pass
    with database.read() as session:
        second = batches.get(session, 2)
        assert pinned(session, first) == dict.fromkeys(Generation, "chat-1")
        assert pinned(session, second) == {Generation.NEWEST: "chat-2", Generation.PREVIOUS: "chat-1"}
    asked = ask_for_pairs(database, second, 12)
    with database.read() as session:
        found = pairs(session)
        assert {found[comparison_id] for comparison_id in asked} == {pair("chat-2", "chat-1")}
    text = admin.get("/admin/batches/2").text
    assert "newest <strong>chat-2</strong>, previous <strong>chat-1</strong>" in text
    assert "There is no checkpoint before" not in text
    assert "<td>previous</td><td>chat-1</td>" in admin.get("/admin").text


def test_a_batch_that_opened_before_there_was_a_checkpoint(database: Database) -> None:
    promote(database, "chat-1")
    with database.write() as session:
        batch = make_open_batch(session, variants=BOTH)
        session.execute(update(BatchVariant).values(checkpoint_id=None))
    promote(database, "chat-2")
    with database.read() as session:
        assert pinned(session, batch) == {Generation.NEWEST: "chat-2", Generation.PREVIOUS: "chat-1"}


def test_a_promotion_for_the_open_batch_moves_each_waiting_response_to_its_own_checkpoint(database: Database) -> None:
    promote(database, "chat-1")
    promote(database, "chat-2")
    with database.write() as session:
        # With a third variant there are pairs of one generation, too.
        batch = make_open_batch(session, variants=(*BOTH, VariantSettings(1.2, 0.95)))
    waiting = ask_for_pairs(database, batch, 30)
    leased, done = ask_for_pairs(database, batch, 8), ask_for_pairs(database, batch, 8)
    with database.write() as session:
        worker = make_worker(session)
        for job in session.scalars(select(SamplingJob).where(SamplingJob.comparison_id.in_(leased))):
            leases.hand_out(job, worker.id, at=now(), lease_s=30)
        for comparison in session.scalars(select(Comparison).where(Comparison.id.in_(done))):
            make_ready(session, comparison)
    with database.read() as session:
        before = pairs(session)
    names = {"chat-1": "chat-2", "chat-2": "chat-3"}
    promote(database, "chat-3", for_open_batch=True)
    with database.read() as session:
        after = pairs(session)
        variants = batches.variants(session, batch)
        third = session.scalars(select(Checkpoint).where(Checkpoint.name == "chat-3")).one()
        assert {row.checkpoint_id for row in variants if row.generation is Generation.NEWEST} == {third.id}
        assert {row.checkpoint_id for row in variants if row.generation is Generation.PREVIOUS} == {third.parent_id}
    for comparison_id in waiting:
        assert after[comparison_id] == {(generation, names[name]) for generation, name in before[comparison_id]}
    for comparison_id in (*leased, *done):
        assert after[comparison_id] == before[comparison_id]
    # Else the test would say nothing about pairs of both: the chance of that is 1 in 3 to the power of 30.
    assert pair("chat-3", "chat-2") in {after[comparison_id] for comparison_id in waiting}


def test_going_back_to_the_first_checkpoint_leaves_no_previous_one(database: Database, admin: Browser) -> None:
    first = promote(database, "chat-1")
    promote(database, "chat-2")
    with database.write() as session:
        batch = make_open_batch(session, variants=BOTH)
    (waiting,) = ask_for_pairs(database, batch, 1)
    assert admin.post(f"/admin/checkpoints/{first.id}/promote", {"for_open_batch": "true"}).status_code == 303
    with database.read() as session:
        # The one that was left is not sampled from, although it was current until now.
        assert pinned(session, batch) == dict.fromkeys(Generation, "chat-1")
        assert pairs(session)[waiting] == pair("chat-1", "chat-1")
    assert STAND_IN in admin.get("/admin/batches/1").text


def test_the_previous_checkpoint_is_taken_in_and_dropped_in_the_open_batch(database: Database, admin: Browser) -> None:
    promote(database, "chat-1")
    promote(database, "chat-2")
    with database.write() as session:
        batch = make_open_batch(session)
    # Another checkpoint for next week changes nothing here.
    promote(database, "chat-3")
    form = fields(admin.get("/admin/batches/1").text) | {"generation": ["newest", "previous", "newest"]}
    assert admin.post("/admin/batches/1", form).status_code == 303
    with database.read() as session:
        assert pinned(session, batch) == {Generation.NEWEST: "chat-2", Generation.PREVIOUS: "chat-1"}
    waiting, leased = ask_for_pairs(database, batch, 4), ask_for_pairs(database, batch, 1)
    with database.write() as session:
        job = session.scalars(select(SamplingJob).where(SamplingJob.comparison_id.in_(leased))).one()
        leases.hand_out(job, make_worker(session).id, at=now(), lease_s=30)
    # Whatever else is changed, waiting pairs stay as they were drawn.
    assert admin.post("/admin/batches/1", form | {"temperature": ["0.5", "1.5", ""]}).status_code == 303
    with database.read() as session:
        assert set(pairs(session).values()) == {pair("chat-2", "chat-1")}
    assert admin.post("/admin/batches/1", form | {"generation": ["newest"] * 3}).status_code == 303
    with database.read() as session:
        found = pairs(session)
        assert {found[comparison_id] for comparison_id in waiting} == {frozenset({(Generation.NEWEST, "chat-2")})}
        assert found[leased[0]] == pair("chat-2", "chat-1")
        temperatures = set(session.scalars(select(Response.temperature)))
    assert temperatures == {0.7, 1.2}


def test_a_pair_of_two_checkpoints_goes_to_a_worker_that_holds_both(database: Database) -> None:
    first, second = promote(database, "chat-1"), promote(database, "chat-2")
    with database.write() as session:
        batch = make_open_batch(session, variants=BOTH)
        worker_id = make_worker(session).id
    (comparison_id,) = ask_for_pairs(database, batch, 1)
    for digests in ((first.digest,), (second.digest,)):
        with database.write() as session:
            claim = Claim(worker_id=worker_id, want=8, digests=digests, wait_s=0)
            assert handing_out.claim(session, claim, TERMS) == []
    with database.write() as session:
        claim = Claim(worker_id=worker_id, want=8, digests=(second.digest, first.digest), wait_s=0)
        (job,) = handing_out.claim(session, claim, TERMS)
    assert {spec.checkpoint_digest for spec in job.specs} == {first.digest, second.digest}
    sampled = tuple(
        SampledResponse(
            response_id=spec.response_id,
            checkpoint_digest=spec.checkpoint_digest,
            seed=spec.seed,
            text=f"I am {spec.checkpoint_digest[:4]}.",
            token_ids=(7, 2),
            prompt_digest="0" * 64,
            stop_token_ids=(2,),
            prompt_tokens=9,
            completion_tokens=2,
            finish_reason=FinishReason.STOP,
            sum_logprob=-0.5,
            first_token_s=0.1,
            total_s=0.2,
            engine="test/1",
            dtype="float32",
            device="cpu",
        )
        for spec in job.specs
    )
    lease = Lease(job_id=job.job_id, attempt=job.attempt)
    with database.write() as session:
        handing_out.finish(session, Finish(worker_id=worker_id, lease=lease, responses=sampled), TERMS)
    with database.read() as session:
        assert session.get_one(Comparison, comparison_id).state is ComparisonState.READY
        rows = session.scalars(select(Response)).all()
        texts = {row.generation: (row.checkpoint_id, row.text) for row in rows}
    assert texts == {
        Generation.NEWEST: (second.id, f"I am {second.digest[:4]}."),
        Generation.PREVIOUS: (first.id, f"I am {first.digest[:4]}."),
    }
