"""The thread in each app process that moves the weekly cycle along."""

import threading
from collections.abc import Generator
from contextlib import contextmanager

import structlog

from app.batches import service as batches
from app.batches.reconciler import reconcile
from app.database import Database
from app.models import now
from app.settings import Settings

_LOG = structlog.get_logger(__name__)


@contextmanager
def reconciling(database: Database, settings: Settings) -> Generator[None]:
    """Reconcile every ``settings.reconcile_every_s`` seconds for as long as the block runs; 0 means never."""
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
        try:
            _ensure_first_batch(database)
            while reconcile(database, settings, now()) and not stop.is_set():
                pass
        except Exception:  # noqa: BLE001 - the cycle must go on; the next round repairs what this one left
            _LOG.exception("reconcile_failed")


def _ensure_first_batch(database: Database) -> None:
    """Schedule the first week. The look takes no lock: but once, there is a batch already."""
    with database.read() as session:
        if batches.has_any(session):
            return
    with database.write() as session:
        batches.ensure_first(session)
