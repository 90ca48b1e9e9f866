"""The pages through which external datasets are imported, and the API through which programs fetch them."""

from collections.abc import AsyncGenerator
from http import HTTPStatus
from pathlib import Path
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse
from starlette.datastructures import FormData, UploadFile

from app.accounts.forms import ProtectedForm
from app.database import DatabaseDep, SessionDep
from app.datasets import api_examples
from app.datasets.api import FILE_RESPONSES, errors, manifest_responses
from app.external import pages, service
from app.external.api import ExternalEntry
from app.external.drafts import Wanted
from app.settings import Settings
from app.web.access import TRAINERS, DatasetTokenDep, TrainerDep
from app.web.fields import read_fields
from app.web.templating import render
from contract.dataset import MANIFEST_FILE
from contract.external import ExternalManifest

router = APIRouter()

_UPLOAD_BYTES = 4 * 1024**3
_ROWS_SHOWN = 20
_PARQUET = "application/vnd.apache.parquet"


async def _only_for_trainers(request: Request) -> AsyncGenerator[None]:
    """Refuse a large upload from anybody else before it is read, and remove what was read of it in the end."""
    await run_in_threadpool(TRAINERS.before_body, request)
    try:
        yield
    finally:
        await request.close()


async def _form_of(request: Request) -> FormData:
    """The fields and the file of an upload, which FastAPI would otherwise read before it asks who sends it."""
    return await request.form()


@router.get("/datasets/external")
def external_page(request: Request, session: SessionDep, _visitor: TrainerDep) -> HTMLResponse:
    """All external datasets."""
    page = pages.ExternalPage(datasets=service.all_datasets(session))
    return render(request, "external/list.html", page)


@router.post("/datasets/external", dependencies=[Depends(_only_for_trainers)], max_body_size=_UPLOAD_BYTES)
def check_upload(
    request: Request, database: DatabaseDep, _visitor: TrainerDep, form: Annotated[FormData, Depends(_form_of)]
) -> Response:
    """Check a file and show what it holds; nothing is imported yet."""
    settings = _settings(request)
    typed = {name: form.get(name, "") for name in Wanted.model_fields}
    wanted, problems = read_fields(Wanted, typed)
    file = form.get("file")
    if not isinstance(file, UploadFile) or not file.filename:
        problems["file"] = "choose a file."
    if wanted is None or problems or not isinstance(file, UploadFile):
        with database.read() as session:
            page = pages.ExternalPage(datasets=service.all_datasets(session), typed=typed, problems=problems)
        return render(request, "external/list.html", page, status=HTTPStatus.UNPROCESSABLE_ENTITY)
    with database.read() as session:
        service.require_free_name(session, wanted.name)
    draft = service.check(wanted, file.file, Path(file.filename or "").name[:200], settings)
    return _see(f"/datasets/external/imports/{draft.id}")


@router.get("/datasets/external/imports/{import_id}")
def import_page(request: Request, _visitor: TrainerDep, import_id: UUID) -> HTMLResponse:
    """What a checked file holds."""
    return render(request, "external/checked.html", pages.checked_page(service.draft_of(import_id, _settings(request))))


@router.post("/datasets/external/imports/{import_id}")
def confirm_import(
    request: Request,
    session: SessionDep,
    visitor: TrainerDep,
    import_id: UUID,
    _form: Annotated[ProtectedForm, Form()],
) -> Response:
    """Import a checked file."""
    settings = _settings(request)
    dataset = service.confirm(session, service.draft_of(import_id, settings), settings, actor=visitor.person)
    return _see(f"/datasets/external/{dataset.name}")


@router.post("/datasets/external/imports/{import_id}/discard")
def discard_import(
    request: Request, _visitor: TrainerDep, import_id: UUID, _form: Annotated[ProtectedForm, Form()]
) -> Response:
    """Throw a checked file away."""
    service.discard(import_id, _settings(request))
    return _see("/datasets/external")


@router.get("/datasets/external/{name}")
def dataset_page(request: Request, session: SessionDep, _visitor: TrainerDep, name: str) -> HTMLResponse:
    """What an external dataset holds, with some of its rows."""
    dataset = service.get(session, name)
    rows = service.first_rows(dataset, _settings(request), limit=_ROWS_SHOWN)
    page = pages.dataset_page(dataset, service.manifest_of(dataset), rows)
    return render(request, "external/dataset.html", page)


@router.get("/datasets/external/{name}/files/{path:path}")
def file_page(request: Request, session: SessionDep, _visitor: TrainerDep, name: str, path: str) -> FileResponse:
    """One file of an external dataset."""
    return _send(service.file_of(service.get(session, name), path, _settings(request)), name)


@router.get(
    "/api/v1/external-datasets",
    tags=["external datasets"],
    summary="List the external datasets",
    response_description="The list.",
    responses=errors(401, 403),
)
def list_external(session: SessionDep, _token: DatasetTokenDep) -> list[ExternalEntry]:
    """All preference data that was collected elsewhere and imported, by name."""
    return [ExternalEntry.of(dataset) for dataset in service.all_datasets(session)]


@router.get(
    "/api/v1/external-datasets/{name}",
    tags=["external datasets"],
    summary="Describe an external dataset",
    response_class=FileResponse,
    responses=manifest_responses(ExternalManifest, api_examples.EXTERNAL_MANIFEST) | errors(401, 403, 404),
)
def get_external(request: Request, session: SessionDep, _token: DatasetTokenDep, name: str) -> FileResponse:
    """The manifest of an external dataset, byte for byte: its sha256 is the dataset's digest."""
    return _send(service.file_of(service.get(session, name), MANIFEST_FILE, _settings(request)), name)


@router.get(
    "/api/v1/external-datasets/{name}/files/{path:path}",
    tags=["external datasets"],
    summary="Download a file of an external dataset",
    response_class=FileResponse,
    responses=FILE_RESPONSES | errors(401, 403, 404),
)
def get_external_file(
    request: Request, session: SessionDep, _token: DatasetTokenDep, name: str, path: str
) -> FileResponse:
    """One file, by its path in the manifest. Ranges work, so that a transfer can be taken up again."""
    return _send(service.file_of(service.get(session, name), path, _settings(request)), name)


def _settings(request: Request) -> Settings:
    settings: Settings = request.state.settings
    return settings


def _send(file: Path, dataset: str) -> FileResponse:
    """A file to be saved, never shown: what people elsewhere wrote must not act in anybody's browser."""
    return FileResponse(
        file,
        media_type="application/json" if file.name == MANIFEST_FILE else _PARQUET,
        filename=f"{dataset}-{file.name}",
        headers={"Cache-Control": "private, no-cache"},
    )


def _see(path: str) -> RedirectResponse:
    return RedirectResponse(path, status_code=HTTPStatus.SEE_OTHER)
