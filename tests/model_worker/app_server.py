"""A web app in a thread that speaks the worker protocol with the contract's models, and does as a test tells it."""

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeVar
from uuid import UUID, uuid4

from contract.base import Contract
from contract.sampling import (
    PROTOCOL_HEADER,
    PROTOCOL_VERSION,
    Claim,
    Claimed,
    Control,
    Events,
    Fail,
    Finish,
    Lease,
    PairJob,
    Register,
    Registered,
    Release,
    WorkerStatus,
)
from contract.training import ClaimedRun, ClaimRun, FailRun, FinishRun, RunControl, RunEvents, RunJob

TOKEN = "worker-token"
MessageT = TypeVar("MessageT", bound=Contract)
PREFIX = "/api/worker/v1/"


@dataclass
class AppServer:
    """What the app knows, and what it was sent."""

    lease_s: float = 30.0
    protocol: int = PROTOCOL_VERSION
    worker_id: UUID = field(default_factory=uuid4)
    jobs: list[PairJob] = field(default_factory=list)
    runs: list[RunJob] = field(default_factory=list)
    dropped: set[UUID] = field(default_factory=set)
    lost: set[Lease] = field(default_factory=set)
    cancelled_runs: set[UUID] = field(default_factory=set)
    files: dict[str, bytes] = field(default_factory=dict)
    failures: dict[str, list[tuple[int, str, str]]] = field(default_factory=lambda: defaultdict(list))
    """Status, code and message of the next answers of a path, before it works again."""
    delays: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Seconds that the next answers of a path take."""
    hold_s: float = 0.2
    """How long a claim is held at most."""
    is_careless: bool = False
    """Whether it hands out jobs for checkpoints that the worker does not serve."""
    serve: tuple[str, ...] = ()
    """Digests of the checkpoints that the worker is to serve."""
    messages: list[Contract] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    url: str = ""
    changed: threading.Condition = field(default_factory=threading.Condition)

    def sent(self, kind: type[MessageT]) -> list[MessageT]:
        """The messages of one kind, in the order they came."""
        with self.changed:
            return [message for message in self.messages if isinstance(message, kind)]

    def with_leases(self) -> list[Events]:
        """The events that were more than an idle worker's heartbeat."""
        return [events for events in self.sent(Events) if events.leases]

    def statuses(self) -> list[WorkerStatus]:
        """The statuses that the worker sent."""
        return [events.status for events in self.sent(Events) if events.status is not None]

    def wait_for(self, condition: Callable[[], object], timeout_s: float = 15.0) -> None:
        """Wait until a condition holds; any message may make it so."""
        deadline = time.monotonic() + timeout_s
        with self.changed:
            while not condition():
                left = deadline - time.monotonic()
                assert left > 0, f"nothing came in {timeout_s} s; calls: {self.calls[-20:]}"
                self.changed.wait(min(left, 0.1))

    def answer(self, path: str, body: bytes) -> Contract | None:
        """What the app says to a message."""
        match path:
            case "register":
                self.messages.append(Register.model_validate_json(body))
                return Registered(worker_id=self.worker_id, lease_s=self.lease_s)
            case "claim":
                return self._claim(Claim.model_validate_json(body))
            case "events":
                return self._events(Events.model_validate_json(body))
            case "finish" | "fail":
                message = (Finish if path == "finish" else Fail).model_validate_json(body)
                self._check_worker(message.worker_id)
                if message.lease in self.lost:
                    raise RefusalError(409, "lease_lost", "The job is no longer yours.")
                self.messages.append(message)
            case "release":
                self.messages.append(Release.model_validate_json(body))
            case _:
                return self._answer_run(path, body)
        return None

    def file(self, path: str) -> bytes:
        """The content of a file of a dataset."""
        if path not in self.files:
            raise RefusalError(404, "not_found", f"There is no {path}.")
        return self.files[path]

    def _answer_run(self, path: str, body: bytes) -> Contract | None:
        match path:
            case "runs/claim":
                self.messages.append(ClaimRun.model_validate_json(body))
                return ClaimedRun(job=self.runs.pop(0) if self.runs else None)
            case "runs/events":
                events = RunEvents.model_validate_json(body)
                self.messages.append(events)
                is_cancelled = events.lease.job_id in self.cancelled_runs
                return RunControl(is_cancelled=is_cancelled, lease_until=datetime.now(UTC))
            case "runs/finish":
                self.messages.append(FinishRun.model_validate_json(body))
            case "runs/fail":
                self.messages.append(FailRun.model_validate_json(body))
            case _:
                raise RefusalError(404, "not_found", path)
        return None

    def _claim(self, claim: Claim) -> Claimed:
        self._check_worker(claim.worker_id)
        self.messages.append(claim)
        deadline = time.monotonic() + min(claim.wait_s, self.hold_s)
        while not (taken := self._fitting(claim)) and time.monotonic() < deadline:
            self.changed.wait(0.02)
        self.jobs = [job for job in self.jobs if job not in taken]
        return Claimed(jobs=tuple(taken))

    def _fitting(self, claim: Claim) -> list[PairJob]:
        """The oldest jobs that can be sampled with what the worker said that it serves."""
        served = set(claim.digests)
        fitting = [
            job
            for job in self.jobs
            if self.is_careless or served.issuperset(spec.checkpoint_digest for spec in job.specs)
        ]
        return fitting[: claim.want]

    def _events(self, events: Events) -> Control:
        self._check_worker(events.worker_id)
        self.messages.append(events)
        drop = tuple(lease.job_id for lease in events.leases if lease.job_id in self.dropped)
        return Control(drop=drop, lease_until=datetime.now(UTC) + timedelta(seconds=self.lease_s), serve=self.serve)

    def _check_worker(self, worker_id: UUID) -> None:
        if worker_id != self.worker_id:
            raise RefusalError(404, "unknown_worker", "This worker is not registered here; register again.")


