"""The annotator's cycle over HTTP: from sending an annotation to the next comparison on the screen.

    python -m benchmarks.annotator_cycle [--quick]

The app runs as ``preferably serve`` runs it, on loopback, with one process for each core and with one alone, on
embedded SQLite and on PostgreSQL (left out with a note where none answers). Comparisons of the prompt pool wait with
both responses, the others are judged already; a cycle is one request. Annotators send the next annotation as soon as
the screen is there: nobody reads and nobody thinks, so 8 of them are a far greater load than 8 people. One run is
paced, with a second of thinking. The load shares the cores with the app; what it takes of them is ``load_cpu``.

Prints a table, and as its last line one JSON object. Its figures ``p95_ms`` and ``cycles_per_second`` are those of 8
annotators over 20,000 comparisons with a process for each core, on the slower of the databases. ``ratio_to_hello``
says how many requests of a page that only says hello the same server answers in the time of one cycle, in the same
run. ``page_kb`` and ``page_requests`` are the first load of the page: what it links to, as it is transferred.
"""

import argparse
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

import psycopg
from alembic import command
from sqlalchemy import make_url

from app.database import alembic_config, connect
from app.settings import Settings
from benchmarks import _processes as processes
from benchmarks._annotators import Annotator, Connection, Repeated, Run, SignedIn, content, drive, get
from benchmarks._server import counting_statements, free_port, serving_here, serving_in_processes
from benchmarks._week import prepare_week

POSTGRESQL = os.environ.get("PREFERABLY_TEST_POSTGRESQL", "postgresql://postgres@127.0.0.1:5432/postgres")
CORES = len(os.sched_getaffinity(0))
HELLO_S = 1.0
MANY = 1_000_000_000
_ADDRESSES = re.compile(r'<(?:script|link|img)[^>]+(?:src|href)="(/[^"]+)"')
_CPU_DIGITS = 2
Figures = dict[str, object]


