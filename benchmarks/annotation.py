"""The annotator's cycle over HTTP: from sending an annotation to the next comparison on the screen.

    python -m benchmarks.annotation

A real uvicorn process serves the web app on loopback, on embedded SQLite and on PostgreSQL (left out with a note
where none answers). Annotators press a choice as soon as the screen is there: nobody thinks, nobody reads, so N of
them are a far greater load than N people. Comparisons are prepared in the database beforehand: half of them are
annotated already, the others wait with both responses. Every cycle is two requests, the annotation and the end of
its conversation, whose answer is the next comparison. The annotators are threads of this process and share the
machine with the app. Prints one line of JSON; "statements" are the SQL statements of one cycle.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles
from typing import Any

import httpx
import psycopg
from alembic import command
from sqlalchemy import event, make_url, select
from sqlalchemy.orm import Session

from app.accounts import service as accounts
from app.batches import guidelines
from app.batches import service as batches
from app.batches.service import BatchSettings
from app.checkpoints import service as checkpoints
from app.database import Database, alembic_config, connect
from app.models import (
    Annotation,
    AnnotationRevision,
    Batch,
    BatchState,
    Checkpoint,
    Comparison,
    ComparisonState,
    Conversation,
    ConversationState,
    Person,
    PersonRole,
    Response,
    now,
)
from app.settings import Settings
from app.simulation.browser import Browser
from app.simulation.pages import AnnotatorPage
from contract.checkpoint_files import CheckpointFiles
from contract.vocabulary import FinishReason, Objective, Side, Strength

POSTGRESQL = os.environ.get("PREFERABLY_TEST_POSTGRESQL", "postgresql://postgres@127.0.0.1:5432/postgres")
CROWDS = (1, 8, 32)
WARM_UP = 2
TEXT = "Warm the pot, add one spoon of leaves for each cup, pour on water that has just boiled, wait. " * 6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer comparisons, under 50 seconds on two cores")
    parser.add_argument("--comparisons", type=int, default=20_000)
    parser.add_argument("--cycles", type=int, default=640, help="of each crowd, over all its annotators")
    options = parser.parse_args()
    if options.quick:
        options.comparisons, options.cycles = 1_000, 128
    results = [
        measure("sqlite", sqlite_database, options),
        measure("postgresql", postgresql_database, options)
        if is_postgresql_there()
        else {"database": "postgresql", "left_out": "no server answers; set PREFERABLY_TEST_POSTGRESQL"},
    ]
    summary = {"benchmark": "annotation", "comparisons": options.comparisons, "cores": os.cpu_count()}
    print(json.dumps(summary | {"results": results}))


def measure(
    name: str, make_database: Callable[[Path], Any], options: argparse.Namespace
) -> dict[str, object]:
    """The crowds one after the other, on one database."""
    with tempfile.TemporaryDirectory(prefix="preferably-") as folder, make_database(Path(folder)) as url:
        settings = Settings(
            data_dir=Path(folder), database_url=url, public_url=f"http://127.0.0.1:{free_port()}", reconcile_every_s=0
        )
        settings.ensure_secrets()
        command.upgrade(alembic_config(url), "head")
        database = connect(url)
        links = prepare(database, options.comparisons, options.cycles)
        try:
            with serving(settings):
                crowds = [work(settings.public_url, links[size], size, options.cycles) for size in CROWDS]
                statements = count_statements(settings, database)
        finally:
            database.dispose()
    return {"database": name, "crowds": crowds, "statements": statements}