class RefusalError(Exception):
    """An error that the app answers with."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class Handler(BaseHTTPRequestHandler):
    """Answers for the app of its server."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_POST(self) -> None:
        """Answer a message of the worker protocol."""
        app = self.server.app
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = self.path.removeprefix(PREFIX)
        time.sleep(app.delays[path].pop(0) if app.delays[path] else 0.0)
        try:
            with app.changed:
                self._check(path)
                answer = app.answer(path, body)
                app.changed.notify_all()
        except RefusalError as refusal:
            self._refuse(refusal)
        else:
            content = answer.model_dump_json().encode() if answer is not None else b""
            self._send(200 if answer is not None else 204, content, "application/json")

    def do_GET(self) -> None:
        """Answer with a file."""
        app = self.server.app
        try:
            with app.changed:
                self._check(self.path)
                content = app.file(self.path)
        except RefusalError as refusal:
            self._refuse(refusal)
        else:
            self._send(200, content, "application/octet-stream")

    def _check(self, path: str) -> None:
        app = self.server.app
        app.calls.append(path)
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            raise RefusalError(401, "unauthorized", "The token is unknown.")
        if app.failures[path]:
            raise RefusalError(*app.failures[path].pop(0))
        if self.headers[PROTOCOL_HEADER] != str(app.protocol):
            raise RefusalError(426, "protocol_mismatch", f"The app speaks protocol {app.protocol}; upgrade the worker.")

    def _refuse(self, refusal: RefusalError) -> None:
        content = json.dumps({"error": {"code": refusal.code, "message": refusal.message}}).encode()
        self._send(refusal.status, content, "application/json")

    def _send(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """An HTTP server for one app."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, app: AppServer, port: int) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.app = app

    def handle_error(self, request: object, client_address: object) -> None:
        """A worker that is gone is part of these tests."""


@contextmanager
def serving(app: AppServer, port: int = 0) -> Iterator[AppServer]:
    """Serve `app` on 127.0.0.1 until the block ends."""
    server = Server(app, port)
    app.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield app
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
