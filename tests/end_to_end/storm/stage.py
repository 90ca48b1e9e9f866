"""The stage of a storm: app processes, model workers, and the network between them."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from app.accounts import service as accounts
from app.database import Database
from app.models import TokenScope
from app.settings import Settings
from tests.end_to_end.storm.network import Line, Network

ROOT = Path(__file__).resolve().parents[3]
# A machine that is busy with other things takes long to start a process.
_START_S = 180.0
_STOP_S = 90.0


class StageError(Exception):
    """A process did not do what it should; the message has the end of its log."""


@dataclass(frozen=True)
class Terms:
    """What the processes of a stage are told."""

    apps: int = 2
    workers: int = 3
    lease_s: float = 1.0
    max_attempts: int = 6
    max_pairs: int = 4
    max_checkpoints: int = 2
    word_s: float = 0.004


@dataclass
class Actor:
    """One process on the stage."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    line: Line | None = None
    """A worker's network; an app process has none."""
    is_stopped: bool = False
    """By SIGSTOP, for the time being."""
    is_killed: bool = False
    is_asked_to_stop: bool = False

    @property
    def is_at_work(self) -> bool:
        """Whether it runs, as far as we have to do with it."""
        return not (self.is_stopped or self.is_killed or self.is_asked_to_stop)

    def said(self) -> str:
        """Its log."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def kill(self) -> None:
        """End it with no chance to say anything."""
        self.is_killed = True
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        """Let it stand still, as a machine that swaps or a paused container does."""
        self.is_stopped = True
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on where it stood."""
        self.process.send_signal(signal.SIGCONT)
        self.is_stopped = False

    def ask_to_stop(self) -> None:
        """Ask it to end in good order; asked twice, it would end at once."""
        if not self.is_asked_to_stop:
            self.is_asked_to_stop = True
            self.process.terminate()


@dataclass
class Stage:
    """Starts and ends processes; whatever happens, none outlives the block."""

    folder: Path
    settings: Settings
    database: Database
    terms: Terms
    checkpoints: Sequence[Path]
    """Folders in one library: workers start with the first, and find the others."""
    apps: list[Actor] = field(default_factory=list)
    workers: list[Actor] = field(default_factory=list)
    past: list[Actor] = field(default_factory=list)
    """App processes that were killed and replaced."""
    network: Network = field(init=False)
    _ports: list[int] = field(init=False)
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        try:
            self._set()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stack.close()

    def _set(self) -> None:
        self._ports = [_free_port() for _ in range(self.terms.apps)]
        self.network = Network(self._ports)
        token_file = self.folder / "worker.token"
        with self.database.write() as session:
            token_file.write_text(accounts.create_api_token(session, "storm", TokenScope.WORKER), encoding="ascii")
        self._stack.callback(self._end_all)
        self._stack.enter_context(self.network)
        self.apps = [self._start_app(index) for index in range(self.terms.apps)]
        self.wait_for_apps()
        for number in range(self.terms.workers):
            self.hire(f"worker {number}")

    def hire(self, name: str) -> Actor:
        """Start a worker with a line of its own; a name may be used again."""
        line = self.network.line(name)
        environment = {
            "PREFERABLY_WORKER_URL": f"http://127.0.0.1:{line.port}",
            "PREFERABLY_WORKER_TOKEN_FILE": str(self.folder / "worker.token"),
            "PREFERABLY_WORKER_ENGINE": "lorem",
            "PREFERABLY_WORKER_CHECKPOINTS": str(self.checkpoints[0]),
            "PREFERABLY_WORKER_LIBRARY": str(self.checkpoints[0].parent),
            "PREFERABLY_WORKER_MAX_CHECKPOINTS": str(self.terms.max_checkpoints),
            "PREFERABLY_WORKER_NAME": name,
            "PREFERABLY_WORKER_MAX_PAIRS": str(self.terms.max_pairs),
            "PREFERABLY_WORKER_LOREM_WORD_S": str(self.terms.word_s),
            "PREFERABLY_WORKER_CLAIM_WAIT_S": "1",
            "PREFERABLY_WORKER_DRAIN_S": "1",
            "PREFERABLY_WORKER_OUTPUT_DIR": str(self.folder / "worker-output"),
        }
        log = self.folder / f"worker-{len(self.workers)}.log"
        worker = Actor(name, self._start(log, "model_worker.cli", "run", environment=environment), log, line)
        self.workers.append(worker)
        return worker

    def replace_app(self, index: int) -> None:
        """Kill an app process; its successor starts at once, on the same port."""
        self.apps[index].kill()
        self.past.append(self.apps[index])
        self.apps[index] = self._start_app(index)

    def at_work(self) -> list[Actor]:
        """The workers that run, in the order of their start."""
        return [worker for worker in self.workers if worker.is_at_work]

    def wait_for_apps(self) -> None:
        """Wait until every app process answers."""
        for app, port in zip(self.apps, self._ports, strict=True):
            deadline = time.monotonic() + _START_S
            while not _answers(port):
                if app.process.poll() is not None or time.monotonic() > deadline:
                    msg = f"{app.name} does not answer.\n{app.said()[-3000:]}"
                    raise StageError(msg)
                time.sleep(0.05)

    def stop_workers(self) -> list[Actor]:
        """Ask all workers that are left to stop, and wait for every one that was ever asked; gives those."""
        for worker in self.at_work():
            worker.ask_to_stop()
        asked = [worker for worker in self.workers if worker.is_asked_to_stop and not worker.is_killed]
        for worker in asked:
            worker.process.wait(_STOP_S)
        return asked

    def _start_app(self, index: int) -> Actor:
        port = self._ports[index]
        environment = {
            "PREFERABLY_DATA_DIR": str(self.settings.data_dir),
            "PREFERABLY_DATABASE_URL": self.settings.database_url,
            "PREFERABLY_PUBLIC_URL": f"http://127.0.0.1:{port}",
            "PREFERABLY_LEASE_S": str(self.terms.lease_s),
            "PREFERABLY_MAX_ATTEMPTS": str(self.terms.max_attempts),
        }
        log = self.folder / f"app-{index}.log"
        arguments = ["--factory", "app.main:create_app", "--no-access-log", "--port", str(port)]
        return Actor(f"app {index}", self._start(log, "uvicorn", *arguments, environment=environment), log)

    def _start(self, log: Path, module: str, *arguments: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        with log.open("ab") as stream:
            return subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=ROOT,
                env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )

    def _end_all(self) -> None:
        for actor in (*self.workers, *self.apps, *self.past):
            # SIGKILL ends a process that stands still, too.
            actor.kill()


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=5).is_success
    except httpx.TransportError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
