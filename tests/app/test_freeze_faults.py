"""What goes wrong while a dataset is written: all of it exists afterwards or none, and the next attempt succeeds."""

import errno
import os
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url, select
from sqlalchemy.exc import DBAPIError

from app.database import Database
from app.datasets import freezing, store
from app.datasets import service as datasets
from app.datasets.folder import FolderMaker
from app.datasets.parquet import FolderWriter
from app.datasets.verify import verify_folder
from app.models import Batch, BatchState, Conversation, Freeze, now
from app.settings import Settings
from tests import factories as make

YEAR = timedelta(days=365)


@pytest.fixture
def batch(database: Database) -> Batch:
    with database.write() as session:
        return make.make_week(session, make.make_person(session), conversations=6)


def require_nothing(database: Database, settings: Settings, batch: Batch, error: str) -> None:
    """No dataset, no file, and a reason."""
    with database.read() as session:
        assert datasets.all_datasets(session) == []
        assert session.get_one(Batch, batch.id).state is BatchState.IN_REVIEW
        waiting = session.get_one(Freeze, batch.id)
        assert error in (waiting.error or "")
        assert waiting.holder is None
    assert list(settings.datasets_root.glob("*")) == []


def require_dataset(database: Database, settings: Settings, batch: Batch) -> None:
    """The next attempt makes all of it, and leaves nothing else."""
    assert freezing.work_off(database, settings, now() + 2 * YEAR) == 1
    with database.read() as session:
        dataset = datasets.get(session, "batch-001")
        assert session.get_one(Batch, batch.id).state is BatchState.FROZEN
        assert session.scalars(select(Freeze)).all() == []
        assert dataset.rows == 18
    assert [path.name for path in settings.datasets_root.iterdir()] == ["batch-001"]
    assert verify_folder(datasets.folder_of(dataset, settings), manifest_sha256=dataset.manifest_sha256) == []


def test_a_full_disk_while_rows_are_written(
    database: Database, settings: Settings, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = FolderWriter.finish

    def full(writer: FolderWriter) -> Any:
        finish(writer)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(FolderWriter, "finish", full)
    with pytest.raises(OSError, match="No space left"):
        make.freeze(database, batch, settings)
    monkeypatch.undo()
    require_nothing(database, settings, batch, "No space left on device")
    require_dataset(database, settings, batch)


def test_a_full_disk_while_the_folder_becomes_durable(
    database: Database, settings: Settings, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_draft: store.Draft) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store.Draft, "sync", full)
    with pytest.raises(OSError, match="No space left"):
        make.freeze(database, batch, settings)
    monkeypatch.undo()
    require_nothing(database, settings, batch, "No space left on device")
    require_dataset(database, settings, batch)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_database_that_restarts_in_the_middle(
    database: Database, settings: Settings, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = make_url(settings.database_url).database
    write = FolderMaker.write

    def restart_and_write(maker: FolderMaker, *arguments: Any) -> Any:
        server = settings.database_url.replace("postgresql+psycopg", "postgresql")
        with psycopg.connect(server, autocommit=True) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()",
                (name,),
            )
        return write(maker, *arguments)

    # The connection that reads is in a transaction when the server goes.
    monkeypatch.setattr(freezing, "end_reading", lambda session: session.scalars(select(Conversation.id)).first())
    monkeypatch.setattr(FolderMaker, "write", restart_and_write)
    with pytest.raises(DBAPIError):
        make.freeze(database, batch, settings)
    monkeypatch.undo()
    require_nothing(database, settings, batch, "OperationalError")
    require_dataset(database, settings, batch)


def test_a_process_that_was_silent_for_too_long_writes_nothing(
    database: Database, settings: Settings, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one has taken over and finished meanwhile; the first one wakes up with a complete draft."""
    sync = store.Draft.sync

    def sleep_meanwhile(draft: store.Draft) -> None:
        sync(draft)
        monkeypatch.undo()
        assert freezing.work_off(database, settings, now() + 2 * YEAR) == 1

    monkeypatch.setattr(store.Draft, "sync", sleep_meanwhile)
    with pytest.raises(freezing.LeaseLostError, match="has taken over"):
        make.freeze(database, batch, settings)
    with database.read() as session:
        ((dataset, _),) = datasets.all_datasets(session)
    assert [path.name for path in settings.datasets_root.iterdir()] == ["batch-001"]
    assert verify_folder(datasets.folder_of(dataset, settings), manifest_sha256=dataset.manifest_sha256) == []


def test_a_corrupted_file_is_named(database: Database, settings: Settings, batch: Batch) -> None:
    dataset = make.freeze(database, batch, settings)
    folder = datasets.folder_of(dataset, settings)
    for name in ("README.md", "helpfulness/train-00000-of-00001.parquet"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:-8] + bytes([content[-8] ^ 1]) + content[-7:])
        assert [problem.split()[0] for problem in verify_folder(folder)] == [name]
        (folder / name).write_bytes(content)
