"""The OpenAPI document: every route for trainers says what it does, what it answers, and how it fails."""

from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.accounts import service as accounts
from app.database import Database
from app.models import TokenScope
from app.settings import Settings
from app.web.api_documentation import document
from contract.dataset import Manifest
from contract.external import ExternalManifest
from contract.training_set import SetDescription
from tests.routes import api_routes

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

MODELS = {"Manifest": Manifest, "ExternalManifest": ExternalManifest, "SetDescription": SetDescription}


@pytest.fixture
def openapi(app: FastAPI, settings: Settings) -> dict[str, Any]:
    return document(app, settings)


def operations(openapi: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def test_every_route_for_trainers_is_documented(app: FastAPI, openapi: dict[str, Any]) -> None:
    ours = {
        (method.lower(), route.path.replace(":path}", "}"))
        for route in api_routes(app.routes)
        for method in route.methods
        if route.path.startswith("/api/v1/") and route.include_in_schema
    }
    assert len(ours) == 10
    assert {(method, path) for method, path, _ in operations(openapi)} == ours
    assert "worker" not in str(openapi["paths"])


def test_every_operation_says_what_it_does_and_how_it_fails(openapi: dict[str, Any]) -> None:
    for method, path, operation in operations(openapi):
        name = f"{method} {path}"
        assert operation["summary"], name
        assert len(operation["description"]) > 20, name
        assert operation["tags"], name
        answers = operation["responses"]
        expected = (
            {"401", "403"}
            | ({"404"} if "{" in path else set())
            | ({"409"} if method == "post" else set())
            | ({"422"} if method == "post" or "/as/" in path else set())
        )
        assert expected == {status for status in answers if status in {"401", "403", "404", "409", "422"}}, name
        for status, answer in answers.items():
            assert answer["description"] not in {"", "Successful Response"}, f"{name} {status}"
            if status in expected:
                content = answer["content"]["application/json"]
                assert content["schema"] == {"$ref": "#/components/schemas/ApiError"}, f"{name} {status}"
                assert content["example"]["error"]["code"], f"{name} {status}"
        success = answers["201" if method == "post" else "200"]["content"]
        assert all(content["schema"] for content in success.values()), name
        if "requestBody" in operation:
            schema = openapi["components"]["schemas"]["SetWanted"]
            assert schema["examples"], name


def test_every_example_is_what_its_schema_says(openapi: dict[str, Any]) -> None:
    checked = 0
    whole = {"components": openapi["components"]}
    for method, path, operation in operations(openapi):
        for status, answer in operation["responses"].items():
            for content in answer.get("content", {}).values():
                if "example" in content:
                    jsonschema.validate(content["example"], content["schema"] | whole)
                    checked += 1
                elif "200" in status and "files" not in path and "/as/" not in path:
                    assert content["schema"]["items"]["$ref"], f"{method} {path}"
    for name, schema in openapi["components"]["schemas"].items():
        for example in schema.get("examples", []):
            jsonschema.validate(example, schema | whole)
            checked += 1
            if name in MODELS:
                MODELS[name].model_validate(example)
    assert checked > 20


def test_the_document_is_for_those_who_may_call_the_api(client: TestClient, database: Database) -> None:
    assert client.get("/api/v1/openapi.json").status_code == 401
    assert client.get("/openapi.json").status_code == 404
    with database.write() as session:
        token = accounts.create_api_token(session, "laptop", TokenScope.DATASETS)
    answer = client.get("/api/v1/openapi.json", headers={"Authorization": f"Bearer {token}"})
    assert answer.json()["info"]["title"] == "Preferably: the API for trainers"
    assert answer.json()["security"] == [{"token": []}]
