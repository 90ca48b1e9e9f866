"""What holds for every route: roles, other people's things, forged requests, headers, limits, secrets."""

import json
import re
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from httpx2 import Response as HttpResponse
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from app.accounts import service as accounts
from app.accounts.tokens import hash_token
from app.database import Database
from app.models import Assignment, Base, PersonRole
from app.settings import Settings
from app.web.access import Public
from tests.app.installation import Installation, make_installation
from tests.conftest import Browser
from tests.routes import api_routes

EVERYBODY = set(PersonRole)
# Decided here a second time on purpose: a route whose declaration is wrong must fail a test.
ROLES = {
    "/admin": {PersonRole.ADMIN},
    "/annotate": {PersonRole.ANNOTATOR},
    "/review": {PersonRole.REVIEWER, PersonRole.ADMIN},
    "/training": {PersonRole.TRAINER, PersonRole.ADMIN},
    "/datasets": {PersonRole.TRAINER, PersonRole.ADMIN},
    "/account": EVERYBODY,
    "/sign-out": EVERYBODY,
}
PUBLIC = {"/", "/health", "/sign-in", "/sign-in/{token}"}
API = "/api/"
# Its own tests are in test_metrics.py.
METRICS = "/metrics"
HEADERS = ("content-security-policy", "x-content-type-options", "referrer-policy", "cross-origin-opener-policy")
ODD = (
    "0",
    "-1",
    str(2**31),
    str(2**63),
    "9" * 40,
    "1.5",
    "abc",
    "%00",
    "a%00b",
    "%F0%9F%8D%B5",
    "%2e%2e",
    "'--",
    "x" * 300,
)

SignIn = Callable[..., Browser]
# What is decided before any query needs no second database.
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def installation(database: Database, settings: Settings) -> Installation:
    return make_installation(database, settings)


def roles_of(path: str) -> set[PersonRole]:
    (found,) = [roles for prefix, roles in ROLES.items() if path == prefix or path.startswith(f"{prefix}/")]
    return found


def of_people(app: FastAPI) -> list[tuple[str, APIRoute]]:
    """Every route for people who are signed in, by method."""
    return [
        (method, route)
        for route in api_routes(app.routes)
        for method in route.methods
        if route.path not in {*PUBLIC, METRICS} and not route.path.startswith(API)
    ]


def call(client: TestClient, method: str, path: str, **options: Any) -> HttpResponse:
    return client.request(method, path, **options)


@on_sqlite
def test_every_route_asks_for_its_role(
    app: FastAPI, client: TestClient, sign_in: SignIn, installation: Installation
) -> None:
    people = {role: sign_in(role) for role in PersonRole}
    for method, route in of_people(app):
        for path in installation.addresses(route.path):
            # A right CSRF token and a wrong form: the role is asked for first.
            anonymous = call(client, method, path)
            if method == "GET":
                assert (anonymous.status_code, anonymous.headers["location"][:8]) == (303, "/sign-in"), path
            else:
                assert anonymous.status_code == 401, path
            for role in EVERYBODY - roles_of(route.path):
                data = {"csrf_token": people[role].csrf_token, "wrong": "field"} if method == "POST" else None
                answer = call(people[role].client, method, path, data=data)
                assert answer.status_code == 403, f"{role} {method} {path}"
                assert "This page is for the role" in answer.text


@on_sqlite
def test_the_right_roles_see_their_pages(app: FastAPI, sign_in: SignIn, installation: Installation) -> None:
    people = {role: sign_in(role) for role in PersonRole if role is not PersonRole.ANNOTATOR}
    # The pairs are Bea's own.
    people[PersonRole.ANNOTATOR] = sign_in(PersonRole.ANNOTATOR, "Bea")
    seen = set()
    for method, route in of_people(app):
        for path in installation.addresses(route.path) if method == "GET" else []:
            for role in roles_of(route.path):
                answer = people[role].get(path)
                # A name is that of a dataset or of a run; the other of the two does not exist there.
                assert answer.status_code in ({200, 404} if "{name}" in route.path else {200}), f"{role} {path}"
                seen |= {route.path} if answer.status_code == HTTPStatus.OK else set()
    assert seen == {route.path for method, route in of_people(app) if method == "GET"}


