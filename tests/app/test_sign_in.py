"""Signing in: one-time links, passwords, roles, forged requests."""

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from app.accounts import service as accounts
from app.database import Database
from app.models import PersonRole
from tests.conftest import Browser


def test_a_link_works_once(client: TestClient, database: Database) -> None:
    with database.write() as session:
        person = accounts.create_person(session, "Ann", PersonRole.ANNOTATOR)
        token = accounts.issue_sign_in_link(session, person, hours=1)
    assert "Ann" in client.get(f"/sign-in/{token}").text
    assert client.post(f"/sign-in/{token}").status_code == 303
    again = client.post(f"/sign-in/{token}")
    assert again.status_code == 410
    assert "used before or has expired" in again.text


def test_an_expired_link_is_refused(client: TestClient, database: Database) -> None:
    with database.write() as session:
        person = accounts.create_person(session, "Ann", PersonRole.ANNOTATOR)
        token = accounts.issue_sign_in_link(session, person, hours=-1)
    assert client.get(f"/sign-in/{token}").status_code == 410


def test_a_password_signs_in_and_a_wrong_one_does_not(client: TestClient, sign_in: Callable[..., Browser]) -> None:
    ann = sign_in(PersonRole.ANNOTATOR, "Ann")
    assert ann.post("/account/password", {"password": "short"}).status_code == 422
    assert ann.post("/account/password", {"password": "correct horse battery"}).status_code == 200
    wrong = client.post("/sign-in", data={"name": "Ann", "password": "wrong horse battery"})
    assert wrong.status_code == 401
    right = client.post("/sign-in", data={"name": "ann", "password": "correct horse battery"})
    assert right.status_code == 303


def test_a_form_without_the_token_or_from_elsewhere_is_refused(sign_in: Callable[..., Browser]) -> None:
    admin = sign_in(PersonRole.ADMIN)
    person = {"name": "Bo", "role": "annotator"}
    assert admin.client.post("/admin/people", data=person).status_code == 403
    assert admin.post("/admin/people", person, headers={"Origin": "http://evil.example"}).status_code == 403
    assert admin.post("/admin/people", person, headers={"Origin": "null"}).status_code == 403
    assert admin.post("/admin/people", person).status_code == 200


def test_roles_are_kept_apart_and_disabled_people_are_out(sign_in: Callable[..., Browser]) -> None:
    ann = sign_in(PersonRole.ANNOTATOR, "Ann")
    admin = sign_in(PersonRole.ADMIN)
    assert ann.get("/admin/people").status_code == 403
    assert ann.get("/account").status_code == 200
    admin.post(f"/admin/people/{ann.person.id}/active", {"is_active": "false"})
    assert ann.get("/account").headers["location"].startswith("/sign-in")


def test_the_target_after_sign_in_stays_on_this_site(client: TestClient, sign_in: Callable[..., Browser]) -> None:
    sign_in(PersonRole.ADMIN, "Ada").post("/account/password", {"password": "correct horse battery"})
    for target in ("//evil.example", "https://evil.example", "/\\evil.example"):
        answer = client.post("/sign-in", data={"name": "Ada", "password": "correct horse battery", "next": target})
        assert answer.headers["location"] == "/"


@pytest.mark.parametrize(("page", "after"), [("http://testserver/admin/batches?page=2", "/admin/batches"), ("", "/")])
def test_a_part_of_a_page_leads_back_to_the_page(client: TestClient, page: str, after: str) -> None:
    headers = {"HX-Request": "true", "HX-Request-Type": "partial", "HX-Current-URL": page}
    answer = client.get("/admin/workers", headers=headers)
    assert (answer.status_code, answer.headers["HX-Redirect"]) == (204, f"/sign-in?next={after}")
