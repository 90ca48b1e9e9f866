"""Runs a whole installation on one machine: embedded database, web app, one model worker, demo people."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import httpx
from alembic import command
from rich.console import Console
from sqlalchemy import select

from app.accounts import service as accounts
from app.batches import service as batches
from app.checkpoints import service as checkpoints
from app.database import Database, alembic_config, connect
from app.models import Checkpoint, PersonRole, TokenScope, Worker, now
from app.paths import ROOT
from app.settings import Settings
from contract.checkpoint_files import CheckpointFiles, inspect_checkpoint
from contract.errors import ContractError

DEMO_CHECKPOINT = ROOT / "model_worker" / "demo" / "checkpoint"

_HOST = "127.0.0.1"
_DEMO_PEOPLE = {
    "Demo annotator": PersonRole.ANNOTATOR,
    "Demo admin": PersonRole.ADMIN,
    "Demo trainer": PersonRole.TRAINER,
}
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_START_S = 60.0
_STOP_S = 25.0
_LOG_TAIL_LINES = 20
_POLL_S = 0.1
_RESTART_AFTER_S = 2.0


class PortInUseError(ContractError):
    """Another program listens on the port."""


class ProcessEndedError(ContractError):
    """A process that should run has ended; the end of its log is in the message."""


@dataclass
class Child:
    """A process that this one started, with its log."""

    name: str
    arguments: Sequence[str]
    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process in a session of its own, so that Ctrl-C reaches it only through us."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 - our own programs, no shell
                self.arguments,
                env=self.environment,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def has_ended(self) -> bool:
        """Whether the process has ended by itself."""
        return self.process is not None and self.process.poll() is not None

    def ask_to_stop(self) -> None:
        """Let the process finish what it is doing and end."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()

    def wait(self) -> None:
        """Wait until the process has ended, and end it if it does not."""
        if self.process is None:
            return
        try:
            self.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def log_tail(self) -> str:
        """The last lines of the log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-_LOG_TAIL_LINES:])


def run(settings: Settings, *, port: int, checkpoint: Path | None, console: Console) -> None:
    """Bring everything up, print the sign-in links, and stay until interrupted.

    Raises:
        CheckpointError: The checkpoint cannot be served.
        PortInUseError: Another program listens on the port.
        ProcessEndedError: The web app did not start, or ended.

    """
    folder = checkpoint or DEMO_CHECKPOINT
    files = inspect_checkpoint(folder)
    require_free_port(port)
    settings.ensure_secrets()
    command.upgrade(alembic_config(settings.database_url), "head")
    database = connect(settings.database_url)
    token_file = settings.data_dir / "worker.token"
    links = prepare(database, settings, files if checkpoint else files.model_copy(update={"name": "demo"}), token_file)
    app, worker = _children(settings, port=port, folder=folder, token_file=token_file)
    with _stopping([worker, app]):
        app.start()
        worker.start()
        _wait_for_app(app, port)
        _print_welcome(console, settings, links)
        _wait_for_worker(database, worker, console)
        _watch(app, worker, console)
    console.print("Stopped. Your data is kept.")


def require_free_port(port: int) -> None:
    """Fail early when the web app could not listen.

    Raises:
        PortInUseError: Another program listens on the port.

    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            msg = f"Port {port} is in use. Choose another one: make run PORT={port + 1}"
            raise PortInUseError(msg) from None


def prepare(database: Database, settings: Settings, files: CheckpointFiles, token_file: Path) -> dict[str, str]:
    """Make what a first start needs, keep what is there, and give fresh one-time sign-in links by name."""
    with database.write() as session:
        batches.ensure_first(session)
        checkpoint = checkpoints.register(session, files)
        current = checkpoints.current(session)
        # What an admin has promoted out of the library stays current over a restart.
        if current is None or (current.id != checkpoint.id and not _is_in_library(settings, current)):
            checkpoints.promote(session, checkpoint, for_open_batch=True)
        if not _is_valid_token(database, token_file):
            _write_private(token_file, accounts.create_api_token(session, "local worker", TokenScope.WORKER))
        links = {}
        for name, role in _DEMO_PEOPLE.items():
            person = accounts.get_or_create_person(session, name, role)
            token = accounts.issue_sign_in_link(session, person, hours=settings.sign_in_link_hours)
            links[name] = f"{settings.public_url}/sign-in/{token}"
    return links


