"""What the admin sees of the queue and its workers, and another try at what has failed."""

import html
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from app.checkpoints import service as checkpoints
from app.database import Database
from app.models import (
    AuditEvent,
    Batch,
    BatchState,
    Comparison,
    ComparisonState,
    Conversation,
    ConversationState,
    PersonRole,
    Response,
    SamplingJob,
    Worker,
    WorkState,
    now,
)
from app.sampling import failures, pages
from tests.app.queue_rows import make_failed, make_waiting, make_worker
from tests.conftest import Browser
from tests.factories import checkpoint_files, make_checkpoint, make_open_batch, make_person

PARTIAL = {"HX-Request": "true", "HX-Request-Type": "partial"}


@pytest.fixture
def admin(sign_in: Callable[..., Browser]) -> Browser:
    return sign_in(PersonRole.ADMIN, "Ada")


def words_of(browser: Browser, path: str = "/admin/workers") -> str:
    """A page's text without its tags, on one line."""
    answer = browser.get(path)
    assert answer.status_code == 200
    return as_words(answer.text)


def as_words(page: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


def row_of(page: str, name: str) -> str:
    """The text of the first row of a table that begins with a name."""
    return as_words(re.findall(rf"<tr[^>]*>\s*<td>{name}</td>.*?</tr>", page, re.DOTALL)[0])


def failed_ids(database: Database, count: int, *, error: str | None = "It broke.") -> list[UUID]:
    """Failed jobs of one open batch, the one that failed last first."""
    with database.write() as session:
        batch, ann = make_open_batch(session), make_person(session)
        return [make_failed(session, batch, ann, error=error, minutes_ago=n + 1)[1].id for n in range(count)]


def state_of(database: Database, job_id: UUID) -> tuple[ComparisonState, WorkState]:
    with database.read() as session:
        job = session.get_one(SamplingJob, job_id)
        return session.get_one(Comparison, job.comparison_id).state, job.state


def retries(database: Database) -> list[tuple[str, int]]:
    """What the audit trail says of retries: the batch, and how many pairs."""
    with database.read() as session:
        events = session.scalars(
            select(AuditEvent).where(AuditEvent.action == "sampling.retried").order_by(AuditEvent.at)
        ).all()
        assert all(event.actor_id is not None for event in events)
    return [(event.subject, event.detail["pairs"]) for event in events]


def test_an_empty_installation(admin: Browser) -> None:
    text = words_of(admin)
    assert "No model worker has registered yet." in text
    assert "No pair is waiting." in text
    assert "None, in batches that are not frozen." in text
    assert "No worker is alive" not in text


def test_every_worker_is_shown_with_what_it_does(database: Database, admin: Browser) -> None:
    with database.write() as session:
        first = make_checkpoint(session, "chat-1")
        second = checkpoints.register(session, checkpoint_files("chat-2"))
        at = now()
        make_worker(
            session,
            "gpu-alive",
            checkpoints={first.digest: "chat-1"},
            available={first.digest: "chat-1", second.digest: "chat-2"},
            staging=second.digest,
            free_pairs=3,
            tokens_per_s=1234.6,
            refused={"broken-folder": "There is no chat template."},
            last_error="The app answered 503.",
            last_error_at=at,
        )
        make_worker(session, "gpu-silent", last_seen_at=at - timedelta(minutes=5), refused={"old": "Not shown."})
        make_worker(session, "gpu-stopped", last_seen_at=at, stopped_at=at)
        # The refusal is its last error, too, and is not shown twice.
        make_worker(session, "gpu-2", refused={"cut-off": "Too short."}, last_error="Too short.", last_error_at=at)
        make_worker(session, "trainer", can_sample=False, can_train=True, max_pairs=0, free_pairs=0)
        make_worker(session, "long-gone", last_seen_at=at - timedelta(days=8))
    page = admin.get("/admin/workers").text
    alive = row_of(page, "gpu-alive")
    assert "alive samples slot-engine/1 cuda:0, bfloat16 chat-1 staging chat-2 3 of 8 1,235 now" in alive
    assert "silent" in row_of(page, "gpu-silent")
    assert "5 min ago" in row_of(page, "gpu-silent")
    assert "stopped" in row_of(page, "gpu-stopped")
    assert "alive trains" in row_of(page, "trainer")
    assert "3 alive" in as_words(page)
    text = as_words(page)
    assert "gpu-alive refuses broken-folder : There is no chat template. now" in text
    assert "gpu-alive The app answered 503." in text
    assert text.count("Too short.") == 1
    assert "Not shown." not in text
    assert "long-gone" not in text
    assert "1 more has not been seen for a week." in text
    assert "long-gone" in words_of(admin, "/admin/workers?gone=true")


def test_pairs_that_nobody_can_sample_are_named(database: Database, admin: Browser) -> None:
    with database.write() as session:
        make_checkpoint(session, "chat-1")
        second = checkpoints.register(session, checkpoint_files("chat-2"))
        first = make_checkpoint(session, "chat-1")
        batch, ann = make_open_batch(session), make_person(session)
        for _ in range(2):
            comparison, job = make_waiting(session, batch, ann)
            job.queued_at = now() - timedelta(minutes=61)
        comparison, _ = make_waiting(session, batch, ann)
        for response in comparison.responses:
            response.checkpoint_id = second.id
        mixed, _ = make_waiting(session, batch, ann)
        mixed.responses[1].checkpoint_id = second.id
        done, job = make_waiting(session, batch, ann)
        job.state, done.state = WorkState.DONE, ComparisonState.READY
    text = words_of(admin)
    assert "No worker is alive, so nothing is sampled." in text
    assert "2 pairs wait for chat-1, since 1 h 1 min. No live worker serves or could serve it." in text
    assert "1 pair waits for chat-2," in text
    assert "1 pair waits for chat-1 and chat-2, since" in text
    assert "The oldest waiting pair has waited 1 h 1 min" in text
    with database.write() as session:
        make_worker(session, "gpu-1", checkpoints={first.digest: "chat-1"}, available={first.digest: "chat-1"})
        both = {first.digest: "chat-1", second.digest: "chat-2"}
        make_worker(session, "gpu-2", available=both)
        make_worker(session, "gpu-3", available=both, refused={second.digest: "It does not fit."})
        make_worker(session, "gpu-gone", checkpoints=both, last_seen_at=now() - timedelta(hours=1))
        make_worker(session, "trainer", checkpoints=both, can_sample=False, can_train=True)
    text = words_of(admin)
    assert "No worker is alive" not in text
    assert "pairs wait for chat-1, since" not in text
    assert re.search(r"waits for chat-2, since \d+ s\. No live worker serves it yet; gpu-2 could\.", text)
    assert re.search(r"for chat-1 and chat-2, since \d+ s\. No live worker serves both yet; gpu-2 could\.", text)
    assert "Worker gpu-3 refuses chat-2: It does not fit." in text
    with database.write() as session:
        serving = session.scalars(select(Worker).where(Worker.name == "gpu-2")).one()
        serving.checkpoints = both
    assert "No live worker" not in words_of(admin)


def test_the_page_keeps_itself_fresh(database: Database, admin: Browser) -> None:
    failed_ids(database, 30)
    whole = admin.get("/admin/workers?page=2&gone=true").text
    assert 'hx-get="/admin/workers?page=2&amp;gone=true" hx-trigger="every 5s" hx-swap="outerMorph"' in whole
    part = admin.get("/admin/workers?page=2&gone=true", headers=PARTIAL).text
    assert part.strip().startswith('<section id="workers"')
    assert "<html" not in part
    assert 'name="csrf_token"' in part


def test_failures_are_listed_newest_first_with_all_that_matters(database: Database, admin: Browser) -> None:
    with database.write() as session:
        batch, ann = make_open_batch(session), make_person(session)
        worker = make_worker(session, "gpu-7")
        _, old = make_failed(session, batch, ann, error="The prompt is too long.", minutes_ago=60)
        old.worker_id, old.attempt = worker.id, 2
        make_failed(session, batch, ann, error=None, minutes_ago=5)
        # Neither failed nor equal.
        make_waiting(session, batch, ann)
    text = words_of(admin)
    assert "2 in batches that are not frozen" in text
    assert text.index("The two responses came out the same.") < text.index("The prompt is too long.")
    assert "The prompt is too long. 2 gpu-7 chat-1 Batch 1 Try again" in text
    assert "Try all 2 again" in text
    assert 'href="/admin/batches/1"' in admin.get("/admin/workers").text


def test_failures_are_paged_and_counted(database: Database, admin: Browser) -> None:
    failed_ids(database, 26)
    text = words_of(admin)
    assert "26 in batches that are not frozen" in text
    assert "Page 1 of 2" in text
    assert admin.get("/admin/workers").text.count("<tr id=") == 25
    assert admin.get("/admin/workers?page=2").text.count("<tr id=") == 1
    # A page that is no more is the last one.
    assert "Page 2 of 2" in words_of(admin, "/admin/workers?page=900")
    assert admin.get("/admin/workers?page=0").status_code == 422


def test_one_is_tried_again(database: Database, admin: Browser) -> None:
    job_id, other = failed_ids(database, 2)
    with database.read() as session:
        before = session.get_one(SamplingJob, job_id)
        seeds = set(session.scalars(select(Response.seed).where(Response.comparison_id == before.comparison_id)))
    answer = admin.post(f"/admin/workers/failed/{job_id}/retry", {"page": "1"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/admin/workers?retried=1")
    assert state_of(database, job_id) == (ComparisonState.SAMPLING, WorkState.QUEUED)
    assert state_of(database, other) == (ComparisonState.FAILED, WorkState.FAILED)
    with database.read() as session:
        job = session.get_one(SamplingJob, job_id)
        assert (job.failures, job.error, job.finished_at, job.attempt) == (0, None, None, before.attempt)
        again = set(session.scalars(select(Response.seed).where(Response.comparison_id == job.comparison_id)))
    assert not seeds & again
    assert retries(database) == [("batch 1", 1)]
    assert "1 pair is sampled again." in words_of(admin, answer.headers["location"])
    # The second press of a double click.
    assert admin.post(f"/admin/workers/failed/{job_id}/retry").status_code == 303
    assert retries(database) == [("batch 1", 1)]


def test_it_leads_back_to_where_the_list_was(database: Database, admin: Browser) -> None:
    job_id = failed_ids(database, 26)[-1]
    answer = admin.post(f"/admin/workers/failed/{job_id}/retry", {"page": "2"})
    assert answer.headers["location"] == "/admin/workers?page=2&retried=1"
    assert admin.get(answer.headers["location"]).status_code == 200


@pytest.mark.parametrize("state", [ComparisonState.READY, ComparisonState.ANNOTATED, ComparisonState.SKIPPED])
def test_what_has_not_failed_is_not_tried_again(database: Database, admin: Browser, state: ComparisonState) -> None:
    (job_id,) = failed_ids(database, 1)
    with database.write() as session:
        session.get_one(Comparison, session.get_one(SamplingJob, job_id).comparison_id).state = state
    answer = admin.post(f"/admin/workers/failed/{job_id}/retry")
    assert answer.status_code == 409
    assert f"This pair is {state} now." in answer.text
    assert state_of(database, job_id) == (state, WorkState.FAILED)
    assert retries(database) == []


@pytest.mark.parametrize("state", [BatchState.CLOSING, BatchState.IN_REVIEW, BatchState.FROZEN])
def test_a_pair_of_a_closed_batch_is_not_tried_again(database: Database, admin: Browser, state: BatchState) -> None:
    (job_id,) = failed_ids(database, 1)
    with database.write() as session:
        session.scalars(select(Batch)).one().state = state
    answer = admin.post(f"/admin/workers/failed/{job_id}/retry")
    assert answer.status_code == 409
    assert "Batch 1 has closed: nobody would judge this pair" in answer.text
    assert state_of(database, job_id) == (ComparisonState.FAILED, WorkState.FAILED)
    text = words_of(admin)
    assert ("its batch has closed" in text) is (state is not BatchState.FROZEN)
    assert "Try all" not in text
    assert admin.post("/admin/workers/failed/retry").headers["location"] == "/admin/workers?retried=0"
    assert retries(database) == []


def test_a_pair_of_a_finished_conversation_is_not_tried_again(database: Database, admin: Browser) -> None:
    job_id, other = failed_ids(database, 2)
    with database.write() as session:
        comparison = session.get_one(Comparison, session.get_one(SamplingJob, job_id).comparison_id)
        session.get_one(Conversation, comparison.conversation_id).state = ConversationState.FINISHED
    answer = admin.post(f"/admin/workers/failed/{job_id}/retry")
    assert answer.status_code == 409
    assert "The conversation of this pair is finished" in answer.text
    assert "its conversation is finished" in words_of(admin)
    assert admin.post("/admin/workers/failed/retry").headers["location"] == "/admin/workers?retried=1"
    assert state_of(database, job_id)[0] is ComparisonState.FAILED
    assert state_of(database, other)[0] is ComparisonState.SAMPLING


def test_all_are_tried_again_in_short_transactions(
    database: Database, admin: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "_AT_ONCE", 2)
    jobs = failed_ids(database, 5)
    with database.write() as session:
        batch, ann = session.scalars(select(Batch)).one(), make_person(session)
        jobs.append(make_failed(session, batch, ann, error=None)[1].id)
        # It failed after the button was pressed, and may go on failing for ever.
        _, late = make_failed(session, batch, ann, minutes_ago=-10)
        late_id = late.id
    answer = admin.post("/admin/workers/failed/retry")
    assert (answer.status_code, answer.headers["location"]) == (303, "/admin/workers?retried=6")
    assert {state_of(database, job_id) for job_id in jobs} == {(ComparisonState.SAMPLING, WorkState.QUEUED)}
    assert state_of(database, late_id)[0] is ComparisonState.FAILED
    assert retries(database) == [("batch 1", 2)] * 3
    assert "6 pairs are sampled again." in words_of(admin, answer.headers["location"])


def test_a_batch_that_closes_meanwhile_is_waited_for(database: Database, admin: Browser) -> None:
    (job_id,) = failed_ids(database, 1)
    with ThreadPoolExecutor() as pool:
        with database.write() as session:
            batch = session.scalars(select(Batch).with_for_update()).one()
            trying = pool.submit(admin.post, f"/admin/workers/failed/{job_id}/retry")
            time.sleep(0.3)
            assert not trying.done()
            batch.state = BatchState.IN_REVIEW
        assert trying.result(30).status_code == 409
    assert state_of(database, job_id) == (ComparisonState.FAILED, WorkState.FAILED)


def test_an_unknown_job_and_other_people_are_refused(
    database: Database, admin: Browser, sign_in: Callable[..., Browser]
) -> None:
    (job_id,) = failed_ids(database, 1)
    assert admin.post(f"/admin/workers/failed/{uuid4()}/retry").status_code == 404
    for role in (PersonRole.TRAINER, PersonRole.ANNOTATOR, PersonRole.REVIEWER):
        other = sign_in(role)
        assert other.get("/admin/workers").status_code == 403
        assert other.post(f"/admin/workers/failed/{job_id}/retry").status_code == 403
        assert other.post("/admin/workers/failed/retry").status_code == 403
    assert state_of(database, job_id)[0] is ComparisonState.FAILED


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (3599, "59 min 59 s"),
        (3600, "1 h"),
        (3605, "1 h"),
        (90_000, "1 d 1 h"),
        (86_400 * 3 + 60, "3 d"),
    ],
)
def test_durations_read_well(seconds: float, words: str) -> None:
    assert pages.duration(seconds) == words


def test_checkpoints_say_which_workers_serve_stage_and_refuse_them(database: Database, admin: Browser) -> None:
    with database.write() as session:
        first = make_checkpoint(session, "chat-1")
        second = make_checkpoint(session, "chat-2")
        third = checkpoints.register(session, checkpoint_files("chat-3"))
        old, both = {first.digest: "chat-1"}, {first.digest: "chat-1", second.digest: "chat-2"}
        make_worker(session, "gpu-1", checkpoints=old, available=both, staging=second.digest)
        make_worker(
            session,
            "gpu-2",
            checkpoints=old,
            available=both | {third.digest: "chat-3"},
            refused={third.digest: "It does not fit.", "week-13": "model.safetensors is missing."},
        )
        make_worker(session, "gpu-gone", checkpoints=both, stopped_at=now(), refused={"gone": "Not shown."})
    page = admin.get("/admin/checkpoints").text
    rows = {
        name: as_words(re.findall(rf"<tr[^>]*>\s*<td>{name}.*?</tr>", page, re.DOTALL)[0])
        for name in ("chat-1", "chat-2", "chat-3")
    }
    assert "gpu-1 serves it gpu-2 serves it" in rows["chat-1"]
    assert "gpu-1 is staging it gpu-2 could serve it" in rows["chat-2"]
    assert "gpu-2 refuses it It does not fit." in rows["chat-3"]
    text = as_words(page)
    assert "gpu-gone" not in text
    assert "week-13 gpu-2 model.safetensors is missing." in text[text.index("Refused folders") :]
    assert "No live worker serves chat-2, which is current." in text
    with database.write() as session:
        worker = session.scalars(select(Worker).where(Worker.name == "gpu-1")).one()
        worker.checkpoints, worker.staging = both, None
    part = admin.get("/admin/checkpoints", headers=PARTIAL).text
    assert part.strip().startswith('<section id="registry"')
    assert "gpu-1 serves it gpu-2 could serve it" in as_words(part)
    assert "which is current" not in as_words(part)