@on_sqlite
def test_looking_changes_nothing(app: FastAPI, database: Database, sign_in: SignIn, installation: Installation) -> None:
    people = {role: sign_in(role) for role in PersonRole if role is not PersonRole.ANNOTATOR}
    people[PersonRole.ANNOTATOR] = sign_in(PersonRole.ANNOTATOR, "Bea")
    before = dump(database)
    for method, route in of_people(app):
        for path in installation.addresses(route.path) if method == "GET" else []:
            for role in roles_of(route.path):
                people[role].get(path)
    assert dump(database) == before


@on_sqlite
def test_other_peoples_comparisons_and_conversations_do_not_exist(
    app: FastAPI, sign_in: SignIn, installation: Installation
) -> None:
    stranger = sign_in(PersonRole.ANNOTATOR, "A stranger")
    forms = {
        "prompts": {"prompt": "Hello?"},
        "annotation": {"rating": "x"},
        "skip": {"reason": "other"},
        "flag": {"kind": "other"},
        "finish": {},
        "retry": {},
    }
    tried = 0
    for method, route in of_people(app):
        if not re.search(r"\{(comparison|conversation)_id\}", route.path):
            continue
        for path in installation.addresses(route.path):
            answer = stranger.get(path) if method == "GET" else stranger.post(path, forms[path.rpartition("/")[2]])
            assert answer.status_code == 404, f"{method} {path}"
            tried += 1
    assert tried >= 8


def test_odd_keys_are_refused_and_break_nothing(app: FastAPI, sign_in: SignIn, installation: Installation) -> None:
    people = {role: sign_in(role) for role in PersonRole}
    worker = {"Authorization": f"Bearer {installation.secrets['worker token']}", "X-Preferably-Protocol": "2"}
    for route in api_routes(app.routes):
        if "{" not in route.path:
            continue
        for odd in ODD:
            path = re.sub(r"\{[^}]*\}", odd, route.path)
            for method in route.methods:
                if route.path in PUBLIC or route.path.startswith(API):
                    answer = call(people[PersonRole.ADMIN].client, method, path, headers=worker)
                else:
                    browser = people[min(roles_of(route.path))]
                    answer = browser.get(path) if method == "GET" else browser.post(path)
                assert 300 <= answer.status_code < 500, f"{method} {path}: {answer.status_code}"


def test_odd_queries_break_nothing(sign_in: SignIn, installation: Installation) -> None:
    admin, bea = sign_in(PersonRole.ADMIN), sign_in(PersonRole.ANNOTATOR, "Bea")
    for odd in ODD:
        for browser, path in (
            (admin, "/review?page="),
            (admin, f"/datasets/{installation.parameters['name'][0]}?objective="),
            (bea, "/annotate?objective="),
            (bea, f"/annotate/comparisons/{installation.parameters['comparison_id'][0]}?change="),
            (bea, "/sign-in?next="),
        ):
            assert browser.get(path + odd).status_code in {200, 422}, path + odd


def test_a_nul_character_is_refused_by_name(sign_in: SignIn, installation: Installation) -> None:
    admin, bea = sign_in(PersonRole.ADMIN), sign_in(PersonRole.ANNOTATOR, "Bea")
    (annotation,) = installation.parameters["annotation_id"]
    comparison = installation.parameters["comparison_id"][0]
    for browser, path, form in (
        (admin, "/admin/people", {"name": "a\0b", "role": "admin"}),
        (admin, "/admin/tokens", {"name": "a\0b", "scope": "worker"}),
        (admin, "/admin/guidelines", {"objective": "safety", "text": "a\0b"}),
        (admin, "/admin/batches/2", {"curriculum": "a\0b", "system_prompt": "a\0b"}),
        (admin, f"/review/{annotation}", {"verdict": "rejected", "feedback": "a\0b", "revision": "1"}),
        (bea, f"/annotate/comparisons/{comparison}/skip", {"reason": "other", "note": "a\0b"}),
        (bea, "/sign-in", {"name": "a\0b", "password": "x"}),
    ):
        answer = browser.client.post(
            path, data=form if path == "/sign-in" else form | {"csrf_token": browser.csrf_token}
        )
        assert answer.status_code == 422, path
        assert "NUL character" in answer.text, path


@on_sqlite
def test_every_form_must_come_from_our_own_pages(app: FastAPI, sign_in: SignIn, installation: Installation) -> None:
    people = {role: sign_in(role) for role in PersonRole}
    for method, route in of_people(app):
        if method == "GET":
            continue
        for path in installation.addresses(route.path):
            browser = people[min(roles_of(route.path))]
            own = {"csrf_token": browser.csrf_token}
            other = people[next(role for role in PersonRole if people[role] is not browser)].csrf_token
            assert browser.client.post(path).status_code == 403, path
            assert browser.client.post(path, data={"csrf_token": other}).status_code == 403, path
            assert browser.client.post(path, headers={"X-CSRF-Token": "x"}).status_code == 403, path
            for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
                assert browser.client.post(path, data=own, headers=headers).status_code == 403, f"{path} {headers}"


