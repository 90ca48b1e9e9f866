"""A whole installation in a folder: the embedded database, the web app and model workers as real processes."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import httpx
from alembic import command

from app.accounts import service as accounts
from app.batches import service as batches
from app.batches.reconciler import reconcile
from app.batches.service import BatchSettings
from app.checkpoints import service as checkpoints
from app.database import Database, alembic_config, connect
from app.models import TokenScope, now
from app.settings import Settings
from contract.checkpoint_files import inspect_checkpoint
from contract.vocabulary import Objective

ROOT = Path(__file__).resolve().parents[2]
LEASE_S = 3.0


@dataclass
class Installation:
    """Everything that one installation consists of."""

    folder: Path
    settings: Settings
    database: Database
    checkpoint: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where the web app answers."""
        return self.settings.public_url

    def start(self, name: str, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start one of our programs; what it says goes to ``NAME.log``."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env=os.environ | self.environment() | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.processes.append(process)
        return process

    def environment(self) -> dict[str, str]:
        """What all programs of this installation are told."""
        return {
            "PREFERABLY_DATA_DIR": str(self.settings.data_dir),
            "PREFERABLY_PUBLIC_URL": self.url,
            "PREFERABLY_LEASE_S": str(LEASE_S),
            "PREFERABLY_RECONCILE_EVERY_S": "0",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        }

    def start_app(self) -> None:
        """Start one web app process, and wait until it answers."""
        port = self.url.rsplit(":", 1)[1]
        self.start("app", "-m", "uvicorn", "--factory", "app.main:create_app", "--port", port, "--no-access-log")

        def answers() -> bool:
            try:
                return httpx.get(f"{self.url}/sign-in", timeout=5).is_success
            except httpx.TransportError:
                return False

        wait_for(answers, "the web app", seconds=30, log=self.folder / "app.log")

    def start_worker(self, name: str, *more: str) -> subprocess.Popen[bytes]:
        """A model worker that samples and trains."""
        token_file = self.folder / f"{name}.token"
        with self.database.write() as session:
            token_file.write_text(accounts.create_api_token(session, name, TokenScope.WORKER))
        options = {
            "--url": self.url,
            "--token-file": token_file,
            "--checkpoint": self.checkpoint,
            "--name": name,
            "--device": "cpu",
            "--output-dir": self.folder / "worker-output",
        }
        arguments = [str(part) for option in options.items() for part in option]
        return self.start(name, "-m", "model_worker.cli", "run", *arguments, "--train", *more)

    def start_command(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        """A ``preferably`` command."""
        return self.start(name, "-c", "from app.cli import main; main()", *arguments)

    def reconcile(self) -> None:
        """Take the due steps of the weekly cycle until there are none."""
        while reconcile(self.database, self.settings, now()):
            pass

    def log(self, name: str) -> str:
        """What a program has said."""
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")


@contextmanager
def installed(folder: Path, checkpoint: Path, targets: dict[Objective, int]) -> Iterator[Installation]:
    """An installation with an open batch and a promoted checkpoint; its processes end with the block."""
    settings = Settings(data_dir=folder / "var", public_url=f"http://127.0.0.1:{free_port()}", reconcile_every_s=0)
    settings.data_dir.mkdir()
    settings.ensure_secrets()
    command.upgrade(alembic_config(settings.database_url), "head")
    database = connect(settings.database_url)
    installation = Installation(folder, settings, database, checkpoint)
    with database.write() as session:
        opens_at = now()
        batches.create(
            session,
            BatchSettings(
                opens_at=opens_at,
                closes_at=opens_at + timedelta(days=7),
                targets=targets,
                turns_per_conversation=2,
                max_new_tokens=12,
                held_out_share=1 / 3,
            ),
        )
        row = checkpoints.register(session, inspect_checkpoint(checkpoint))
        checkpoints.promote(session, row, for_open_batch=False)
    installation.reconcile()
    try:
        yield installation
    finally:
        for process in reversed(installation.processes):
            process.terminate()
        for process in installation.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        database.dispose()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], object], what: str, *, seconds: float, log: Path | None = None) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        tail = log.read_text(encoding="utf-8", errors="replace")[-3000:] if log is not None else ""
        assert time.monotonic() < deadline, f"{what}: nothing within {seconds} s.\n{tail}"
        time.sleep(0.25)


def short_prompts(file: Path, count: int) -> Path:
    """Conversations for the tiny checkpoint, whose tokenizer spells most words letter by letter."""
    lines = [
        json.dumps({"turns": [f"tea {number}", f"and {number}"] if number % 5 == 0 else [f"tea {number}"]})
        for number in range(count)
    ]
    file.write_text("\n".join(lines), encoding="utf-8")
    return file
