"""The worker's loop in threads of this process, over real HTTP, with a sampler that needs no model."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from contract.checkpoint_files import CheckpointFiles
from contract.sampling import Claim, Events, Fail, Finish, Lease, PairJob, Register, Release
from model_worker import backoff
from model_worker.client import AppClient, ProtocolMismatchError, RequestRefusedError, UnauthorizedError
from model_worker.library import Library
from model_worker.metrics import JobEnd, Metrics
from model_worker.pace import Pace
from model_worker.registration import Registration
from model_worker.sampling.interface import Sink, lease_of
from model_worker.sampling.lorem import LoremSampler, lorem_checkpoint
from model_worker.stopping import Stopping, WorkerStoppedError
from model_worker.worker import Worker
from tests.model_worker.app_server import TOKEN, AppServer, serving
from tests.model_worker.folders import make_folder
from tests.model_worker.jobs import make_job, make_spec

DIGEST = lorem_checkpoint().digest
QUICK = Pace(claim_wait_s=0.1, events_s=0.05, drain_s=5.0, full_s=0.01)


def pair_job(seed: int = 1, **changes: Any) -> PairJob:
    return make_job(*(make_spec(DIGEST, seed=seed + place, max_new_tokens=20) for place in (0, 1000)), **changes)


@dataclass
class Running:
    """A worker in a thread."""

    sampler: LoremSampler
    stopping: threading.Event
    thread: threading.Thread
    errors: list[Exception]
    metrics: Metrics = field(default_factory=Metrics)

    def stop(self) -> None:
        """Ask the worker to stop, and wait until it has."""
        self.stopping.set()
        self.thread.join(15)
        assert not self.thread.is_alive()


@contextmanager
def working(
    url: str,
    *,
    token: str = TOKEN,
    word_s: float = 0.002,
    max_pairs: int = 4,
    pace: Pace = QUICK,
    given: dict[Path, CheckpointFiles] | None = None,
) -> Iterator[Running]:
    """A worker that serves the first of the given folders, or the made-up checkpoint."""
    sampler = LoremSampler(max_pairs=max_pairs, word_s=word_s, checkpoints=tuple((given or {}).values())[:1])
    event, errors = threading.Event(), []
    stopping = Stopping(event)

    def identity() -> Register:
        return Register(
            name="test", hostname="here", engine="lorem/1", versions={}, device="none", dtype="none",
            can_sample=True, can_train=False, max_pairs=8, checkpoints=sampler.facts().checkpoints,
        )  # fmt: skip

    def work() -> None:
        try:
            with AppClient(url, token) as client:
                registration = Registration(client, identity)
                if registration.wait_until_registered(event):
                    library = Library(None, given or {}, running.metrics)
                    Worker(client, registration, sampler, library, running.metrics, max_checkpoints=1, pace=pace).run(
                        stopping
                    )
        except Exception as error:  # noqa: BLE001 - the test looks at it
            errors.append(error)
        if stopping.error is not None:
            errors.append(stopping.error)

    running = Running(sampler, event, threading.Thread(target=work), errors)
    running.thread.start()
    try:
        yield running
    finally:
        running.stop()
        sampler.close(0.0)


@pytest.fixture(autouse=True)
def short_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff.Backoff.__init__, "__defaults__", (0.02, 0.1))


def finished(app: AppServer) -> Callable[[], list[Finish]]:
    return lambda: app.sent(Finish)


def test_pairs_are_claimed_streamed_and_delivered(app_server: AppServer) -> None:
    jobs = [pair_job(seed) for seed in range(6)]
    app_server.jobs = list(jobs)
    with working(app_server.url, word_s=0.01):
        app_server.wait_for(lambda: len(app_server.sent(Finish)) == 6)
    assert {finish.lease for finish in app_server.sent(Finish)} == {lease_of(job) for job in jobs}
    assert [register.name for register in app_server.sent(Register)] == ["test"]
    assert app_server.sent(Claim)[0].want == 4
    assert app_server.sent(Claim)[0].digests == (DIGEST,)
    texts: dict[Any, str] = {}
    for events in app_server.sent(Events):
        for token in events.tokens:
            assert token.from_index == len(texts.get(token.response_id, ""))
            texts[token.response_id] = texts.get(token.response_id, "") + token.text
    responses = {response.response_id: response for finish in app_server.sent(Finish) for response in finish.responses}
    assert len(texts) == 12
    assert all(responses[response_id].text.startswith(text) for response_id, text in texts.items())


def test_leases_are_kept_alive_without_new_text(app_server: AppServer) -> None:
    app_server.lease_s = 0.3
    app_server.jobs = [pair_job()]
    with working(app_server.url, word_s=0.8):
        app_server.wait_for(lambda: sum(not events.tokens for events in app_server.with_leases()) >= 4)
        job_id = app_server.with_leases()[0].leases[0].job_id
        app_server.dropped.add(job_id)


def test_a_dropped_job_is_stopped_and_its_place_taken(app_server: AppServer) -> None:
    first, second = pair_job(1), pair_job(2)
    app_server.jobs = [first]
    app_server.dropped.add(first.job_id)
    with working(app_server.url, word_s=0.1, max_pairs=1):
        app_server.wait_for(app_server.with_leases)
        app_server.jobs = [second]
        started = time.monotonic()
        app_server.wait_for(lambda: any(lease_of(second) in events.leases for events in app_server.with_leases()))
        assert time.monotonic() - started < 1
        app_server.dropped.add(second.job_id)
    assert not app_server.sent(Finish)
    assert not app_server.sent(Fail)


def test_a_response_that_comes_too_late_is_dropped(app_server: AppServer) -> None:
    lost, kept = pair_job(1), pair_job(2)
    app_server.lost.add(lease_of(lost))
    app_server.jobs = [lost, kept]
    with working(app_server.url):
        app_server.wait_for(lambda: app_server.calls.count("finish") == 2)
        time.sleep(0.3)
    assert [finish.lease for finish in app_server.sent(Finish)] == [lease_of(kept)]
    assert app_server.calls.count("finish") == 2


def test_a_new_attempt_of_a_live_job_replaces_the_old_one(app_server: AppServer) -> None:
    old = pair_job()
    new = old.model_copy(update={"attempt": 2})
    app_server.jobs = [old]
    with working(app_server.url, word_s=0.03):
        app_server.wait_for(app_server.with_leases)
        app_server.jobs = [new]
        app_server.wait_for(finished(app_server))
    assert [finish.lease for finish in app_server.sent(Finish)] == [lease_of(new)]


def test_failures_of_the_app_lose_nothing(app_server: AppServer) -> None:
    failure = (500, "internal", "oh dear")
    for path in ("register", "claim", "events", "finish"):
        app_server.failures[path] = [failure] * 4
    jobs = [pair_job(1), pair_job(2)]
    app_server.jobs = list(jobs)
    with working(app_server.url, word_s=0.02):
        app_server.wait_for(lambda: len(app_server.sent(Finish)) == 2)
    assert {finish.lease for finish in app_server.sent(Finish)} == {lease_of(job) for job in jobs}
    assert not any(app_server.failures.values())


def test_an_app_that_goes_away_gets_its_responses_later() -> None:
    app = AppServer()
    with serving(app):
        port = int(app.url.rsplit(":", 1)[1])
        app.jobs = [pair_job()]
        app.failures["finish"] = [(503, "away", "going down")] * 2
    # Nobody listens now: the worker starts before its app does.
    with working(app.url, word_s=0.002) as worker:
        time.sleep(0.2)
        with serving(app, port):
            app.wait_for(lambda: app.calls.count("finish") >= 1)
        time.sleep(0.3)
        assert worker.thread.is_alive()
        with serving(app, port):
            app.wait_for(finished(app))
        assert len(app.sent(Finish)) == 1


def test_a_forgotten_worker_registers_again(app_server: AppServer) -> None:
    with working(app_server.url):
        app_server.wait_for(lambda: app_server.sent(Claim))
        with app_server.changed:
            app_server.worker_id = uuid4()
            app_server.jobs = [pair_job()]
        app_server.wait_for(finished(app_server))
    assert len(app_server.sent(Register)) == 2
    assert app_server.sent(Finish)[0].worker_id == app_server.worker_id


def test_a_job_that_fails_is_given_back_and_the_worker_goes_on(app_server: AppServer) -> None:
    broken = pair_job().model_copy(update={"messages": ()})
    good = pair_job()
    app_server.jobs = [broken, good]
    with working(app_server.url) as worker:
        app_server.wait_for(finished(app_server))
        app_server.wait_for(lambda: app_server.sent(Fail))
        app_server.wait_for(lambda: any(status.last_error for status in app_server.statuses()))
    fail = app_server.sent(Fail)[0]
    assert fail.lease == lease_of(broken)
    assert not fail.is_retryable
    assert fail.reason == "The conversation has no message."
    assert app_server.statuses()[-1].last_error == fail.reason
    assert {end: worker.metrics.jobs(end) for end in (JobEnd.DONE, JobEnd.FAILED)} == {JobEnd.DONE: 1, JobEnd.FAILED: 1}


def test_a_job_for_a_checkpoint_that_is_not_served_goes_back_without_a_failure(app_server: AppServer) -> None:
    unknown = make_job(make_spec("f" * 64), make_spec("f" * 64, seed=2))
    app_server.is_careless = True
    good = pair_job()
    app_server.jobs = [unknown, good]
    with working(app_server.url) as worker:
        app_server.wait_for(finished(app_server))
        app_server.wait_for(lambda: app_server.sent(Release))
        assert worker.thread.is_alive()
    first = app_server.sent(Release)[0]
    assert (first.leases, first.is_stopping) == ((lease_of(unknown),), False)
    assert not app_server.sent(Fail)
    assert worker.metrics.jobs(JobEnd.RETURNED) == 1


def test_returned_jobs_are_not_claimed_again_and_again(app_server: AppServer) -> None:
    """An app that has nothing else hands the same job out each time: the worker asks ever less often."""
    unknown = make_job(make_spec("f" * 64), make_spec("f" * 64, seed=2))
    app_server.is_careless = True
    with working(app_server.url, pace=Pace(claim_wait_s=0.1, events_s=0.05)):
        for attempt in range(1, 5):
            with app_server.changed:
                app_server.jobs = [unknown.model_copy(update={"attempt": attempt})]
            app_server.wait_for(lambda: len(app_server.sent(Release)) == attempt)  # noqa: B023 - used at once
        claims = app_server.calls.count("claim")
    assert claims < 20


def test_responses_that_the_app_refuses_fail_the_job(app_server: AppServer) -> None:
    app_server.failures["finish"] = [(422, "invalid_input", "text: too long")]
    app_server.jobs = [pair_job()]
    with working(app_server.url):
        app_server.wait_for(lambda: app_server.sent(Fail))
    assert "text: too long" in app_server.sent(Fail)[0].reason
    assert not app_server.sent(Fail)[0].is_retryable


def test_responses_that_the_app_always_fails_on_are_given_back(app_server: AppServer) -> None:
    """Kept for ever, they would keep their lease, and the annotator would wait for ever."""
    app_server.failures["finish"] = [(500, "internal", "oh dear")] * 1000
    job = pair_job()
    app_server.jobs = [job]
    with working(app_server.url, pace=Pace(claim_wait_s=0.1, events_s=0.05, give_up_s=0.2)):
        app_server.wait_for(lambda: app_server.sent(Fail))
    (fail,) = app_server.sent(Fail)
    assert (fail.lease, fail.is_retryable) == (lease_of(job), True)
    assert "oh dear" in fail.reason


def test_an_app_that_is_away_is_not_given_up(app_server: AppServer) -> None:
    app_server.failures["finish"] = [(503, "away", "going down")] * 10
    app_server.jobs = [pair_job()]
    with working(app_server.url, pace=Pace(claim_wait_s=0.1, events_s=0.05, give_up_s=0.0)):
        app_server.wait_for(finished(app_server))
    assert not app_server.sent(Fail)


def test_a_worker_whose_jobs_all_break_stops(app_server: AppServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(_: LoremSampler, job: PairJob, sink: Sink) -> None:
        sink.failed(lease_of(job), "RuntimeError: the GPU has fallen off the bus", is_retryable=True)

    monkeypatch.setattr(LoremSampler, "submit", break_down)
    app_server.jobs = [pair_job(seed) for seed in range(40)]
    with working(app_server.url) as worker:
        worker.thread.join(15)
        assert [type(error) for error in worker.errors] == [WorkerStoppedError]
        assert "fallen off the bus" in str(worker.errors[0])
    # Four threads deliver: each may have had one more failure under way.
    assert 8 <= len(app_server.sent(Fail)) <= 12
    assert app_server.sent(Release)[-1].is_stopping


def test_a_stopping_worker_finishes_what_it_can(app_server: AppServer) -> None:
    app_server.jobs = [pair_job()]
    with working(app_server.url, word_s=0.01) as worker:
        app_server.wait_for(app_server.with_leases)
        worker.stop()
    assert len(app_server.sent(Finish)) == 1
    assert [(release.leases, release.is_stopping) for release in app_server.sent(Release)] == [((), True)]


def test_a_stopping_worker_releases_the_rest(app_server: AppServer) -> None:
    jobs = [pair_job(1), pair_job(2)]
    app_server.jobs = list(jobs)
    pace = Pace(claim_wait_s=0.1, events_s=0.05, drain_s=0.2)
    with working(app_server.url, word_s=0.1, pace=pace) as worker:
        app_server.wait_for(app_server.with_leases)
        worker.stop()
    (release,) = app_server.sent(Release)
    assert set(release.leases) == {lease_of(job) for job in jobs}
    assert release.is_stopping
    assert not app_server.sent(Finish)


@pytest.mark.parametrize("path", ["register", "claim", "events", "finish"])
@pytest.mark.parametrize(("status", "kind"), [(401, UnauthorizedError), (426, ProtocolMismatchError)])
def test_a_refused_worker_ends_with_the_reason(
    app_server: AppServer, path: str, status: int, kind: type[Exception]
) -> None:
    app_server.failures[path] = [(status, "code", "Do this.")]
    app_server.jobs = [pair_job()]
    with working(app_server.url) as worker:
        worker.thread.join(15)
        assert not worker.thread.is_alive()
        assert [type(error) for error in worker.errors] == [kind]
        assert str(worker.errors[0]) == "Do this."


def test_a_wrong_address_ends_with_the_reason(app_server: AppServer) -> None:
    with working(f"{app_server.url}/elsewhere") as worker:
        worker.thread.join(15)
        assert [type(error) for error in worker.errors] == [RequestRefusedError]


def test_a_thread_that_breaks_ends_the_worker(app_server: AppServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        msg = "a bug"
        raise TypeError(msg)

    monkeypatch.setattr(LoremSampler, "submit", broken)
    app_server.jobs = [pair_job()]
    with working(app_server.url) as worker:
        worker.thread.join(15)
        assert [type(error) for error in worker.errors] == [WorkerStoppedError]
        assert "a bug" in str(worker.errors[0])


def test_an_idle_worker_is_heard_from_and_promoted(app_server: AppServer, tmp_path: Path) -> None:
    given = dict([make_folder(tmp_path / "old", b"old"), make_folder(tmp_path / "new", b"new")])
    old, new = (files.digest for files in given.values())
    app_server.hold_s = 20.0
    pace = Pace(claim_wait_s=20.0, events_s=0.05, heartbeat_s=0.2)
    with working(app_server.url, given=given, pace=pace):
        app_server.wait_for(lambda: len(app_server.statuses()) >= 3)
        status = app_server.statuses()[0]
        assert status.serving == (old,)
        assert {files.digest for files in status.available} == {old, new}
        assert (status.max_pairs, status.free_pairs, status.refused, status.last_error) == (4, 4, (), None)
        app_server.serve = (new,)
        # The claim that the app holds was made with the old digest: it must not hide the new one for 20 s.
        app_server.wait_for(lambda: app_server.sent(Claim)[-1].digests == (new,), timeout_s=5)
        app_server.wait_for(lambda: app_server.statuses()[-1].serving == (new,))
        with app_server.changed:
            app_server.jobs = [make_job(make_spec(new), make_spec(new, seed=2))]
        app_server.wait_for(finished(app_server))
    (finish,) = app_server.sent(Finish)
    assert {response.checkpoint_digest for response in finish.responses} == {new}


def test_live_pairs_end_before_their_checkpoint_is_replaced(app_server: AppServer, tmp_path: Path) -> None:
    given = dict([make_folder(tmp_path / "old", b"old"), make_folder(tmp_path / "new", b"new")])
    old, new = (files.digest for files in given.values())
    app_server.jobs = [make_job(make_spec(old), make_spec(old, seed=2))]
    with working(app_server.url, given=given, word_s=0.03):
        app_server.wait_for(app_server.with_leases)
        app_server.serve = (new,)
        app_server.wait_for(lambda: any(status.staging == new for status in app_server.statuses()))
        assert not app_server.sent(Finish)
        app_server.wait_for(lambda: app_server.sent(Claim)[-1].digests == (new,))
    (finish,) = app_server.sent(Finish)
    assert {response.checkpoint_digest for response in finish.responses} == {old}


def test_a_worker_that_was_promoted_registers_with_what_it_serves_now(app_server: AppServer, tmp_path: Path) -> None:
    given = dict([make_folder(tmp_path / "old", b"old"), make_folder(tmp_path / "new", b"new")])
    old, new = given.values()
    app_server.serve = (new.digest,)
    with working(app_server.url, given=given):
        app_server.wait_for(lambda: app_server.sent(Claim) and app_server.sent(Claim)[-1].digests == (new.digest,))
        with app_server.changed:
            app_server.worker_id = uuid4()
        app_server.wait_for(lambda: len(app_server.sent(Register)) == 2)
    assert [register.checkpoints for register in app_server.sent(Register)] == [(old,), (new,)]


def test_a_refused_checkpoint_is_told_and_the_old_one_goes_on(app_server: AppServer, tmp_path: Path) -> None:
    given = dict([make_folder(tmp_path / "old", b"old"), make_folder(tmp_path / "new", b"new")])
    old, new = (files.digest for files in given.values())
    (tmp_path / "new" / "chat_template.jinja").unlink()
    app_server.serve = (new,)
    with working(app_server.url, given=given) as worker:
        app_server.wait_for(lambda: any(status.refused for status in app_server.statuses()))
        with app_server.changed:
            app_server.jobs = [make_job(make_spec(old), make_spec(old, seed=2))]
        app_server.wait_for(finished(app_server))
        status = app_server.statuses()[-1]
        assert status.serving == (old,)
        assert [refusal.checkpoint for refusal in status.refused] in ([new], ["new"])
        assert "has no chat template" in status.refused[0].reason
        assert "has no chat template" in (status.last_error or "")
        assert worker.thread.is_alive()


def test_a_slow_call_of_events_holds_up_no_delivery(app_server: AppServer) -> None:
    app_server.jobs = [pair_job(1), pair_job(2)]
    with working(app_server.url, word_s=0.01):
        app_server.wait_for(app_server.with_leases)
        app_server.delays["events"] = [3.0]
        started = time.monotonic()
        app_server.wait_for(lambda: len(app_server.sent(Finish)) == 2)
        assert time.monotonic() - started < 2.5


def test_a_delivery_that_hangs_holds_up_no_other(app_server: AppServer) -> None:
    jobs = [pair_job(seed) for seed in range(3)]
    app_server.jobs = list(jobs)
    app_server.delays["finish"] = [4.0, 0.0, 0.0]
    started = time.monotonic()
    with working(app_server.url):
        app_server.wait_for(lambda: len(app_server.sent(Finish)) == 2)
        assert time.monotonic() - started < 3.5
        app_server.wait_for(lambda: len(app_server.sent(Finish)) == 3)
    assert {finish.lease for finish in app_server.sent(Finish)} == {lease_of(job) for job in jobs}


def test_a_worker_whose_claim_is_held_stops_at_once(app_server: AppServer) -> None:
    app_server.hold_s = 20.0
    with working(app_server.url, pace=Pace(claim_wait_s=20.0)) as worker:
        app_server.wait_for(lambda: app_server.sent(Claim))
        started = time.monotonic()
        worker.stop()
        assert time.monotonic() - started < 2
    assert [release.is_stopping for release in app_server.sent(Release)] == [True]


def test_an_answer_to_an_older_attempt_does_not_touch_the_new_one(app_server: AppServer) -> None:
    """Both attempts of a job came to this worker; the outcome of the first is refused, the second goes on."""
    old = pair_job()
    new = old.model_copy(update={"attempt": 2})
    app_server.failures["finish"] = [(503, "away", "going down")] * 3
    app_server.jobs = [old]
    with working(app_server.url, word_s=0.01):
        app_server.wait_for(lambda: app_server.calls.count("finish") >= 1)
        with app_server.changed:
            app_server.lost.add(lease_of(old))
            app_server.jobs = [new]
        app_server.wait_for(finished(app_server))
        time.sleep(0.2)
    assert [finish.lease for finish in app_server.sent(Finish)] == [Lease(job_id=old.job_id, attempt=2)]
