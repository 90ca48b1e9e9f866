"""Writes datasets in a process of its own at low priority, so that the app's threads go on answering."""

import multiprocessing
import os
from datetime import datetime
from threading import Event

from app.database import Database, connect
from app.datasets import freezing
from app.insights import service as insights
from app.logs import configure
from app.models import now
from app.settings import Settings

_LOOK_S = 0.5
_NICENESS = 10


class WriterFailedError(RuntimeError):
    """The process that writes datasets ended badly."""


def work_off(database: Database, settings: Settings, at: datetime, *, stop: Event) -> int:
    """Let another process write the datasets that are due, and wait for it; 0 where there is nothing to do.

    When ``stop`` is set the writer is ended. What it had begun is begun anew, by whoever comes next.

    Raises:
        WriterFailedError: It failed; why is noted with the freeze.

    """
    if not freezing.is_due(database, at):
        return 0
    writer = multiprocessing.get_context("spawn").Process(target=_write, args=(settings,), daemon=True)
    writer.start()
    while writer.is_alive() and not stop.is_set():
        writer.join(_LOOK_S)
    if stop.is_set():
        writer.terminate()
        writer.join()
        return 0
    if writer.exitcode:
        msg = f"The process that writes datasets ended with {writer.exitcode}; the page of the batch says why."
        raise WriterFailedError(msg)
    return 1


def _write(settings: Settings) -> None:
    os.nice(_NICENESS)
    configure()
    database = connect(settings.database_url)
    try:
        freezing.work_off(database, settings, now())
        insights.keep(database, only_settled=True)
    finally:
        database.dispose()
