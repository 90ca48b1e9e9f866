"""API tokens: of one scope, for a time, revocable, and they tell when they were used last."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update

from app import cli
from app.accounts import service as accounts
from app.database import Database
from app.models import ApiToken, PersonRole, TokenScope, now
from app.settings import Settings
from tests.conftest import Browser


def status(client: TestClient, token: str) -> int:
    return client.get("/api/v1/datasets", headers={"Authorization": f"Bearer {token}"}).status_code


def test_a_token_expires(client: TestClient, database: Database, sign_in: Callable[..., Browser]) -> None:
    with database.write() as session:
        token = accounts.create_api_token(session, "laptop", TokenScope.DATASETS, expires_in=timedelta(days=1))
    assert status(client, token) == 200
    admin = sign_in(PersonRole.ADMIN)
    assert ">valid<" in admin.get("/admin/tokens").text
    with database.write() as session:
        session.execute(update(ApiToken).values(expires_at=now() - timedelta(seconds=1)))
    assert status(client, token) == 401
    assert ">expired<" in admin.get("/admin/tokens").text


def test_use_is_noted_now_and_then(client: TestClient, database: Database, sign_in: Callable[..., Browser]) -> None:
    with database.write() as session:
        token = accounts.create_api_token(session, "laptop", TokenScope.DATASETS)
    admin = sign_in(PersonRole.ADMIN)
    assert ">never<" in admin.get("/admin/tokens").text

    def used() -> object:
        with database.read() as session:
            return session.scalars(select(ApiToken.last_used_at)).one()

    assert status(client, token) == 200
    first = used()
    assert first is not None
    assert ">never<" not in admin.get("/admin/tokens").text
    assert status(client, token) == 200
    assert used() == first
    with database.write() as session:
        session.execute(update(ApiToken).values(last_used_at=now() - timedelta(hours=1)))
    assert status(client, token) == 200
    assert used() != first


def test_a_token_of_another_scope_is_told_so(client: TestClient, database: Database) -> None:
    with database.write() as session:
        token = accounts.create_api_token(session, "worker", TokenScope.WORKER)
    headers = {"Authorization": f"Bearer {token}"}
    answer = client.post("/api/v1/training-sets", json={"name": "x"}, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "wrong_scope")
    assert answer.json()["error"]["message"] == (
        "This API token has the scope worker; this needs one with the scope datasets."
    )


def test_the_form_says_for_how_long(database: Database, sign_in: Callable[..., Browser]) -> None:
    admin = sign_in(PersonRole.ADMIN)
    for days in ("", "30"):
        assert admin.post("/admin/tokens", {"name": f"t{days}", "scope": "datasets", "days": days}).status_code == 200
    assert admin.post("/admin/tokens", {"name": "t", "scope": "datasets", "days": "0"}).status_code == 422
    with database.read() as session:
        found = {token.name: token for token in session.scalars(select(ApiToken))}
    assert found["t"].expires_at is None
    assert found["t30"].expires_at is not None
    assert timedelta(days=29) < found["t30"].expires_at - now() < timedelta(days=31)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_command_makes_tokens_that_expire(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFERABLY_DATABASE_URL", settings.database_url)
    monkeypatch.setattr("sys.argv", ["preferably", "token", "laptop", "--scope", "datasets", "--days", "7"])
    with pytest.raises(SystemExit):
        cli.main()
    with database.read() as session:
        assert session.scalars(select(ApiToken.expires_at)).one() is not None
