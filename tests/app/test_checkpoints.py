"""The registry of chat checkpoints: what workers register, what an admin promotes, what is sampled from then on."""

from collections.abc import Callable
from uuid import uuid4

import pytest
from sqlalchemy import select

from app.batches import service as batches
from app.checkpoints import service as checkpoints
from app.database import Database
from app.models import AuditEvent, Checkpoint, PersonRole, Response, SamplingJob, Worker, now
from app.sampling import leases
from tests.conftest import Browser
from tests.factories import (
    checkpoint_files,
    make_checkpoint,
    make_comparison,
    make_conversation,
    make_open_batch,
    make_person,
    make_ready,
)


@pytest.fixture
def admin(sign_in: Callable[..., Browser]) -> Browser:
    return sign_in(PersonRole.ADMIN)


def register(database: Database, name: str) -> Checkpoint:
    with database.write() as session:
        return checkpoints.register(session, checkpoint_files(name))


def promotions(database: Database) -> list[tuple[str, bool]]:
    with database.read() as session:
        events = session.scalars(
            select(AuditEvent).where(AuditEvent.action == "checkpoint.promoted").order_by(AuditEvent.at)
        ).all()
    return [(event.subject, event.detail["for_open_batch"]) for event in events]


def test_the_page_shows_the_registry(database: Database, admin: Browser) -> None:
    with database.write() as session:
        first = make_checkpoint(session, "chat-1")
        make_comparison(session, make_conversation(session, make_open_batch(session), make_person(session)))
    second = register(database, "chat-2")
    assert admin.post(f"/admin/checkpoints/{second.id}/promote").status_code == 303
    text = admin.get("/admin/checkpoints").text
    assert f'title="{first.digest}"' in text
    assert second.digest[:12] in text
    assert "LlamaForCausalLM" in text
    assert "1\N{NO-BREAK SPACE}kB" in text
    row = text[text.index("<td>chat-2") : text.index("</tr>", text.index("<td>chat-2"))]
    assert "current" in row
    assert "<td>chat-1</td>" in row
    assert "<td>2</td>" in text
    assert " style=" not in text


def test_for_the_next_batch_the_open_one_is_left_alone(database: Database, admin: Browser) -> None:
    with database.write() as session:
        first = make_checkpoint(session, "chat-1")
        batch = make_open_batch(session)
        comparison = make_comparison(session, make_conversation(session, batch, make_person(session)))
    second = register(database, "chat-2")
    assert admin.post(f"/admin/checkpoints/{second.id}/promote").status_code == 303
    with database.read() as session:
        assert {row.checkpoint_id for row in batches.variants(session, batch)} == {first.id}
        drawn = session.scalars(select(Response).where(Response.comparison_id == comparison.id)).all()
        assert {response.checkpoint_id for response in drawn} == {first.id}
        current = checkpoints.current(session)
        assert current is not None
        assert (current.name, current.parent_id) == ("chat-2", first.id)
    assert promotions(database)[-1] == ("chat-2", False)


def test_for_the_open_batch_waiting_pairs_move_and_others_stay(database: Database, admin: Browser) -> None:
    with database.write() as session:
        first = make_checkpoint(session, "chat-1")
        batch = make_open_batch(session)
        ann = make_person(session)
        done, running, waiting = (make_comparison(session, make_conversation(session, batch, ann)) for _ in range(3))
        make_ready(session, done)
        job = session.scalars(select(SamplingJob).where(SamplingJob.comparison_id == running.id)).one()
        worker = Worker(
            name="gpu-1",
            hostname="h",
            engine="pair/1",
            device="cpu",
            dtype="float32",
            max_pairs=8,
            can_sample=True,
            can_train=False,
        )
        session.add(worker)
        session.flush()
        leases.hand_out(job, worker.id, at=now(), lease_s=30)
    second = register(database, "chat-2")
    answer = admin.post(f"/admin/checkpoints/{second.id}/promote", {"for_open_batch": "true"})
    assert answer.status_code == 303
    with database.read() as session:
        by_comparison = {
            comparison.id: set(
                session.scalars(select(Response.checkpoint_id).where(Response.comparison_id == comparison.id))
            )
            for comparison in (done, running, waiting)
        }
        assert {row.checkpoint_id for row in batches.variants(session, batch)} == {second.id}
    assert by_comparison == {done.id: {first.id}, running.id: {first.id}, waiting.id: {second.id}}
    assert promotions(database)[-1] == ("chat-2", True)


def test_the_current_one_can_be_taken_into_the_open_batch_later(database: Database, admin: Browser) -> None:
    with database.write() as session:
        make_checkpoint(session, "chat-1")
        batch = make_open_batch(session)
    second = register(database, "chat-2")
    admin.post(f"/admin/checkpoints/{second.id}/promote")
    with database.read() as session:
        promoted_at = session.get_one(Checkpoint, second.id).promoted_at
    admin.post(f"/admin/checkpoints/{second.id}/promote", {"for_open_batch": "true"})
    with database.read() as session:
        assert {row.checkpoint_id for row in batches.variants(session, batch)} == {second.id}
        assert session.get_one(Checkpoint, second.id).promoted_at == promoted_at
    # Both decisions were a person's, so both stand in the audit trail.
    assert promotions(database)[-2:] == [("chat-2", False), ("chat-2", True)]


def test_going_back_to_an_older_checkpoint_keeps_the_lineage(database: Database, admin: Browser) -> None:
    with database.write() as session:
        first = make_checkpoint(session, "chat-1")
        second = make_checkpoint(session, "chat-2")
    assert admin.post(f"/admin/checkpoints/{first.id}/promote").status_code == 303
    with database.read() as session:
        current = checkpoints.current(session)
        assert current is not None
        assert (current.name, current.parent_id) == ("chat-1", None)
        assert session.get_one(Checkpoint, second.id).parent_id == first.id
    assert admin.get("/admin/checkpoints").status_code == 200


def test_an_unknown_checkpoint_and_other_people_are_refused(admin: Browser, sign_in: Callable[..., Browser]) -> None:
    assert admin.post(f"/admin/checkpoints/{uuid4()}/promote").status_code == 404
    assert admin.post(f"/admin/checkpoints/{uuid4()}/promote", {"for_open_batch": "perhaps"}).status_code == 422
    trainer = sign_in(PersonRole.TRAINER)
    assert trainer.post(f"/admin/checkpoints/{uuid4()}/promote").status_code == 403
