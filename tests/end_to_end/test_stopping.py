"""Stopping a local installation: one signal or several, everything ends and the next start can begin."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.local import require_free_port
from model_worker.demo.tiny import make_tiny_checkpoint


@pytest.mark.xdist_group("end_to_end")
def test_impatient_signals_leave_no_process_behind(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = str(Path(sys.executable).with_name("preferably"))
    checkpoint = make_tiny_checkpoint(tmp_path / "tiny")
    installation = subprocess.Popen(
        [program, "up", "--port", str(port), "--data-dir", str(tmp_path / "var"), "--checkpoint", str(checkpoint)],
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # As a shell starts a background job: with SIGINT ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),  # noqa: PLW1509 - no threads here yet
    )
    assert installation.stdout is not None
    with installation.stdout as output:
        while "worker is ready" not in (line := output.readline()):
            assert line, "the installation ended before its worker was ready"
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
            installation.send_signal(number)
            time.sleep(0.1)
        assert installation.wait(60) == 0
    require_free_port(port)
