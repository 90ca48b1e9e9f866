"""Serves the web app for benchmarks: in processes of its own, or here, where its SQL statements can be counted."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from sqlalchemy import Engine, event

from app.main import create_app
from app.settings import Settings

_START_S = 30.0
_POLL_S = 0.05


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving_in_processes(settings: Settings, log: Path, processes: int) -> Iterator[int]:
    """The app as ``preferably serve`` runs it, and the page that says hello; gives the id of the first process."""
    environment = os.environ | {
        "PREFERABLY_DATA_DIR": str(settings.data_dir),
        "PREFERABLY_DATABASE_URL": settings.database_url,
        "PREFERABLY_PUBLIC_URL": settings.public_url,
    }
    arguments = ["-m", "benchmarks._hello", _port(settings), str(processes)]
    with log.open("wb") as stream:
        process = subprocess.Popen(  # noqa: S603 - our own program, arguments as a list
            [sys.executable, *arguments], env=environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
        )
    try:
        _wait_until_it_answers(settings.public_url, process, log)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


@contextmanager
def serving_here(settings: Settings) -> Iterator[None]:
    """The app in a thread of this process."""
    server = uvicorn.Server(uvicorn.Config(create_app(settings), port=int(_port(settings)), log_config=None))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        _wait_until_it_answers(settings.public_url)
        yield
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def counting_statements() -> Iterator[list[str]]:
    """The SQL statements of this process; the beginning of a transaction is none."""
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not statement.startswith(("BEGIN", "PRAGMA")):
            statements.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def _port(settings: Settings) -> str:
    return settings.public_url.rsplit(":", 1)[1]


def _wait_until_it_answers(url: str, process: subprocess.Popen[bytes] | None = None, log: Path | None = None) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        try:
            httpx.get(f"{url}/health", timeout=5).raise_for_status()
        except httpx.HTTPError as error:
            has_ended = process is not None and process.poll() is not None
            if has_ended or time.monotonic() > deadline:
                end = log.read_text(encoding="utf-8", errors="replace")[-2000:] if log is not None else ""
                msg = f"The app does not answer: {error}\n{end}"
                raise RuntimeError(msg) from error
            time.sleep(_POLL_S)
        else:
            return
