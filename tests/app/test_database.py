"""Transactions: what was not committed is not there, reading changes nothing, times keep their zone."""

import shutil
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from app.database import Database, DatabaseBehindError, LostWriteError, connect, require_current_schema
from app.models import Person, PersonRole
from tests import factories


def test_a_failed_block_leaves_nothing(database: Database) -> None:
    def fail_midway() -> None:
        with database.write() as session:
            session.add(Person(name="Ann", role=PersonRole.ANNOTATOR))
            session.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_midway()
    with database.read() as session:
        assert session.query(Person).count() == 0


def test_a_reading_transaction_refuses_to_lose_a_change(database: Database) -> None:
    with database.read() as session:
        session.add(Person(name="Ann", role=PersonRole.ANNOTATOR))
        with pytest.raises(LostWriteError, match="Person"):
            session.flush()


def test_times_come_back_in_utc(database: Database) -> None:
    moment = datetime(2026, 7, 1, 12, 0, tzinfo=timezone(timedelta(hours=2)))
    with database.write() as session:
        session.add(Person(name="Ann", role=PersonRole.ANNOTATOR, created_at=moment))
    with database.read() as session:
        created_at = session.query(Person).one().created_at
    assert created_at == moment
    assert created_at.tzinfo is UTC


def test_the_database_itself_says_no(database: Database) -> None:
    with database.write() as session:
        batch = factories.make_open_batch(session)
        ann = factories.make_person(session)
        first = factories.make_comparison(session, factories.make_conversation(session, batch, ann))
        second = factories.make_comparison(session, factories.make_conversation(session, batch, ann))
        factories.make_ready(session, first)
        other = factories.make_ready(session, second)
        annotation = factories.make_annotation(session, first, ann)
        ids = {"annotation": annotation.id.hex, "foreign": next(iter(other.values())).id.hex}
    refused = [
        "UPDATE annotations SET chosen_safe = true WHERE id = :annotation",
        "UPDATE annotations SET strength = 'enormously_better' WHERE id = :annotation",
        "UPDATE annotations SET chosen_response_id = :foreign WHERE id = :annotation",
        "UPDATE batches SET closes_at = opens_at",
        "UPDATE sampling_jobs SET state = 'leased'",
        "UPDATE responses SET side = 'a'",
    ]
    for statement in refused:
        # PostgreSQL does not compare its uuid with text by itself.
        sql = statement
        if database.writing.dialect.name == "postgresql":
            sql = sql.replace(":annotation", "CAST(:annotation AS uuid)").replace(":foreign", "CAST(:foreign AS uuid)")
        used = {name: value for name, value in ids.items() if f":{name}" in statement}
        with pytest.raises(IntegrityError), database.write() as session:
            session.execute(text(sql), used)


def test_a_database_behind_its_migrations_is_refused(tmp_path: Path, sqlite_template: Path) -> None:
    current = tmp_path / "current.db"
    shutil.copy(sqlite_template, current)
    require_current_schema(connect(f"sqlite:///{current}"), f"sqlite:///{current}")
    empty = f"sqlite:///{tmp_path / 'empty.db'}"
    with pytest.raises(DatabaseBehindError, match="preferably migrate"):
        require_current_schema(connect(empty), empty)
