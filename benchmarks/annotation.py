"""The annotator's cycle over HTTP: from sending an annotation to the next comparison on the screen.

    python -m benchmarks.annotation

A real uvicorn process serves the web app on loopback, on embedded SQLite and on PostgreSQL (left out with a note
where none answers). Annotators choose as soon as the screen is there: nobody reads and nobody thinks, so N of them
are a far greater load than N people. No model is needed: half of the comparisons are annotated already, the others
wait with both responses. A cycle is two requests: the annotation, and the end of its conversation, whose answer is
the next comparison. The annotators are threads of this process and share the machine with the app, which has one
process. Prints one line of JSON; ``statements`` are the SQL statements of one cycle.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

import psycopg
from alembic import command
from sqlalchemy import make_url

from app.database import alembic_config, connect
from app.settings import Settings
from app.simulation.browser import Browser
from app.simulation.pages import AnnotatorPage, PageForm
from benchmarks._server import counting_statements, free_port, serving_here, serving_in_a_process
from benchmarks._week import Crowd, prepare_week
from contract.vocabulary import Strength

POSTGRESQL = os.environ.get("PREFERABLY_TEST_POSTGRESQL", "postgresql://postgres@127.0.0.1:5432/postgres")
SIZES = (1, 8, 32)
WARM_UP = 1
Figures = dict[str, object]


@dataclass(frozen=True)
class Extent:
    """How much is measured."""

    comparisons: int
    seconds: float
    """How long each crowd works, if it does not run out of comparisons before."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1,000 comparisons, under 50 seconds on two cores")
    parser.add_argument("--comparisons", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each crowd works at most")
    options = parser.parse_args()
    extent = Extent(1_000, 2.5) if options.quick else Extent(options.comparisons, options.seconds)
    results = [measure("sqlite", sqlite_url, extent)]
    if is_postgresql_there():
        results.append(measure("postgresql", postgresql_url, extent))
    else:
        note = f"no server answers at {POSTGRESQL}; set PREFERABLY_TEST_POSTGRESQL"
        results.append({"database": "postgresql", "left_out": note})
    about = {"benchmark": "annotation", "comparisons": extent.comparisons, "cores": os.cpu_count()}
    print(json.dumps(about | {"results": results}))


def measure(name: str, database_url: Callable[[Path], AbstractContextManager[str]], extent: Extent) -> Figures:
    """All crowds, one after the other, on one database."""
    with tempfile.TemporaryDirectory(prefix="preferably-") as data_dir, database_url(Path(data_dir)) as url:
        settings = Settings(
            data_dir=Path(data_dir),
            database_url=url,
            public_url=f"http://127.0.0.1:{free_port()}",
            reconcile_every_s=0,
        )
        settings.ensure_secrets()
        command.upgrade(alembic_config(url), "head")
        database = connect(url)
        # One more of one annotator, whose statements are counted.
        crowds = prepare_week(database, comparisons=extent.comparisons, sizes=(*SIZES, 1))
        database.dispose()
        with serving_in_a_process(settings, Path(data_dir) / "app.log"):
            figures = [work(settings.public_url, crowd, extent.seconds) for crowd in crowds[:-1]]
        with serving_here(settings), Browser(settings.public_url) as browser:
            page = start(browser, crowds[-1].links[0])
            with counting_statements() as statements:
                cycle(browser, page)
        return {"database": name, "statements": len(statements), "crowds": figures}


def work(url: str, crowd: Crowd, seconds: float) -> Figures:
    """Have a crowd work, and say how long its cycles took."""
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(max_workers=len(crowd.links)))
        browsers = [stack.enter_context(Browser(url)) for _ in crowd.links]
        pages = list(pool.map(start, browsers, crowd.links))
        started = time.perf_counter()
        deadline = started + seconds
        cycles = list(pool.map(lambda one: cycles_until(deadline, *one), zip(browsers, pages, strict=True)))
        elapsed = time.perf_counter() - started
    submits = [submit for annotator in cycles for submit, _ in annotator]
    totals = [submit + following for annotator in cycles for submit, following in annotator]
    return {
        "annotators": len(crowd.links),
        "cycles": len(totals),
        "cycles_per_s": round(len(totals) / elapsed, 1),
        **milliseconds("cycle", totals),
        **milliseconds("submit", submits),
    }


def start(browser: Browser, link: str) -> AnnotatorPage:
    """Sign in, warm up, and give the screen with the first comparison."""
    browser.sign_in(link)
    page = browser.open("/annotate")
    for _ in range(WARM_UP):
        page, _ = cycle(browser, page)
    return page


def cycles_until(deadline: float, browser: Browser, page: AnnotatorPage) -> list[tuple[float, float]]:
    """Cycles until the time is over or nothing is left to judge: seconds of both requests of each."""
    seconds = []
    while page.screen == "judge" and time.perf_counter() < deadline:
        page, took = cycle(browser, page)
        seconds.append(took)
    return seconds


def cycle(browser: Browser, page: AnnotatorPage) -> tuple[AnnotatorPage, tuple[float, float]]:
    """Judge the comparison on the screen and end its conversation: the next screen, and how long each took."""
    form = expect(page, "judge", "/annotation")
    chosen = page.responses[0].response_id
    page = browser.send(form, {"rating": f"{chosen}:{Strength.BETTER.value}"})
    submit_s = browser.last_request_s
    page = browser.send(expect(page, "continue", "/finish"), {})
    return page, (submit_s, browser.last_request_s)


def expect(page: AnnotatorPage, screen: str, ending: str) -> PageForm:
    """The form of a screen that must be there."""
    form = page.form(ending)
    if page.screen != screen or form is None:
        msg = f"expected the screen {screen} with a form to {ending}, not {page.screen!r}"
        raise SystemExit(msg)
    return form


def milliseconds(name: str, seconds: list[float]) -> Figures:
    """Median and 95th percentile."""
    cuts = quantiles([*seconds, *seconds], n=20, method="inclusive")
    return {f"{name}_p50_ms": round(cuts[9] * 1000, 1), f"{name}_p95_ms": round(cuts[18] * 1000, 1)}


@contextmanager
def sqlite_url(data_dir: Path) -> Iterator[str]:
    """The embedded database."""
    yield f"sqlite:///{data_dir / 'preferably.db'}"


@contextmanager
def postgresql_url(_data_dir: Path) -> Iterator[str]:
    """A database of its own, dropped afterwards."""
    name = f"preferably_bench_{os.getpid()}"
    with psycopg.connect(POSTGRESQL, autocommit=True) as server:
        server.execute(f'CREATE DATABASE "{name}"')
        try:
            yield make_url(POSTGRESQL).set(database=name).render_as_string(hide_password=False)
        finally:
            server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def is_postgresql_there() -> bool:
    """Whether a server answers."""
    try:
        psycopg.connect(POSTGRESQL, connect_timeout=3).close()
    except psycopg.OperationalError:
        return False
    return True


if __name__ == "__main__":
    main()
