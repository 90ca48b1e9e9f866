"""The worker's loop in threads of this process, over real HTTP, with a sampler that needs no model."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest

from contract.sampling import Claim, Events, Fail, Finish, PairJob, Register, Release
from model_worker import backoff
from model_worker.client import AppClient, ProtocolMismatchError, RequestRefusedError, UnauthorizedError
from model_worker.registration import Registration
from model_worker.sampling.interface import lease_of
from model_worker.sampling.lorem import LoremSampler, lorem_checkpoint
from model_worker.worker import Pace, Worker, WorkerStoppedError
from tests.model_worker.app_server import TOKEN, AppServer, serving
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

    def stop(self) -> None:
        """Ask the worker to stop, and wait until it has."""
        self.stopping.set()
        self.thread.join(15)
        assert not self.thread.is_alive()


@contextmanager
def working(
    url: str, *, token: str = TOKEN, word_s: float = 0.002, max_pairs: int = 4, pace: Pace = QUICK
) -> Iterator[Running]:
    sampler = LoremSampler(max_pairs=max_pairs, word_s=word_s)
    stopping, errors = threading.Event(), []
    identity = Register(
        name="test", hostname="here", engine="lorem/1", versions={}, device="none", dtype="none",
        can_sample=True, can_train=False, checkpoints=sampler.facts().checkpoints,
    )  # fmt: skip

    def work() -> None:
        try:
            with AppClient(url, token) as client:
                registration = Registration(client, identity)
                if registration.wait_until_registered(stopping):
                    Worker(client, registration, sampler, pace).run(stopping)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            errors.append(error)

    running = Running(sampler, stopping, threading.Thread(target=work), errors)
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
        app_server.wait_for(lambda: sum(not events.tokens for events in app_server.sent(Events)) >= 4)
        job_id = app_server.sent(Events)[0].leases[0].job_id
        app_server.dropped.add(job_id)


def test_a_dropped_job_is_stopped_and_its_place_taken(app_server: AppServer) -> None:
    first, second = pair_job(1), pair_job(2)
    app_server.jobs = [first]
    app_server.dropped.add(first.job_id)
    with working(app_server.url, word_s=0.1, max_pairs=1):
        app_server.wait_for(lambda: app_server.sent(Events))
        app_server.jobs = [second]
        started = time.monotonic()
        app_server.wait_for(lambda: any(lease_of(second) in events.leases for events in app_server.sent(Events)))
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
        app_server.wait_for(lambda: app_server.sent(Events))
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
    broken = make_job(make_spec("f" * 64), make_spec("f" * 64, seed=2))
    good = pair_job()
    app_server.jobs = [broken, good]
    with working(app_server.url):
        app_server.wait_for(finished(app_server))
        app_server.wait_for(lambda: app_server.sent(Fail))
    fail = app_server.sent(Fail)[0]
    assert fail.lease == lease_of(broken)
    assert fail.is_retryable
    assert "does not serve the checkpoint" in fail.reason


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


def test_a_worker_whose_jobs_all_break_stops(app_server: AppServer) -> None:
    app_server.jobs = [make_job(make_spec("f" * 64), make_spec("f" * 64, seed=2)) for _ in range(20)]
    with working(app_server.url) as worker:
        worker.thread.join(15)
        assert [type(error) for error in worker.errors] == [WorkerStoppedError]
        assert "does not serve the checkpoint" in str(worker.errors[0])
    assert len(app_server.sent(Fail)) == 8


def test_a_stopping_worker_finishes_what_it_can(app_server: AppServer) -> None:
    app_server.jobs = [pair_job()]
    with working(app_server.url, word_s=0.01) as worker:
        app_server.wait_for(lambda: app_server.sent(Events))
        worker.stop()
    assert len(app_server.sent(Finish)) == 1
    assert not app_server.sent(Release)


def test_a_stopping_worker_releases_the_rest(app_server: AppServer) -> None:
    jobs = [pair_job(1), pair_job(2)]
    app_server.jobs = list(jobs)
    pace = Pace(claim_wait_s=0.1, events_s=0.05, drain_s=0.2)
    with working(app_server.url, word_s=0.1, pace=pace) as worker:
        app_server.wait_for(lambda: app_server.sent(Events))
        worker.stop()
    assert [set(release.leases) for release in app_server.sent(Release)] == [{lease_of(job) for job in jobs}]
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
