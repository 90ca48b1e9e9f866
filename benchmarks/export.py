"""Freezes and exports a database of Llama 2's shape while annotators work, and says how long that takes.

    python -m benchmarks.export --quick                     20,000 comparisons on SQLite
    python -m benchmarks.export                             all 1,418,091 on SQLite, and on PostgreSQL where it answers
    python -m benchmarks.export --comparisons N --database URL     an empty database of yours

Fourteen weeks in the proportions of Llama 2's Table 26 (their sizes and turns a dialogue), with texts of about 230
tokens, are filled in and then frozen, one after the other, by a process such as the app starts; each is exported as
it is ready. Meanwhile eight annotators who think for a second work on the same database through the app. Then every
dataset is made again from the database and must have the same bytes. The last line is JSON.
"""

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from statistics import median
from typing import Any

from alembic import command
from rich.console import Console
from rich.progress import Progress
from sqlalchemy import func, select

from app.accounts import service as accounts
from app.database import alembic_config, connect
from app.datasets import freezing
from app.datasets import service as datasets
from app.insights import service as insights
from app.models import Batch, BatchState, Freeze, PersonRole, Response, now
from app.settings import Settings
from benchmarks._annotators import Annotator, Connection, Run, SignedIn, drive, get
from benchmarks._server import free_port, serving_in_processes
from benchmarks._week import add_finished_week, prepare_week, settle
from benchmarks.annotator_cycle import (
    closing_all,
    is_postgresql_there,
    note,
    percentiles,
    postgresql_url,
    sqlite_url,
)

# Llama 2, Table 26: comparisons and turns per dialogue of each batch of human preference data.
WEEKS = (
    (5_561, 4.4),
    (17_072, 4.0),
    (30_146, 3.9),
    (36_206, 3.9),
    (49_375, 3.7),
    (57_746, 4.1),
    (84_388, 3.9),
    (95_235, 3.6),
    (127_235, 3.6),
    (136_729, 3.7),
    (136_868, 3.8),
    (181_293, 3.9),
    (210_881, 4.2),
    (249_356, 4.3),
)
ALL = sum(size for size, _ in WEEKS)
QUICK = 20_000
ANNOTATORS = 8
THINK_S = 1.0
BEFORE_S = 20.0
SLICE_S = 5.0
_NICENESS = 10
_PAGES = ("/admin/batches", "/admin/batches/{batch}", "/admin/batches/{batch}/statistics", "/admin/insights")
_TRAINER_PAGES = ("/datasets", "/datasets/{dataset}")
Figures = dict[str, Any]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK:,} comparisons on SQLite")
    parser.add_argument("--comparisons", type=int, help=f"how many, in Llama 2's proportions; all are {ALL:,}")
    parser.add_argument("--database", help="the URL of an empty database, instead of both kinds")
    options = parser.parse_args()
    comparisons = options.comparisons or (QUICK if options.quick else ALL)
    results = []
    with tempfile.TemporaryDirectory(prefix="preferably-") as folder:
        if options.database:
            results.append(measure(Path(folder), options.database, comparisons))
        else:
            with sqlite_url(Path(folder)) as url:
                results.append(measure(Path(folder), url, comparisons))
            if not options.quick and is_postgresql_there():
                with postgresql_url(Path(folder)) as url:
                    results.append(measure(Path(folder), url, comparisons))
    slowest = max(results, key=lambda one: one["seconds"])
    print(json.dumps(slowest | {"results": results}))


def measure(folder: Path, url: str, comparisons: int) -> Figures:
    """One database, from filling to the last check."""
    data_dir = Path(tempfile.mkdtemp(dir=folder))
    settings = Settings(data_dir=data_dir, database_url=url, public_url=f"http://127.0.0.1:{free_port()}")
    settings.ensure_secrets()
    kind = url.partition(":")[0]
    browsers, staff = fill(settings, comparisons)
    with serving_in_processes(settings, data_dir / "app.log", len(os.sched_getaffinity(0))):
        connections = [Connection(int(settings.public_url.rsplit(":", 1)[1])) for _ in browsers]
        with closing_all(connections):
            annotators = [Annotator(c, browser) for c, browser in zip(connections, browsers, strict=True)]
            for annotator in annotators:
                annotator.start()
            drive(annotators, seconds=SLICE_S, most=ANNOTATORS * 20)
            before = drive(annotators, seconds=BEFORE_S, most=sys.maxsize, think_s=THINK_S)
            figures, during = freeze_meanwhile(settings, annotators)
        pages = admin_pages(settings, staff)
    identical = in_own_process(make_again, settings)
    weeks = figures.pop("weeks")
    result = {
        "database": kind,
        "comparisons": sum(week["comparisons"] for week in weeks),
        "seconds": figures["seconds"],
        "peak_rss_mib": figures["peak_rss_mib"],
        "rows_per_second": round(sum(week["rows"] for week in weeks) / figures["seconds"]),
        "identical_on_repeat": identical["is_identical"],
        "repeat_seconds": identical["seconds"],
        "export_mib": figures["export_mib"],
        "largest_week": max(weeks, key=lambda week: week["comparisons"]),
        "annotator_before": percentiles(before) | {"cycles": len(before.seconds)},
        "annotator_during": percentiles(during) | {"cycles": len(during.seconds)},
        "admin_pages_ms": pages,
        "manifests": {week["name"]: week["manifest_sha256"] for week in weeks},
    }
    note(f"{kind}: {json.dumps({key: value for key, value in result.items() if key != 'manifests'})}")
    shutil.rmtree(data_dir)
    return result


