"""The thread in each app process that keeps things going: the weekly cycle, the stock, places of the idle."""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import datetime
from functools import partial

import structlog

from app.batches import service as batches
from app.batches.reconciler import reconcile
from app.comparisons import handout
from app.database import Database
from app.datasets import apart
from app.insights import service as insights
from app.models import now
from app.pool import stock
from app.settings import Settings

_LOG = structlog.get_logger(__name__)


@contextmanager
def reconciling(database: Database, settings: Settings) -> Generator[None]:
    """Look after everything each ``settings.reconcile_every_s`` seconds while the block runs; 0 means never."""
    if settings.reconcile_every_s == 0:
        yield
        return
    stop = threading.Event()
    thread = threading.Thread(target=_loop, args=(database, settings, stop), name="reconciler", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _loop(database: Database, settings: Settings, stop: threading.Event) -> None:
    while not stop.wait(settings.reconcile_every_s):
        look_after(database, settings, now(), stop)


def look_after(database: Database, settings: Settings, at: datetime, stop: threading.Event) -> None:
    """Take everything that is due. What fails is logged and does not keep the rest back; the next round repairs it."""

    def move_the_week_along() -> None:
        _ensure_first_batch(database)
        write_apart = partial(apart.work_off, stop=stop)
        while reconcile(database, settings, at, write_apart) and not stop.is_set():
            pass

    steps: tuple[tuple[str, Callable[[], object]], ...] = (
        ("reconcile_failed", move_the_week_along),
        ("counting_failed", lambda: insights.keep(database)),
        ("expire_failed", lambda: handout.expire(database, at)),
        ("refill_failed", lambda: stock.refill(database, settings, at)),
    )
    for failure, step in steps:
        if stop.is_set():
            return
        try:
            step()
        except Exception:  # noqa: BLE001 - the other steps must go on
            _LOG.exception(failure)


def _ensure_first_batch(database: Database) -> None:
    """Schedule the first week. The look takes no lock: but once, there is a batch already."""
    with database.read() as session:
        if batches.has_any(session):
            return
    with database.write() as session:
        batches.ensure_first(session)
