"""The command line as a process of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from contract.sampling import PROTOCOL_VERSION, Finish, Register, Release
from model_worker.checkpoint import Checkpoint
from model_worker.sampling.interface import lease_of
from model_worker.sampling.lorem import lorem_checkpoint
from model_worker.sampling.slots.pair import ENGINE
from tests.model_worker.app_server import TOKEN, AppServer
from tests.model_worker.jobs import make_job, make_spec

COMMAND = [sys.executable, "-m", "model_worker.cli"]
LOREM = lorem_checkpoint().digest


def environment(**changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFERABLY_")}
    return kept | {"OMP_NUM_THREADS": "1", "PREFERABLY_WORKER_TOKEN": TOKEN} | changes


def call(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], env=environment(**changes), capture_output=True, text=True, timeout=60, check=False
    )


@contextmanager
def started(*arguments: str, **changes: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*COMMAND, "run", *arguments], env=environment(**changes), stderr=subprocess.PIPE, text=True
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def test_version_and_help() -> None:
    assert call("version").stdout.endswith(f", protocol {PROTOCOL_VERSION}\n")
    assert "tiny-checkpoint" in call("--help").stdout


def test_a_real_checkpoint_is_served_until_sigterm(app_server: AppServer, tiny: Checkpoint, tiny_folder: Path) -> None:
    digest = tiny.files.digest
    job = make_job(make_spec(digest, temperature=0.7), make_spec(digest, seed=2, temperature=1.2))
    app_server.jobs = [job]
    with started("--url", app_server.url, "--checkpoint", str(tiny_folder), "--name", "gpu-1") as process:
        app_server.wait_for(lambda: app_server.sent(Finish), timeout_s=60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    register = app_server.sent(Register)[0]
    assert (register.name, register.engine, register.checkpoints) == ("gpu-1", ENGINE, (tiny.files,))
    assert {"torch", "transformers", "python", "preferably"} <= set(register.versions)
    responses = app_server.sent(Finish)[0].responses
    assert [response.response_id for response in responses] == [spec.response_id for spec in job.specs]


def test_sigterm_releases_what_does_not_end_in_time(app_server: AppServer) -> None:
    job = make_job(make_spec(LOREM, max_new_tokens=60), make_spec(LOREM, seed=2, max_new_tokens=60))
    app_server.jobs = [job]
    slow = {"PREFERABLY_WORKER_LOREM_WORD_S": "0.3", "PREFERABLY_WORKER_DRAIN_S": "0.3"}
    with started("--url", app_server.url, "--engine", "lorem", **slow) as process:
        app_server.wait_for(app_server.with_leases)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert app_server.sent(Release)[0].leases == (lease_of(job),)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"PREFERABLY_WORKER_TOKEN": "wrong"}, "The token is unknown."), ({}, "upgrade the worker")],
)
def test_a_refused_worker_says_why_and_exits_with_2(
    app_server: AppServer, changes: dict[str, str], message: str
) -> None:
    app_server.protocol = 99
    result = call("run", "--url", app_server.url, "--engine", "lorem", **changes)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "--url", "http://127.0.0.1:1", "--checkpoint", "/nowhere"), "/nowhere is not a folder."),
        (("run", "--engine", "lorem"), "url is missing: give --url or set PREFERABLY_WORKER_URL"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: tuple[str, ...], message: str) -> None:
    result = call(*arguments)
    assert result.returncode == 2
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1