def _library(settings: Settings) -> Path:
    """Where the next checkpoints are put."""
    return settings.data_dir / "checkpoints"


def _is_in_library(settings: Settings, checkpoint: Checkpoint) -> bool:
    """Whether a folder of the checkpoint's name is there; the registry adds to a name that another one has."""
    return (_library(settings) / checkpoint.name.split("@", 1)[0]).is_dir()


def _is_valid_token(database: Database, file: Path) -> bool:
    if not file.is_file():
        return False
    with database.read() as session:
        return accounts.find_api_token(session, file.read_text(encoding="ascii").strip()) is not None


def _write_private(file: Path, content: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as stream:
        stream.write(content)
    fresh.replace(file)


def _children(settings: Settings, *, port: int, folder: Path, token_file: Path) -> tuple[Child, Child]:
    environment = os.environ | {
        "PREFERABLY_DATA_DIR": str(settings.data_dir),
        "PREFERABLY_DATABASE_URL": settings.database_url,
        "PREFERABLY_PUBLIC_URL": settings.public_url,
    }
    logs, library = settings.data_dir / "logs", _library(settings)
    library.mkdir(parents=True, exist_ok=True)
    app = Child(
        name="web app",
        arguments=(
            *(sys.executable, "-m", "uvicorn", "--factory", "app.main:create_served_app"),
            *("--host", _HOST, "--port", str(port), "--no-access-log", "--timeout-graceful-shutdown", "5"),
        ),
        environment=environment,
        log=logs / "app.log",
    )
    worker = Child(
        name="model worker",
        arguments=(
            *(str(Path(sys.executable).with_name("preferably-worker")), "run", "--url", settings.public_url),
            *("--token-file", str(token_file), "--checkpoint", str(folder.resolve()), "--name", "local worker"),
            *("--library", str(library.resolve()), "--output-dir", str(settings.data_dir / "worker"), "--train"),
        ),
        # A request for work that is held keeps both processes from stopping; here it costs nothing to ask often.
        environment=environment | {"PREFERABLY_WORKER_CLAIM_WAIT_S": "1"},
        log=logs / "worker.log",
    )
    return app, worker


@contextmanager
def _stopping(children: Sequence[Child]) -> Iterator[None]:
    """Stop the children however the block ends; Ctrl-C and SIGTERM end it alike."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        # One signal is enough: a second one must not end this process before its children have ended.
        for number in _STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, interrupt) for number in _STOP_SIGNALS}
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        for child in children:
            child.ask_to_stop()
        for child in children:
            child.wait()
        for number, handler in previous.items():
            signal.signal(number, handler)


def _wait_for_app(app: Child, port: int) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        _require_running(app)
        try:
            httpx.get(f"http://{_HOST}:{port}/health", timeout=1).raise_for_status()
        except httpx.HTTPError:
            time.sleep(_POLL_S)
        else:
            return
    msg = f"The web app did not answer within {_START_S:.0f} s. Its log: {app.log}"
    raise ProcessEndedError(msg)


def _require_running(child: Child) -> None:
    if child.has_ended():
        msg = f"The {child.name} has ended. The end of its log, {child.log}:\n{child.log_tail()}"
        raise ProcessEndedError(msg)


def _print_welcome(console: Console, settings: Settings, links: dict[str, str]) -> None:
    width = max(len(name) for name in links)
    console.print(f"\n[bold]Preferably[/bold] runs at {settings.public_url}")
    console.print("Sign-in links, each for one use:\n")
    for name, link in links.items():
        console.print(f"  {name:{width}}  {link}")
    console.print(f"\nEverything is kept in {settings.data_dir}. Ctrl-C stops it.")


def _wait_for_worker(database: Database, worker: Child, console: Console) -> None:
    started = now()
    while not worker.has_ended():
        with database.read() as session:
            if session.scalar(select(Worker.id).where(Worker.registered_at >= started)) is not None:
                console.print("The model worker is ready.")
                return
        time.sleep(_POLL_S)


def _watch(app: Child, worker: Child, console: Console) -> None:
    """Stay while the web app runs; a worker that ends is started again, since nothing is lost with it."""
    while True:
        _require_running(app)
        if worker.has_ended():
            console.print(f"The model worker has ended and is started again. Its log: {worker.log}")
            time.sleep(_RESTART_AFTER_S)
            worker.start()
        time.sleep(_POLL_S * 5)
