"""Fixtures for all tests: a real database on SQLite and on PostgreSQL, the app, and people who are signed in."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import psycopg
import pytest
from alembic import command
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx2 import Response as HttpResponse
from sqlalchemy import make_url, text

from app.accounts import service as accounts
from app.database import Database, alembic_config, connect
from app.main import create_app
from app.models import Base, Person, PersonRole, TokenScope
from app.settings import Settings

POSTGRESQL = os.environ.get("PREFERABLY_TEST_POSTGRESQL", "postgresql://postgres@127.0.0.1:5432/postgres")
IN_CI = os.environ.get("CI") == "true"


def _is_postgresql_there() -> bool:
    try:
        psycopg.connect(POSTGRESQL, connect_timeout=3).close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty SQLite file; each test works on a copy."""
    file = tmp_path_factory.mktemp("sqlite") / "template.db"
    command.upgrade(alembic_config(f"sqlite:///{file}"), "head")
    with connect(f"sqlite:///{file}").writing.connect() as connection:
        # The copy must be complete without the write-ahead log.
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.exec_driver_sql("BEGIN")
    return file


@pytest.fixture(scope="session")
def postgresql_url(worker_id: str) -> Iterator[str]:
    """A PostgreSQL database of this test process, made by the migrations."""
    if not _is_postgresql_there():
        if IN_CI:
            pytest.fail(f"PostgreSQL does not answer at {POSTGRESQL}, and CI must test on it.")
        pytest.skip(f"SKIPPED LOUDLY: no PostgreSQL at {POSTGRESQL}; set PREFERABLY_TEST_POSTGRESQL.")
    name = f"preferably_test_{os.getpid()}_{worker_id}"
    with psycopg.connect(POSTGRESQL, autocommit=True) as server:
        server.execute(f'CREATE DATABASE "{name}"')
    url = make_url(POSTGRESQL).set(database=name).render_as_string(hide_password=False)
    command.upgrade(alembic_config(url), "head")
    yield url
    with psycopg.connect(POSTGRESQL, autocommit=True) as server:
        server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty, migrated database: each test runs on both kinds."""
    if request.param == "sqlite":
        file = tmp_path / "preferably.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), file)
        return f"sqlite:///{file}"
    return str(request.getfixturevalue("postgresql_url"))


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """Settings of an app that keeps everything in the test's own folder and does nothing by itself."""
    settings = Settings(
        database_url=database_url,
        data_dir=tmp_path / "var",
        public_url="http://testserver",
        reconcile_every_s=0,
    )
    settings.ensure_secrets()
    return settings


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    """The test's database; on PostgreSQL emptied afterwards."""
    database = connect(settings.database_url)
    yield database
    if database.writing.dialect.name == "postgresql":
        tables = ", ".join(f'"{table.name}"' for table in Base.metadata.sorted_tables)
        with database.writing.begin() as connection:
            connection.execute(text(f"TRUNCATE {tables} CASCADE"))
    database.dispose()


@pytest.fixture
def app(settings: Settings, database: Database) -> FastAPI:
    """The web app on the test's database."""
    assert database.writing.url.render_as_string(hide_password=False) == settings.database_url
    return create_app(settings)


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    """A visitor who is not signed in; redirects are not followed, errors are answers."""
    with TestClient(app, follow_redirects=False, raise_server_exceptions=False) as client:
        yield client


@dataclass
class Browser:
    """A person who is signed in: posts carry the CSRF token by themselves."""

    client: TestClient
    person: Person
    csrf_token: str

    def get(self, path: str, **options: Any) -> HttpResponse:
        """Open a page."""
        return self.client.get(path, **options)

    def post(self, path: str, data: dict[str, Any] | None = None, **options: Any) -> HttpResponse:
        """Send a form."""
        return self.client.post(path, data={"csrf_token": self.csrf_token} | (data or {}), **options)


@pytest.fixture
def sign_in(app: FastAPI, client: TestClient, database: Database) -> Callable[..., Browser]:
    """Signs somebody in, in a browser of their own: ``sign_in(PersonRole.ADMIN)``."""

    def sign_in(role: PersonRole, name: str | None = None) -> Browser:
        with database.write() as session:
            person = accounts.get_or_create_person(session, name or f"test {role}", role)
            link = accounts.issue_sign_in_link(session, person, hours=1)
        browser = TestClient(app, follow_redirects=False, raise_server_exceptions=False)
        # The app is running already; a second start of its lifespan would be a second app.
        browser.app_state.update(client.app_state)
        assert browser.post(f"/sign-in/{link}").status_code == 303
        with database.read() as session:
            found = accounts.visit(session, browser.cookies["preferably_session"])
            assert found is not None
            return Browser(browser, person, found[0].csrf_token)

    return sign_in


@pytest.fixture
def worker_headers(database: Database) -> dict[str, str]:
    """The headers of a model worker with a valid token."""
    with database.write() as session:
        token = accounts.create_api_token(session, "test worker", TokenScope.WORKER)
    return {"Authorization": f"Bearer {token}", "X-Preferably-Protocol": "2"}