def fill(settings: Settings, comparisons: int) -> tuple[list[SignedIn], SignedIn]:
    """Fourteen weeks that are to be frozen and an open one; gives the annotators' sessions and an admin's."""
    command.upgrade(alembic_config(settings.database_url), "head")
    database = connect(settings.database_url)
    started = time.perf_counter()
    # Enough for the whole time, and two fifths of what the annotator's own benchmark takes.
    still_open = max(2_000, min(comparisons // 100, 12_000))
    browsers = prepare_week(database, comparisons=2 * still_open, still_open=still_open, people=ANNOTATORS)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for number, (size, turns) in enumerate(progress.track(WEEKS, description="filling"), start=1):
            wanted = max(round(size * comparisons / ALL), 20)
            add_finished_week(database, number=number, comparisons=wanted, turns=turns, people=ANNOTATORS)
    settle(database)
    with database.write() as session:
        admin = accounts.get_or_create_person(session, "Ada", PersonRole.ADMIN)
        link = accounts.issue_sign_in_link(session, admin, hours=1)
        session.flush()
        _, token = accounts.sign_in_by_link(session, link, hours=24)
    database.dispose()
    note(f"{settings.database_url.partition(':')[0]}: filled in {time.perf_counter() - started:.0f} s")
    return browsers, SignedIn(f"preferably_session={token}", "")


def freeze_meanwhile(settings: Settings, annotators: Sequence[Annotator]) -> tuple[Figures, Run]:
    """Freeze and export in a process of its own while annotators work."""
    result: Figures = {}
    thread = threading.Thread(target=lambda: result.update(in_own_process(freeze_and_export, settings)))
    thread.start()
    seconds: list[float] = []
    elapsed = cpu = 0.0
    while thread.is_alive():
        run = drive(annotators, seconds=SLICE_S, most=sys.maxsize, think_s=THINK_S)
        seconds += run.seconds
        elapsed, cpu = elapsed + run.elapsed_s, cpu + run.cpu_s
    if not result:
        msg = "the process that freezes failed; see above"
        raise RuntimeError(msg)
    return result, Run(seconds, elapsed, cpu)


def in_own_process(work: Any, settings: Settings) -> Figures:
    """What a function says that runs in a fresh process, so that its memory is its own."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=work, args=(settings, theirs))
    process.start()
    theirs.close()
    try:
        return dict(ours.recv())
    finally:
        process.join()


def freeze_and_export(settings: Settings, answer: Pipe) -> None:
    """Freeze week after week as the app's own process does, and export each."""
    os.nice(_NICENESS)
    database = connect(settings.database_url)
    target = settings.data_dir / "exports"
    target.mkdir()
    weeks: list[Figures] = []
    with database.read() as session:
        numbers = list(
            session.scalars(select(Batch.number).where(Batch.state == BatchState.IN_REVIEW).order_by(Batch.number))
        )
    began = time.perf_counter()
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for number in progress.track(numbers, description="freezing and exporting"):
            started = time.perf_counter()
            with database.write() as session:
                batch = session.scalars(select(Batch).where(Batch.number == number)).one()
                freezing.request(session, batch, at=batch.closes_at)
            freezing.work_off(database, settings, now())
            insights.keep(database, only_settled=True)
            frozen = time.perf_counter()
            with database.read() as session:
                dataset = datasets.get(session, f"batch-{number:03d}")
                problems = datasets.export(session, dataset, target / dataset.name, settings)
            ended = time.perf_counter()
            if problems:
                raise RuntimeError(problems[0])
            week = {
                "name": dataset.name,
                "comparisons": datasets.manifest_of(dataset).comparisons,
                "rows": dataset.rows,
                "freeze_s": round(frozen - started, 1),
                "export_s": round(ended - frozen, 1),
                "manifest_sha256": dataset.manifest_sha256,
            }
            weeks.append(week)
            note(json.dumps(week))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    answer.send(
        {
            "seconds": round(time.perf_counter() - began, 1),
            "peak_rss_mib": round(peak),
            "weeks": weeks,
            "export_mib": round(sum(file.stat().st_size for file in target.rglob("*") if file.is_file()) / 2**20),
        }
    )
    database.dispose()


def make_again(settings: Settings, answer: Pipe) -> None:
    """Make every dataset again from the database; a difference is an error."""
    database = connect(settings.database_url)
    target = settings.data_dir / "again"
    began = time.perf_counter()
    is_identical = True
    with database.read() as session:
        for dataset, _ in datasets.all_datasets(session):
            try:
                datasets.recreate(session, dataset, target, settings)
            except datasets.NotReproducibleError as error:
                note(str(error))
                is_identical = False
            shutil.rmtree(target, ignore_errors=True)
    answer.send({"is_identical": is_identical, "seconds": round(time.perf_counter() - began, 1)})
    database.dispose()


def admin_pages(settings: Settings, staff: SignedIn) -> Mapping[str, float]:
    """How long lists and statistics take at this size: the median of five."""
    database = connect(settings.database_url)
    with database.read() as session:
        last = session.scalars(select(func.max(Batch.number)).where(Batch.state == BatchState.FROZEN)).one()
        pending = session.scalar(select(func.count()).select_from(Freeze))
        responses = session.scalar(select(func.count()).select_from(Response))
    database.dispose()
    note(f"{responses:,} responses in the database, {pending} freezes pending")
    took: dict[str, float] = {}
    with closing(Connection(int(settings.public_url.rsplit(":", 1)[1]))) as connection:
        for path in (*_PAGES, *_TRAINER_PAGES):
            place = path.format(batch=last, dataset=f"batch-{last:03d}")
            times = []
            for _ in range(5):
                started = time.perf_counter()
                answer = connection.ask(get(place, staff))
                times.append(time.perf_counter() - started)
                if b" 200 " not in answer[:20]:
                    note(f"{place}: {answer[:60]!r}")
            took[path] = round(median(times) * 1000, 1)
    return took


if __name__ == "__main__":
    main()
