"""What Prometheus reads, who may read it, and what is counted how."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.database import Database
from app.main import create_app
from app.models import BatchState, PersonRole, WorkState, now
from app.settings import Settings, WeakSecretError
from tests.app.queue_rows import make_failed, make_waiting, make_worker
from tests.app.test_processes import free_port, wait_for
from tests.app.test_worker_protocol import FakeWorker
from tests.conftest import Browser
from tests.factories import (
    make_annotation,
    make_comparison,
    make_conversation,
    make_open_batch,
    make_person,
    make_ready,
)

TOKEN = "metrics-token-of-at-least-32-characters"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
PROCESSES = 2
REQUESTS = 40
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

Labels = dict[str, str]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    settings.metrics_token = SecretStr(TOKEN)
    return settings


class Reading:
    """What one look at the metrics found."""

    def __init__(self, text: str) -> None:
        self.samples = [
            (sample.name, sample.labels, sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        ]

    def all(self, name: str) -> list[tuple[Labels, float]]:
        """Every sample of a name."""
        return [(labels, value) for found, labels, value in self.samples if found == name]

    def value(self, name: str, **labels: str) -> float | None:
        """The one sample of a name with these labels."""
        found = [value for given, value in self.all(name) if given == labels]
        assert len(found) <= 1, f"{name} {labels} is there {len(found)} times"
        return found[0] if found else None


def read(client: TestClient) -> Reading:
    answer = client.get("/metrics", headers=AUTHORIZED)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return Reading(answer.text)


@on_sqlite
def test_without_a_token_of_the_settings_there_is_no_page(settings: Settings, client: TestClient) -> None:
    settings.metrics_token = SecretStr("")
    assert client.get("/metrics").status_code == 404
    assert client.get("/metrics", headers=AUTHORIZED).status_code == 404
    assert client.get("/metrics", headers={"Authorization": "Bearer "}).status_code == 404


@on_sqlite
def test_only_who_holds_the_token_reads(
    client: TestClient, sign_in: Callable[..., Browser], worker_headers: dict[str, str]
) -> None:
    wrong = [
        "",
        TOKEN,
        "Bearer",
        "Bearer ",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Basic {TOKEN}",
        "Bearer \xe9",
    ]
    for header in [*wrong, worker_headers["Authorization"]]:
        answer = client.get("/metrics", headers={"Authorization": header.encode("latin-1")})
        assert answer.status_code == 401, header
        assert "preferably_workers_alive" not in answer.text
    assert sign_in(PersonRole.ADMIN).get("/metrics").status_code == 401
    assert client.get("/metrics", headers={"Authorization": f"bearer  {TOKEN} "}).status_code == 200
    assert client.post("/metrics", headers=AUTHORIZED).status_code == 405


def test_a_short_token_is_refused_at_the_start(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, metrics_token=SecretStr("short"))
    with pytest.raises(WeakSecretError, match="PREFERABLY_METRICS_TOKEN must have at least 32 characters"):
        settings.ensure_secrets()


def test_an_empty_installation(client: TestClient) -> None:
    reading = read(client)
    assert reading.value("preferably_workers_alive") == 0
    assert reading.value("preferably_sampling_oldest_queued_seconds") == 0
    assert {labels["state"] for labels, _ in reading.all("preferably_sampling_jobs")} == set(WorkState)
    assert reading.all("preferably_batch_annotations") == []
    assert reading.all("preferably_responses_sampled_total") == []


def test_the_queue_the_workers_and_the_week(database: Database, client: TestClient) -> None:
    with database.write() as session:
        batch, ann = make_open_batch(session), make_person(session)
        for _ in range(2):
            make_failed(session, batch, ann)
        _, job = make_waiting(session, batch, ann)
        job.queued_at = now() - timedelta(seconds=90)
        ready = make_comparison(session, make_conversation(session, batch, ann))
        make_ready(session, ready)
        judged = make_comparison(session, make_conversation(session, batch, ann))
        make_ready(session, judged)
        make_annotation(session, judged, ann)
        make_annotation(session, judged, make_person(session, "Bea"), is_primary=False)
        at = now()
        make_worker(session, "gpu-1", free_pairs=3, tokens_per_s=120.5)
        make_worker(session, 'gpu "2"\n', free_pairs=1, tokens_per_s=80.0)
        make_worker(session, "gpu-silent", last_seen_at=at - timedelta(minutes=5), tokens_per_s=9.0)
        make_worker(session, "gpu-stopped", stopped_at=at)
    reading = read(client)
    jobs = {labels["state"]: value for labels, value in reading.all("preferably_sampling_jobs")}
    assert jobs == {"queued": 1, "leased": 0, "done": 2, "failed": 2, "cancelled": 0}
    waited = reading.value("preferably_sampling_oldest_queued_seconds")
    assert waited is not None
    assert 89 < waited < 150
    assert reading.value("preferably_workers_alive") == 2
    free = {labels["worker"]: value for labels, value in reading.all("preferably_workers_pairs_free")}
    assert free == {"gpu-1": 3, 'gpu "2"\n': 1}
    speed = {labels["worker"]: value for labels, value in reading.all("preferably_workers_tokens_per_second")}
    assert speed == {"gpu-1": 120.5, 'gpu "2"\n': 80.0}
    assert reading.value("preferably_comparisons_ready", objective="helpfulness") == 1
    assert reading.value("preferably_comparisons_ready", objective="safety") == 0
    assert reading.value("preferably_batch_annotations", batch="1", objective="helpfulness") == 2
    with database.write() as session:
        session.merge(batch).state = BatchState.IN_REVIEW
    reading = read(client)
    assert reading.all("preferably_batch_annotations") == []
    assert reading.value("preferably_comparisons_ready", objective="helpfulness") == 0


def test_gauges_are_read_in_one_transaction_that_only_reads(database: Database, client: TestClient) -> None:
    with database.write() as session:
        make_open_batch(session)
    served: Database = client.app_state["database"]
    begun: list[int] = []
    statements: list[str] = []
    event.listen(served.reading, "begin", lambda _: begun.append(1))
    event.listen(served.reading, "before_cursor_execute", lambda *given: statements.append(given[2]))
    read(client)
    assert len(begun) == 1
    selects = [statement for statement in statements if statement.startswith("SELECT")]
    assert 4 < len(selects) < 10
    assert not any(re.match(r"INSERT|UPDATE|DELETE", statement) for statement in statements)


def test_requests_are_counted_by_template_and_status(
    app: FastAPI, client: TestClient, sign_in: Callable[..., Browser]
) -> None:
    @app.get("/broken/{number}")
    def broken(number: int) -> None:
        raise ZeroDivisionError(number)

    admin = sign_in(PersonRole.ADMIN)
    for path in ("/admin/batches/7", "/admin/batches/8"):
        assert admin.get(path).status_code == 404
    assert client.get("/broken/1").status_code == 500
    assert client.get("/nothing/here").status_code == 404
    assert client.get("/wp-login.php").status_code == 404
    assert client.get("/static/app.css").status_code == 200
    assert client.get("/static/secret.txt").status_code == 404
    assert client.request("MADEUP", "/health").status_code == 405
    assert client.get("/health").status_code == 200
    reading = read(client)

    def count(method: str, route: str, status: int) -> float | None:
        return reading.value("preferably_http_request_seconds_count", method=method, route=route, status=str(status))

    assert count("GET", "/admin/batches/{number}", 404) == 2
    assert count("GET", "/broken/{number}", 500) == 1
    assert count("GET", "other", 404) == 2
    assert count("GET", "/static", 200) == 1
    assert count("GET", "/static", 404) == 1
    assert count("other", "/health", 405) == 1
    assert count("GET", "/health", 200) == 1
    buckets = [
        value
        for labels, value in reading.all("preferably_http_request_seconds_bucket")
        if (labels["route"], labels["status"]) == ("/health", "200")
    ]
    assert buckets[-1] == 1
    seconds = reading.value("preferably_http_request_seconds_sum", method="GET", route="/health", status="200")
    assert seconds is not None
    assert 0 < seconds < 5
    routes = {labels["route"] for labels, _ in reading.all("preferably_http_request_seconds_count")}
    assert not any(re.search(r"\d|wp-login|secret|nothing", route) for route in routes), routes


def test_responses_are_counted_once_and_only_when_they_are_stored(
    database: Database, client: TestClient, worker_headers: dict[str, str]
) -> None:
    worker = FakeWorker(client, worker_headers)
    with database.write() as session:
        batch, ann = make_open_batch(session), make_person(session)
        for _ in range(2):
            make_waiting(session, batch, ann)

    def sampled() -> dict[str, float]:
        return {
            labels["finish_reason"]: value for labels, value in read(client).all("preferably_responses_sampled_total")
        }

    first, second = worker.claim(want=2)
    assert sampled() == {}
    assert worker.finish(first).status_code == 204
    assert sampled() == {"stop": 2}
    # The same answer again, and one that is refused.
    assert worker.finish(first).status_code == 204
    stale = second.model_copy(update={"attempt": second.attempt + 1})
    assert worker.finish(stale).status_code == 409
    assert sampled() == {"stop": 2}
    # Equal responses were sampled, though they are no pair.
    assert worker.finish(second, ("same", "same")).status_code == 204
    assert sampled() == {"stop": 4}


def test_responses_that_are_not_committed_are_not_counted(
    database: Database, client: TestClient, worker_headers: dict[str, str]
) -> None:
    worker = FakeWorker(client, worker_headers)
    with database.write() as session:
        make_waiting(session, make_open_batch(session), make_person(session))
    (job,) = worker.claim()

    def fail(_session: Session) -> None:
        statement = "COMMIT"
        raise OperationalError(statement, None, ConnectionResetError())

    event.listen(Session, "before_commit", fail)
    try:
        assert worker.finish(job).status_code == 503
    finally:
        event.remove(Session, "before_commit", fail)
    assert read(client).all("preferably_responses_sampled_total") == []
    assert worker.finish(job).status_code == 204
    assert read(client).value("preferably_responses_sampled_total", finish_reason="stop") == 2


def test_apps_do_not_share_counts(settings: Settings, client: TestClient) -> None:
    client.get("/health")
    with TestClient(create_app(settings)) as other:
        assert not any(
            labels["route"] == "/health" for labels, _ in read(other).all("preferably_http_request_seconds_count")
        )


@contextmanager
def several_processes(settings: Settings) -> Iterator[str]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = os.environ | {
        "PREFERABLY_DATA_DIR": str(settings.data_dir),
        "PREFERABLY_DATABASE_URL": settings.database_url,
        "PREFERABLY_PUBLIC_URL": url,
        "PREFERABLY_METRICS_TOKEN": TOKEN,
    }
    program = str(Path(sys.executable).with_name("preferably"))
    arguments = ["serve", "--port", str(port), "--processes", str(PROCESSES)]
    with Path(settings.data_dir / "serve.log").open("wb") as log:
        process = subprocess.Popen([program, *arguments], env=environment, stdout=log, stderr=log)
    try:
        wait_for(f"{url}/health")
        yield url
    finally:
        process.terminate()
        process.wait(30)


@on_sqlite
@pytest.mark.usefixtures("database")
def test_each_of_several_processes_answers_for_all(settings: Settings) -> None:
    with several_processes(settings) as url:
        before = requests_of(url)
        for _ in range(REQUESTS):
            # A connection of its own each, so that every process gets some.
            assert httpx.get(f"{url}/sign-in").status_code == 200
        assert before == 0
        assert {requests_of(url) for _ in range(10)} == {REQUESTS}


def requests_of(url: str) -> float:
    answer = httpx.get(f"{url}/metrics", headers=AUTHORIZED)
    reading = Reading(answer.raise_for_status().text)
    name = "preferably_http_request_seconds_count"
    return reading.value(name, method="GET", route="/sign-in", status="200") or 0
