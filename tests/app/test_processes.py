"""The workspace on real app processes: two of them at once, and one that is killed in the middle of the work."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select

from app.accounts import service as accounts
from app.database import Database
from app.models import Annotation, AnnotationRevision, Batch, Comparison, PersonRole, WorkDay
from app.settings import Settings
from app.simulation.browser import Browser, SimulationError
from app.simulation.pages import AnnotatorPage
from contract.vocabulary import Strength
from tests import factories

COMPARISONS = 60
OVERLAP = 2
ANNOTATORS = 4
START_S = 30.0
KILLS = 3


def make_week(database: Database) -> list[str]:
    """A stock of comparisons, and a sign-in link for each annotator."""
    with database.write() as session:
        batch = factories.make_open_batch(
            session, pool_share=1.0, overlap_share=1.0, overlap_annotations=OVERLAP, curriculum="Ask."
        )
        for number in range(COMPARISONS):
            factories.make_pool_comparison(session, session.get_one(Batch, batch.id), f"What is tea {number}?")
        people = [
            accounts.get_or_create_person(session, f"annotator {number}", PersonRole.ANNOTATOR)
            for number in range(ANNOTATORS)
        ]
        return [f"/sign-in/{accounts.issue_sign_in_link(session, person, hours=1)}" for person in people]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def app_process(settings: Settings, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """One app process that answers on a port."""
    environment = os.environ | {
        "PREFERABLY_DATA_DIR": str(settings.data_dir),
        "PREFERABLY_DATABASE_URL": settings.database_url,
        "PREFERABLY_PUBLIC_URL": f"http://127.0.0.1:{port}",
        "PREFERABLY_RECONCILE_EVERY_S": "0",
    }
    arguments = ["-m", "uvicorn", "--factory", "app.main:create_app", "--no-access-log", "--port", str(port)]
    with Path(settings.data_dir / f"app-{port}.log").open("ab") as log:
        process = subprocess.Popen([sys.executable, *arguments], env=environment, stdout=log, stderr=log)
    try:
        wait_for(f"http://127.0.0.1:{port}/health")
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(url: str) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            httpx.get(url, timeout=5).raise_for_status()
        except httpx.HTTPError:
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"{url} does not answer")


def work(browser: Browser, said: list[str]) -> None:
    """Judge until nothing is left, or the app is gone; what was answered is noted."""
    page = browser.open("/annotate")
    while page.screen == "judge":
        page = judge(browser, page, said)


def work_for_ever(browser: Browser, said: list[str]) -> None:
    while True:
        work(browser, said)


def judge(browser: Browser, page: AnnotatorPage, said: list[str]) -> AnnotatorPage:
    form = page.form("/annotation")
    assert form is not None
    following = browser.send(form, {"rating": f"{page.responses[0].response_id}:{Strength.BETTER}"})
    said.append(page.comparison)
    return following


def test_two_app_processes_hand_out_each_comparison_to_as_many_as_are_wanted(
    database: Database, settings: Settings
) -> None:
    links = make_week(database)
    ports = [free_port(), free_port()]
    said: list[list[str]] = [[] for _ in links]
    with ExitStack() as stack:
        for port in ports:
            stack.enter_context(app_process(settings, port))
        urls = [f"http://127.0.0.1:{ports[number % 2]}" for number in range(len(links))]
        browsers = [stack.enter_context(Browser(url)) for url in urls]
        for browser, link in zip(browsers, links, strict=True):
            browser.sign_in(link)
        threads = [threading.Thread(target=work, args=pair) for pair in zip(browsers, said, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    judged = Counter(comparison for of_one in said for comparison in of_one)
    assert len(judged) == COMPARISONS
    assert set(judged.values()) == {OVERLAP}
    assert all(len(set(of_one)) == len(of_one) for of_one in said)
    with database.read() as session:
        assert sum(session.scalars(select(WorkDay.comparisons))) == COMPARISONS
        assert sum(session.scalars(select(WorkDay.annotations))) == COMPARISONS * OVERLAP
        assert set(session.scalars(select(Comparison.open_places))) == {0}


def test_nothing_that_was_answered_is_lost_when_the_app_is_killed(database: Database, settings: Settings) -> None:
    link = make_week(database)[0]
    port = free_port()
    said: list[str] = []
    with Browser(f"http://127.0.0.1:{port}") as browser:
        for kill in range(KILLS):
            with app_process(settings, port) as process:
                if kill == 0:
                    browser.sign_in(link)
                threading.Timer(0.3 + kill / 5, process.send_signal, [signal.SIGKILL]).start()
                with pytest.raises(SimulationError):
                    work_for_ever(browser, said)
        with app_process(settings, port):
            # The same screen is there again, and what was left is judged.
            work(browser, said)
    with database.read() as session:
        stored = Counter(str(one) for one in session.scalars(select(Annotation.comparison_id)))
        assert set(stored.values()) == {1}
        # A judgement may have been stored whose answer never came; none that was answered is missing.
        assert set(said) <= stored.keys()
        assert len(stored) == COMPARISONS
        assert len(session.scalars(select(AnnotationRevision.id)).all()) == COMPARISONS
        assert sum(session.scalars(select(WorkDay.annotations))) == COMPARISONS
