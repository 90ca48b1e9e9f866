"""The pages of training sets, and the API through which programs define and fetch them."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from app.database import DatabaseDep, SessionDep
from app.datasets.api import errors, example
from app.datasets.api_examples import SET_DESCRIPTION
from app.settings import Settings
from app.training_sets import pages, service
from app.training_sets.api import SetEntry
from app.training_sets.forms import SetForm
from app.training_sets.service import SetWanted
from app.web.access import DatasetTokenDep, TrainerDep, TrainerTokenDep
from app.web.templating import render
from contract.training_set import SetDescription

router = APIRouter()


@router.get("/datasets/sets")
def sets_page(request: Request, session: SessionDep, _visitor: TrainerDep) -> HTMLResponse:
    """All training sets."""
    return render(request, "training_sets/list.html", pages.sets_page(session))


@router.post("/datasets/sets")
def define_from_page(
    request: Request, database: DatabaseDep, visitor: TrainerDep, form: Annotated[SetForm, Form()]
) -> Response:
    """Define a training set, or show the form again with what is wrong with it."""
    wanted, problems = form.read()
    if wanted is not None:
        with database.read() as session:
            problems = service.problems(session, wanted)
    if wanted is None or problems:
        with database.read() as session:
            page = pages.sets_page(session, form, problems)
        return render(request, "training_sets/list.html", page, status=HTTPStatus.UNPROCESSABLE_ENTITY)
    described = service.define(database, wanted, _settings(request), actor=visitor.person)
    return RedirectResponse(f"/datasets/sets/{described.name}", status_code=HTTPStatus.SEE_OTHER)


@router.get("/datasets/sets/{name}")
def set_page(request: Request, session: SessionDep, _visitor: TrainerDep, name: str) -> HTMLResponse:
    """What a training set takes of which dataset."""
    return render(request, "training_sets/set.html", pages.set_page(service.get(session, name)))


@router.get(
    "/api/v1/training-sets",
    tags=["training sets"],
    summary="List the training sets",
    response_description="The list.",
    responses=errors(401, 403),
)
def list_sets(session: SessionDep, _token: DatasetTokenDep) -> list[SetEntry]:
    """All training sets, the newest first."""
    return [SetEntry.of(service.description_of(row)) for row in service.all_sets(session)]


@router.post(
    "/api/v1/training-sets",
    tags=["training sets"],
    summary="Define a training set",
    status_code=HTTPStatus.CREATED,
    responses=example(201, SET_DESCRIPTION) | errors(401, 403, 409, 422),
)
def define_set(request: Request, wanted: SetWanted, database: DatabaseDep, token: TrainerTokenDep) -> SetDescription:
    """Unite frozen and external datasets under a name, with a margin scheme and a filter. It never changes."""
    return service.define(database, wanted, _settings(request), token=token.name)


@router.get(
    "/api/v1/training-sets/{name}",
    tags=["training sets"],
    summary="Describe a training set",
    responses=example(200, SET_DESCRIPTION) | errors(401, 403, 404),
)
def get_set(session: SessionDep, _token: DatasetTokenDep, name: str) -> SetDescription:
    """Its members with their digests, its filter and margin scheme, and how many rows it takes of each member.

    `preferably dataset download-set` writes its folder: it fetches the members and takes these rows of them.
    """
    return service.description_of(service.get(session, name))


def _settings(request: Request) -> Settings:
    settings: Settings = request.state.settings
    return settings