@on_sqlite
def test_forms_of_public_pages_must_come_from_our_own_pages_too(client: TestClient, installation: Installation) -> None:
    foreign = {"Origin": "https://evil.example"}
    link = f"/sign-in/{installation.secrets['link']}"
    assert client.post("/sign-in", data={"name": "Bea", "password": "x"}, headers=foreign).status_code == 403
    assert client.post(link, headers=foreign).status_code == 403
    assert client.post(link).status_code == 303


@on_sqlite
def test_programs_need_a_token_of_the_right_scope_and_send_json(
    app: FastAPI, client: TestClient, sign_in: SignIn, installation: Installation
) -> None:
    admin = sign_in(PersonRole.ADMIN)
    tokens = {name: {"Authorization": f"Bearer {token}"} for name, token in installation.secrets.items()}
    for route in api_routes(app.routes):
        if not route.path.startswith(API):
            continue
        (method,) = route.methods
        path = installation.addresses(route.path)[0]
        protocol = {"X-Preferably-Protocol": "2"}
        assert call(client, method, path, headers=protocol).status_code == 401, path
        # A person's session is no token, and so no other site can use it.
        assert call(admin.client, method, path, headers=protocol).status_code == 401, path
        assert call(client, method, path, headers=protocol | tokens["link"]).status_code == 401, path
        if "/worker/" in path:
            assert call(client, method, path, headers=protocol | tokens["datasets token"]).status_code == 403, path
            text = {"Content-Type": "text/plain"} | protocol | tokens["worker token"]
            assert call(client, method, path, headers=text, content="{}").status_code == 422, path
            assert call(client, method, path, headers=text | {"Content-Type": ""}, content="{}").status_code == 422, (
                path
            )


@on_sqlite
def test_every_answer_carries_the_security_headers(
    app: FastAPI, client: TestClient, sign_in: SignIn, installation: Installation
) -> None:
    @app.get("/broken", dependencies=[])
    def broken() -> None:
        raise ZeroDivisionError

    @app.get("/unreachable")
    def unreachable() -> None:
        statement = "SELECT 1"
        raise OperationalError(statement, {}, ConnectionRefusedError())

    admin = sign_in(PersonRole.ADMIN)
    answers = {
        200: admin.get("/admin"),
        303: client.get("/admin"),
        401: client.get("/api/v1/datasets"),
        403: admin.get("/annotate"),
        404: client.get("/nothing"),
        405: client.put("/sign-in"),
        413: client.post("/sign-in", content=b"x" * (1024 * 1024 + 1)),
        422: client.post("/sign-in", data={"unknown": "field"}),
        500: client.get("/broken"),
        503: client.get("/unreachable"),
    }
    for status, answer in answers.items():
        assert answer.status_code == status
        for header in HEADERS:
            assert header in answer.headers, f"{status} lacks {header}"
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
    assert "ZeroDivisionError" not in answers[500].text
    for path in ("/static/app.css", "/static/nothing", f"/datasets/{installation.parameters['name'][0]}/archive"):
        assert all(header in admin.get(path).headers for header in HEADERS), path


@on_sqlite
def test_nothing_describes_the_app_to_strangers(client: TestClient) -> None:
    for path in (
        "/docs",
        "/redoc",
        "/openapi.json",
        "/metrics",
        "/.env",
        "/static/../app/main.py",
        "/static/%2e%2e/%2e%2e/main.py",
    ):
        assert client.get(path).status_code == 404, path


@on_sqlite
def test_large_bodies_are_refused_before_they_are_read(client: TestClient, installation: Installation) -> None:
    headers = {"Authorization": f"Bearer {installation.secrets['worker token']}", "X-Preferably-Protocol": "2"}
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    large = b"name=" + b"x" * (1024 * 1024)
    assert client.post("/sign-in", content=large, headers=form).status_code == 413

    def endless() -> Iterator[bytes]:
        for _ in range(64):
            yield b"x" * 65536

    assert client.post("/sign-in", content=endless(), headers=form).status_code == 413
    many = "&".join(f"f{number}=" for number in range(2000))
    assert client.post("/sign-in", content=many, headers=form).status_code == 400
    # Responses with their tokens are larger than forms.
    answer = client.post(
        "/api/worker/v1/finish", content=b'{"x": "' + b"x" * (2 * 1024 * 1024) + b'"}', headers=headers
    )
    assert answer.status_code == 422


