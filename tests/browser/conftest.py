"""Fixtures for journeys: a whole installation as `make run` starts it, and headless Chromium."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from app.paths import ROOT
from model_worker.demo.tiny import make_tiny_checkpoint
from tests.browser.stage import WIDE, Stage, stage
from tests.conftest import IN_CI

CHROMIUM = os.environ.get("PREFERABLY_CHROMIUM", "/usr/bin/chromium")
CHROMIUM_OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
_START_S = 90


@dataclass
class Installation:
    """A running app and worker, with their one-time sign-in links by person."""

    process: subprocess.Popen[str]
    data_dir: Path
    url: str = ""
    links: dict[str, str] = field(default_factory=dict)
    output: list[str] = field(default_factory=list)
    is_worker_ready: threading.Event = field(default_factory=threading.Event)

    def command(self, *arguments: str, program: str = "preferably") -> subprocess.CompletedProcess[str]:
        """Run one of the project's commands against this installation."""
        environment = os.environ | {"PREFERABLY_DATA_DIR": str(self.data_dir), "PREFERABLY_PUBLIC_URL": self.url}
        program = str(Path(sys.executable).with_name(program))
        return subprocess.run(
            [program, *arguments], env=environment, capture_output=True, text=True, timeout=300, check=False
        )

    def read(self) -> None:
        """Follow what the supervisor prints: the links, and that the worker is ready."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output.append(line)
            if found := re.match(r"\s+(Demo \w+)\s+(http\S+)/sign-in/(\S+)", line):
                self.url = found[2]
                self.links[found[1]] = f"{found[2]}/sign-in/{found[3]}"
            if "worker is ready" in line:
                self.is_worker_ready.set()


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random chat checkpoint."""
    return make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny-chat")


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Iterator[Installation]:
    """`preferably up` with the tiny checkpoint, as a new user starts it."""
    data_dir = tmp_path_factory.mktemp("installation")
    program = str(Path(sys.executable).with_name("preferably"))
    arguments = ["--port", str(free_port()), "--data-dir", str(data_dir), "--checkpoint", str(tiny_checkpoint)]
    process = subprocess.Popen(
        [program, "up", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    installation = Installation(process, data_dir)
    reader = threading.Thread(target=installation.read, daemon=True)
    reader.start()
    if not installation.is_worker_ready.wait(_START_S):
        process.kill()
        pytest.fail(f"The installation did not start:\n{''.join(installation.output)}")
    yield installation
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0, "".join(installation.output)
    reader.join()
    assert process.stdout is not None
    process.stdout.close()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Headless Chromium."""
    if not Path(CHROMIUM).exists():
        if IN_CI:
            pytest.fail(f"{CHROMIUM} does not exist, and CI must test in a browser.")
        pytest.skip(f"SKIPPED LOUDLY: no Chromium at {CHROMIUM}; set PREFERABLY_CHROMIUM.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The app with an open batch and without a worker: a test says itself when responses arrive."""
    with stage(tmp_path_factory.mktemp("stage"), free_port()) as played:
        played.open_batch()
        yield played


@pytest.fixture
def visit(chromium: Browser, played: Stage, request: pytest.FixtureRequest) -> Iterator[Callable[..., Page]]:
    """Opens a window of an annotator of this test's own; its console must stay empty."""
    contexts = []
    said: list[str] = []

    def visit(*, has_read: bool = True, **options: object) -> Page:
        context = chromium.new_context(viewport=WIDE, **options)  # type: ignore[arg-type]
        context.set_default_timeout(10_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: note(said, message))
        page.on("pageerror", lambda error: said.append(str(error)))
        played.enter(page, request.node.name, has_read=has_read)
        return page

    yield visit
    for context in contexts:
        context.close()
    # A test that takes the connection away says so by its own answers, which the console notes.
    assert [line for line in said if "(Bad Gateway)" not in line] == []


@pytest.fixture
def sign_in(chromium: Browser, installation: Installation) -> Iterator[Callable[[str], Page]]:
    """Opens a browser window of somebody's own and signs them in: ``sign_in("Demo admin")``."""
    contexts = []

    def sign_in(name: str) -> Page:
        context = chromium.new_context(viewport={"width": 1366, "height": 768})
        context.set_default_timeout(30_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: pytest.fail(f"Script error: {error}"))
        page.goto(installation.links[name])
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("link", name=name).wait_for()
        return page

    yield sign_in
    for context in contexts:
        context.close()


def note(said: list[str], message: ConsoleMessage) -> None:
    """Note what the console says, but for remarks, such as that an autofocus found the focus taken."""
    if message.type != "info":
        said.append(f"{message.text} {message.location['url']}")


def wait_until(condition: Callable[[], bool], *, seconds: float, what: str) -> None:
    """Look again and again until something has happened."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(0.5)
