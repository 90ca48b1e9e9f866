"""The OpenAPI document of the API for trainers, for those who may call it: a page, and the document itself."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse

from app.settings import Settings
from app.web.access import DatasetTokenDep, TrainerDep
from app.web.templating import Page, render

router = APIRouter()

_PREFIX = "/api/v1/"
_DESCRIPTION = (
    "Lists, describes and gives out frozen datasets, external datasets and training sets. Programs send an API token "
    "of the scope `datasets` as `Authorization: Bearer ...`; an admin makes and revokes it. Every failure is answered "
    '`{"error": {"code": ..., "message": ...}}`: the code is for programs, the message for people.'
)
_TAGS = ("datasets", "external datasets", "training sets")
_SCHEMAS = "#/components/schemas/"


@dataclass(frozen=True)
class Operation:
    """A route of the API, for the page."""

    method: str
    path: str
    summary: str
    description: str
    answers: list[tuple[str, str]]
    """Status and meaning."""


@dataclass(frozen=True, kw_only=True)
class ApiPage(Page):
    """What programs can ask for."""

    title: str = "API"
    public_url: str
    operations: list[Operation] = field(default_factory=list)


@router.get("/datasets/api")
def api_page(request: Request, _visitor: TrainerDep) -> HTMLResponse:
    """What programs can ask for, in words."""
    settings: Settings = request.state.settings
    operations = [
        Operation(
            method=method.upper(),
            path=path,
            summary=operation["summary"],
            description=operation["description"],
            answers=[(status, answer["description"]) for status, answer in operation["responses"].items()],
        )
        for path, methods in document(request.app, settings)["paths"].items()
        for method, operation in methods.items()
    ]
    page = ApiPage(public_url=settings.public_url, operations=operations)
    return render(request, "datasets/api.html", page)


@router.get("/datasets/openapi.json")
def openapi_page(request: Request, _visitor: TrainerDep) -> JSONResponse:
    """The OpenAPI document, for somebody who is signed in."""
    return JSONResponse(document(request.app, request.state.settings))


@router.get("/api/v1/openapi.json", include_in_schema=False)
def get_openapi_document(request: Request, _token: DatasetTokenDep) -> JSONResponse:
    """The OpenAPI document, for a program."""
    return JSONResponse(document(request.app, request.state.settings))


def document(app: FastAPI, settings: Settings) -> dict[str, Any]:
    """The OpenAPI document of the routes for trainers, and of nothing else."""
    whole = get_openapi(
        title="Preferably: the API for trainers",
        version=app.version,
        description=_DESCRIPTION,
        routes=app.routes,
        servers=[{"url": settings.public_url}],
    )
    ours = {path: item for path, item in whole["paths"].items() if path.startswith(_PREFIX)}
    whole["tags"] = [{"name": tag} for tag in _TAGS]
    whole["paths"] = dict(sorted(ours.items(), key=lambda one: _TAGS.index(next(iter(one[1].values()))["tags"][0])))
    for operation in (operation for item in whole["paths"].values() for operation in item.values()):
        # FastAPI adds its own answer to every route with parameters; ours are names, which are found or not.
        if "HTTPValidationError" in str(operation["responses"].get("422")):
            del operation["responses"]["422"]
    schemas = whole.get("components", {}).get("schemas", {})
    used = _used(whole["paths"], schemas)
    whole["components"] = {
        "schemas": {name: schema for name, schema in schemas.items() if name in used},
        "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
    }
    whole["security"] = [{"token": []}]
    return whole


def _used(paths: dict[str, Any], schemas: dict[str, Any]) -> set[str]:
    """The schemas that some paths name, and those that these name in turn."""
    found: set[str] = set()
    waiting = list(_references(paths))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _references(schemas[name])
    return found


def _references(part: object) -> Iterator[str]:
    if isinstance(part, dict):
        target = part.get("$ref")
        if isinstance(target, str) and target.startswith(_SCHEMAS):
            yield target.removeprefix(_SCHEMAS)
        for inner in part.values():
            yield from _references(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from _references(inner)