@on_sqlite
def test_secrets_are_stored_as_hashes_and_shown_once(
    app: FastAPI, database: Database, sign_in: SignIn, installation: Installation
) -> None:
    admin = sign_in(PersonRole.ADMIN)
    people = {role: sign_in(role) for role in PersonRole if role is not PersonRole.ADMIN} | {PersonRole.ADMIN: admin}
    secrets = [*installation.secrets.values(), *(one.client.cookies["preferably_session"] for one in people.values())]
    assert admin.post("/account/password", {"password": "correct horse battery"}).status_code == 200
    rows = dump(database)
    for secret in [*secrets, "correct horse battery"]:
        assert secret not in rows
    assert all(hash_token(secret) in rows for secret in secrets)
    with database.read() as session:
        person = accounts.get_person(session, admin.person.id)
        assert person.password_hash is not None
        hidden = [*secrets, *(hash_token(secret) for secret in secrets), person.password_hash]
    for method, route in of_people(app):
        for path in installation.addresses(route.path) if method == "GET" else []:
            for role in roles_of(route.path):
                page = people[role].get(path).text
                assert not any(secret in page for secret in hidden), f"{role} {path}"


def test_a_session_ends_for_good(database: Database, sign_in: SignIn) -> None:
    ann, admin = sign_in(PersonRole.ANNOTATOR, "Ann"), sign_in(PersonRole.ADMIN)
    cookie = {"Cookie": f"preferably_session={ann.client.cookies['preferably_session']}"}
    with database.write() as session:
        unused = accounts.issue_sign_in_link(session, accounts.get_person(session, ann.person.id), hours=1)
    assert ann.get("/account", headers=cookie).status_code == 200
    for is_active in ("false", "true"):
        assert admin.post(f"/admin/people/{ann.person.id}/active", {"is_active": is_active}).status_code == 303
        # Whoever is let in again signs in again: an old cookie or link may be in other hands.
        assert ann.get("/account", headers=cookie).status_code == 303
        assert ann.client.post(f"/sign-in/{unused}").status_code == 410
    again = sign_in(PersonRole.ANNOTATOR, "Ann")
    kept = {"Cookie": f"preferably_session={again.client.cookies['preferably_session']}"}
    assert again.post("/sign-out").status_code == 303
    assert again.get("/account", headers=kept).status_code == 303


def test_a_new_password_ends_other_sessions(sign_in: SignIn) -> None:
    here, elsewhere = sign_in(PersonRole.ANNOTATOR, "Ann"), sign_in(PersonRole.ANNOTATOR, "Ann")
    assert here.post("/account/password", {"password": "correct horse battery"}).status_code == 200
    assert here.get("/account").status_code == 200
    assert elsewhere.get("/account").status_code == 303


def test_a_name_is_one_whatever_its_capitals(client: TestClient, database: Database, sign_in: SignIn) -> None:
    admin, eva = sign_in(PersonRole.ADMIN), sign_in(PersonRole.ANNOTATOR, "Éva Ärmel")
    assert eva.post("/account/password", {"password": "correct horse battery"}).status_code == 200
    answer = client.post("/sign-in", data={"name": " éva ärmel", "password": "correct horse battery"})
    assert answer.status_code == 303
    assert admin.post("/admin/people", {"name": "ÉVA ÄRMEL", "role": "admin"}).status_code == 409
    with database.write() as session:
        assert accounts.get_or_create_person(session, "ÉVA ärmel", PersonRole.ADMIN).id == eva.person.id


def dump(database: Database) -> str:
    """Everything in the database but when a pair was first looked at, as text."""
    with database.reading.connect() as connection:
        tables = {
            table.name: [
                [str(value) for column, value in row._mapping.items() if column != Assignment.shown_at.key]
                for row in connection.execute(select(table).order_by(*table.primary_key))
            ]
            for table in Base.metadata.sorted_tables
        }
    return json.dumps(tables)


@on_sqlite
def test_the_public_routes_are_these_alone(app: FastAPI) -> None:
    found = {
        route.path
        for route in api_routes(app.routes)
        if any(isinstance(dependency.call, Public) for dependency in route.dependant.dependencies)
    }
    assert found == PUBLIC
