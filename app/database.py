"""Engine and sessions: one request, one transaction, committed before the response is sent."""

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from fastapi import Depends, Request
from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.paths import MIGRATIONS, PYPROJECT
from app.writers import QueueingConnection, WritersQueue
from contract.errors import ContractError

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_SQLITE_BUSY_S = 30.0
# FastAPI runs endpoints in up to 40 threads; a pool below that makes them wait for each other.
_POOL_SIZE = 20
_POOL_OVERFLOW = 24


class DatabaseBehindError(ContractError):
    """The database lacks migrations that this version needs."""


class ReadOnlySession(Session):
    """A session for queries: a change in it would be lost, and would lock SQLite against the real writers."""


class LostWriteError(RuntimeError):
    """Code of ours changed something in a transaction that only reads."""


@event.listens_for(ReadOnlySession, "before_flush")
def _refuse_changes(session: Session, *_: object) -> None:
    changed = [*session.new, *(row for row in session.dirty if session.is_modified(row)), *session.deleted]
    if changed:
        msg = f"A transaction that only reads would change {', '.join(type(row).__name__ for row in changed)}."
        raise LostWriteError(msg)


@dataclass(frozen=True)
class Database:
    """Two views of one connection pool: transactions that only read, and transactions that write."""

    reading: Engine
    writing: Engine

    @contextmanager
    def read(self) -> Generator[Session]:
        """A session for queries only; nothing is committed, and a change is an error."""
        with ReadOnlySession(self.reading, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Generator[Session]:
        """A session whose changes are committed at the end of the block, or none of them."""
        with Session(self.writing, expire_on_commit=False) as session, session.begin():
            yield session

    def dispose(self) -> None:
        """Close all connections."""
        self.reading.dispose()


def end_reading(session: Session) -> None:
    """End a transaction that only reads, in the middle of long work; what was read stays as it is.

    A database remembers for each open transaction how everything was when it began: for minutes, that is a lot.
    """
    session.expunge_all()
    session.rollback()


def connect(url: str) -> Database:
    """Open the database that a URL names: ``sqlite:///file`` or ``postgresql://...`` (psycopg 3)."""
    if make_url(url).get_backend_name() == "sqlite":
        engine = _sqlite_engine(url)
        return Database(reading=engine, writing=engine.execution_options(sqlite_begin="IMMEDIATE"))
    # Errors go to the log, and what people wrote does not belong there: hide_parameters.
    engine = create_engine(
        url, pool_size=_POOL_SIZE, max_overflow=_POOL_OVERFLOW, pool_pre_ping=True, hide_parameters=True
    )
    return Database(reading=engine, writing=engine)


def _sqlite_engine(url: str) -> Engine:
    engine = create_engine(
        url,
        connect_args={"timeout": _SQLITE_BUSY_S, "check_same_thread": False, "factory": QueueingConnection},
        pool_size=_POOL_SIZE,
        max_overflow=_POOL_OVERFLOW,
        hide_parameters=True,
    )

    queue = WritersQueue(Path(f"{engine.url.database}-writers"), wait_s=_SQLITE_BUSY_S)

    @event.listens_for(engine, "connect")
    def _prepare(connection: QueueingConnection, _record: object) -> None:
        connection.queue = queue
        # The driver must not open transactions by itself: the listener below decides how each one begins.
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A transaction that reads first and writes later fails at once when another one wrote in between;
        # IMMEDIATE takes the write lock at the start and waits for it instead.
        kind = connection.get_execution_options().get("sqlite_begin", "DEFERRED")
        if kind == "IMMEDIATE":
            _take_turn(connection)
        connection.exec_driver_sql(f"BEGIN {kind}")

    return engine


def _take_turn(connection: Connection) -> None:
    raw = connection.connection.dbapi_connection
    try:
        if isinstance(raw, QueueingConnection):
            raw.take_turn()
    except sqlite3.OperationalError as error:
        # As SQLAlchemy says it of a statement.
        statement = "BEGIN IMMEDIATE"
        raise OperationalError(statement, None, error) from error


def get_database(request: Request) -> Database:
    """The database, for routes that keep their transactions shorter than the request."""
    database: Database = request.state.database
    return database


DatabaseDep = Annotated[Database, Depends(get_database)]


def get_session(request: Request) -> Generator[Session]:
    """The request's session: reading for safe methods, otherwise a transaction that commits or rolls back."""
    database: Database = request.state.database
    with database.read() if request.method in _SAFE_METHODS else database.write() as session:
        yield session


# With scope="function" the commit happens before the response is sent, so nobody is told "saved" about
# something that was lost; the default scope would commit afterwards.
SessionDep = Annotated[Session, Depends(get_session, scope="function")]


def alembic_config(url: str) -> Config:
    """Alembic's configuration for a database, wherever the process was started."""
    # Only a checkout has the settings for writing new migrations; applying them needs none.
    config = Config(toml_file=PYPROJECT if PYPROJECT.is_file() else None)
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["url"] = url
    return config


def require_current_schema(database: Database, url: str) -> None:
    """Refuse to run on a database that lacks migrations.

    Raises:
        DatabaseBehindError: Some migration has not been applied.

    """
    heads = set(ScriptDirectory.from_config(alembic_config(url)).get_heads())
    with database.reading.connect() as connection:
        current = set(MigrationContext.configure(connection).get_current_heads())
    if current != heads:
        msg = (
            f"The database is at revision {', '.join(current) or 'none'} but this version needs "
            f"{', '.join(heads)}. Run: preferably migrate"
        )
        raise DatabaseBehindError(msg)