@dataclass(frozen=True)
class Extent:
    """How much is measured."""

    sizes: Sequence[int]
    crowds: Sequence[int]
    process_counts: Sequence[int]
    seconds: float
    """How long each crowd works, if it does not run out of comparisons before."""
    most_open: int

    def still_open(self, comparisons: int) -> int:
        """How many comparisons wait to be judged."""
        return min(int(comparisons * 0.4), self.most_open)

    def most_cycles(self, comparisons: int) -> int:
        """How many of them a crowd may take, so that the last one finds enough."""
        # Of those that are open a few remain, which annotators hold when their crowd stops.
        runs = len(self.process_counts) * (len(self.crowds) + 1) + 1
        return max((self.still_open(comparisons) - len(self.process_counts) * sum(self.crowds)) // runs, 30)


QUICK = Extent(sizes=(20_000,), crowds=(8,), process_counts=(CORES,), seconds=6.0, most_open=8_000)
FULL = Extent(
    sizes=(1_000, 20_000, 1_000_000),
    crowds=(1, 8, 32, 128),
    process_counts=tuple(sorted({1, CORES})),
    seconds=10.0,
    most_open=40_000,
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="8 annotators over 20,000 comparisons; under two minutes")
    parser.add_argument("--sizes", type=int, nargs="+", help="how many comparisons, instead of all sizes")
    parser.add_argument("--crowds", type=int, nargs="+", help="how many annotators at once, instead of all")
    parser.add_argument("--seconds", type=float, help="how long each crowd works at most")
    options = parser.parse_args()
    base = QUICK if options.quick else FULL
    extent = Extent(
        options.sizes or base.sizes,
        options.crowds or base.crowds,
        base.process_counts,
        options.seconds or base.seconds,
        base.most_open,
    )
    databases = {"sqlite": sqlite_url}
    notes = []
    if is_postgresql_there():
        databases["postgresql"] = postgresql_url
    else:
        notes.append(f"no server answers at {POSTGRESQL}; set PREFERABLY_TEST_POSTGRESQL")
    page: Figures = {}
    results: list[Figures] = []
    for size in extent.sizes:
        for name, database_url in databases.items():
            page = measure(name, database_url, size, extent, results)
    print(json.dumps(summary(results) | page | {"cores": CORES, "left_out": notes, "results": results}))


def measure(
    name: str,
    database_url: Callable[[Path], AbstractContextManager[str]],
    size: int,
    extent: Extent,
    results: list[Figures],
) -> Figures:
    """All crowds, one after the other, on one database; gives the weight of the page."""
    with tempfile.TemporaryDirectory(prefix="preferably-") as data_dir, database_url(Path(data_dir)) as url:
        settings = Settings(data_dir=Path(data_dir), database_url=url, public_url=f"http://127.0.0.1:{free_port()}")
        settings.ensure_secrets()
        command.upgrade(alembic_config(url), "head")
        database = connect(url)
        started = time.perf_counter()
        people = max(extent.crowds) + 1
        browsers = prepare_week(database, comparisons=size, still_open=extent.still_open(size), people=people)
        database.dispose()
        note(f"{name}: {size:,} comparisons filled in {time.perf_counter() - started:.0f} s")
        page: Figures = {}
        for count in extent.process_counts:
            with serving_in_processes(settings, Path(data_dir) / "app.log", count) as root:
                about = {"database": name, "comparisons": size, "processes": count}
                page = weigh(settings, browsers[0])
                for crowd, think_s in [*((crowd, 0.0) for crowd in extent.crowds), (8, 1.0)]:
                    figures = about | work(
                        settings, browsers[:crowd], root, extent.seconds, extent.most_cycles(size), think_s
                    )
                    results.append(figures)
                    show(figures)
        with serving_here(settings):
            statements = count_statements(settings, browsers[-1])
        note(f"{name}: {len(statements)} statements a cycle")
        for figures in results:
            if figures["database"] == name and figures["comparisons"] == size:
                figures["statements"] = len(statements)
        return page


def work(
    settings: Settings, browsers: Sequence[SignedIn], root: int, seconds: float, most: int, think_s: float
) -> Figures:
    """Have a crowd work, and say how long its cycles took and what they cost."""
    connections = [Connection(_port(settings)) for _ in browsers]
    servers, database = processes.tree(root), processes.named("postgres")
    with closing_all(connections):
        annotators = [Annotator(connection, browser) for connection, browser in zip(connections, browsers, strict=True)]
        for annotator in annotators:
            annotator.start()
        # The first few warm up what the processes remember between requests.
        drive(annotators, seconds=1.0, most=most // 10, think_s=0.0)
        before, database_before = processes.cost(servers), processes.cost(database)
        run = drive(annotators, seconds=seconds, most=most, think_s=think_s)
        after, database_after = processes.cost(servers), processes.cost(database)
        judged = [comparison for annotator in annotators for comparison in annotator.judged]
        hello = drive([Repeated(c, get("/hello")) for c in connections], seconds=HELLO_S, most=MANY)
    if len(judged) != len(set(judged)):
        msg = "the same comparison was handed out twice"
        raise RuntimeError(msg)
    cycles = len(run.seconds)
    return {
        "annotators": len(browsers),
        "think_s": think_s,
        "cycles": cycles,
        "cycles_per_s": round(cycles / run.elapsed_s, 1),
        **percentiles(run),
        "server_cpu_ms": round((after.cpu_s - before.cpu_s) / cycles * 1000, 2),
        "database_cpu_ms": round((database_after.cpu_s - database_before.cpu_s) / cycles * 1000, 2),
        "server_mb": round(after.rss / 1e6),
        "load_cpu": round(run.cpu_s / run.elapsed_s, _CPU_DIGITS),
        "hello_per_s": round(len(hello.seconds) / hello.elapsed_s),
        "hello_p50_ms": round(median(hello.seconds) * 1000, 2),
        "ratio_to_hello": round((len(hello.seconds) / hello.elapsed_s) / (cycles / run.elapsed_s), 1),
    }


def count_statements(settings: Settings, browser: SignedIn) -> list[str]:
    """The statements of one cycle."""
    with closing(Connection(_port(settings))) as connection:
        annotator = Annotator(connection, browser)
        annotator.start()
        drive([annotator], seconds=10, most=2)
        with counting_statements() as statements:
            drive([annotator], seconds=10, most=1)
        return list(statements)


def weigh(settings: Settings, browser: SignedIn) -> Figures:
    """The first load of the page, as a browser that has nothing yet would fetch it."""
    with closing(Connection(_port(settings))) as connection:
        page = connection.ask(get("/annotate", browser, extra="Accept-Encoding: gzip\r\n"))
        found = sorted(set(_ADDRESSES.findall(content(page).decode())))
        answers = [connection.ask(get(path, browser, extra="Accept-Encoding: gzip\r\n")) for path in found]
        size = sum(len(answer.split(b"\r\n\r\n", 1)[1]) for answer in [page, *answers])
    return {"page_kb": round(size / 1000, 1), "page_requests": 1 + len(answers)}


def percentiles(run: Run) -> Figures:
    """Median, 95th and 99th percentile in milliseconds."""
    cuts = quantiles([*run.seconds, *run.seconds], n=100, method="inclusive")
    return {f"p{place}_ms": round(cuts[place - 1] * 1000, 1) for place in (50, 95, 99)}


def summary(results: Sequence[Figures]) -> Figures:
    """The figures to watch: 8 annotators who do not think, a process for each core, the slower database."""
    wanted = [
        one
        for one in results
        if one["annotators"] == 8 and not one["think_s"] and one["processes"] == CORES  # noqa: PLR2004
    ]
    of_size = [one for one in wanted if one["comparisons"] == 20_000] or wanted  # noqa: PLR2004
    if not of_size:
        return {"benchmark": "annotator_cycle"}
    slower = max(of_size, key=lambda one: float(str(one["p95_ms"])))
    return {
        "benchmark": "annotator_cycle",
        "p95_ms": slower["p95_ms"],
        "cycles_per_second": slower["cycles_per_s"],
        "ratio_to_hello": slower["ratio_to_hello"],
        "database": slower["database"],
    }


def show(figures: Figures) -> None:
    """One line of the table."""
    note(
        "{database:10} {comparisons:>9,} {processes} process(es) {annotators:>3} annotators"
        "{pace} {cycles:>5} cycles {cycles_per_s:>6}/s  p50 {p50_ms:>6}  p95 {p95_ms:>6}  p99 {p99_ms:>6} ms  "
        "CPU {server_cpu_ms} + {database_cpu_ms} ms  {server_mb} MB  load {load_cpu}  hello {hello_per_s}/s, "
        "{ratio_to_hello} in a cycle".format(pace=" who think" if figures["think_s"] else "", **figures)
    )


def note(line: str) -> None:
    """Say something beside the result."""
    print(line, flush=True, file=sys.stderr if not sys.stdout.isatty() else sys.stdout)


@contextmanager
def closing_all(connections: Sequence[Connection]) -> Iterator[None]:
    """Close connections at the end."""
    try:
        yield
    finally:
        for connection in connections:
            connection.close()


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


def _port(settings: Settings) -> int:
    return int(settings.public_url.rsplit(":", 1)[1])


if __name__ == "__main__":
    main()
