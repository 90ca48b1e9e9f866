"""The pages of preference datasets, and the API through which programs fetch them."""

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse, HTMLResponse, StreamingResponse
from sqlalchemy.orm import Session

from app.database import SessionDep
from app.datasets import api_examples, pages, service, text_forms
from app.datasets.api import FILE_RESPONSES, TEXT_RESPONSES, DatasetEntry, errors, manifest_responses
from app.datasets.archive import tar_of
from app.datasets.text_forms import Part, TextForm
from app.settings import Settings
from app.web.access import DatasetTokenDep, TrainerDep
from app.web.templating import render
from contract.dataset import MANIFEST_FILE, Manifest
from contract.vocabulary import Objective, Split

router = APIRouter()

_ROWS_SHOWN = 20
_MEDIA_TYPES = {".json": "application/json", ".md": "text/markdown; charset=utf-8"}
_PARQUET = "application/vnd.apache.parquet"
_FormPath = Annotated[TextForm, PathParameter(description="`jsonl` for every column, `hh` for conversations as text.")]
_GzipQuery = Annotated[bool, Query(description="Whether to pack the file.")]


@router.get("/datasets")
def datasets_page(request: Request, session: SessionDep, _visitor: TrainerDep) -> HTMLResponse:
    """All frozen datasets."""
    lines = [pages.line_of(dataset, batch) for dataset, batch in service.all_datasets(session)]
    return render(request, "datasets/list.html", pages.DatasetsPage(datasets=lines))


@router.get("/datasets/{name}")
def dataset_page(
    request: Request,
    session: SessionDep,
    _visitor: TrainerDep,
    name: str,
    objective: Annotated[Objective | None, Query()] = None,
) -> HTMLResponse:
    """What a dataset holds, with some of its rows."""
    dataset = service.get(session, name)
    manifest = service.manifest_of(dataset)
    shown = pages.shown_objective(manifest, objective)
    rows = service.first_rows(dataset, shown, _settings(request), limit=_ROWS_SHOWN)
    return render(request, "datasets/dataset.html", pages.page_of(dataset, manifest, shown, rows))


@router.get("/datasets/{name}/archive")
def archive(request: Request, session: SessionDep, _visitor: TrainerDep, name: str) -> StreamingResponse:
    """A whole dataset as one tar file."""
    dataset = service.get(session, name)
    pieces = tar_of(service.folder_of(dataset, _settings(request)), service.manifest_of(dataset))
    headers = {"Content-Disposition": f'attachment; filename="{dataset.name}.tar"', "Cache-Control": "no-store"}
    return StreamingResponse(pieces, media_type="application/x-tar", headers=headers)


@router.get("/datasets/{name}/as/{form}/{objective}/{split}")
def text_page(
    request: Request,
    session: SessionDep,
    _visitor: TrainerDep,
    name: str,
    form: _FormPath,
    objective: Objective,
    split: Split,
    *,
    gzip: _GzipQuery = False,
) -> StreamingResponse:
    """The rows of one objective and split as text."""
    part = _part(request, session, name, objective, split)
    return _send_text(part, name, form, is_gzip=gzip)


@router.get("/datasets/{name}/files/{path:path}")
def file_page(request: Request, session: SessionDep, _visitor: TrainerDep, name: str, path: str) -> FileResponse:
    """One file of a dataset."""
    return _send(service.file_of(service.get(session, name), path, _settings(request)), name)


@router.get(
    "/api/v1/datasets",
    tags=["datasets"],
    summary="List the frozen datasets",
    response_description="The list.",
    responses=errors(401, 403),
)
def list_datasets(session: SessionDep, _token: DatasetTokenDep) -> list[DatasetEntry]:
    """All frozen datasets, the newest batch first."""
    return [DatasetEntry.of(dataset, batch) for dataset, batch in service.all_datasets(session)]


@router.get(
    "/api/v1/datasets/{name}",
    tags=["datasets"],
    summary="Describe a frozen dataset",
    response_class=FileResponse,
    responses=manifest_responses(Manifest, api_examples.MANIFEST) | errors(401, 403, 404),
)
def get_manifest(request: Request, session: SessionDep, _token: DatasetTokenDep, name: str) -> FileResponse:
    """The manifest of a dataset, byte for byte: its sha256 is the dataset's digest."""
    return _send(service.file_of(service.get(session, name), MANIFEST_FILE, _settings(request)), name)


@router.get(
    "/api/v1/datasets/{name}/files/{path:path}",
    tags=["datasets"],
    summary="Download a file of a frozen dataset",
    response_class=FileResponse,
    responses=FILE_RESPONSES | errors(401, 403, 404),
)
def get_file(request: Request, session: SessionDep, _token: DatasetTokenDep, name: str, path: str) -> FileResponse:
    """One file of a dataset, by its path in the manifest. Ranges work, so that a transfer can be taken up again."""
    return _send(service.file_of(service.get(session, name), path, _settings(request)), name)


@router.get(
    "/api/v1/datasets/{name}/as/{form}/{objective}/{split}",
    tags=["datasets"],
    summary="Download rows of a frozen dataset as text",
    response_class=StreamingResponse,
    responses=TEXT_RESPONSES | errors(401, 403, 404, 422),
)
def get_text(
    request: Request,
    session: SessionDep,
    _token: DatasetTokenDep,
    name: str,
    form: _FormPath,
    objective: Objective,
    split: Split,
    *,
    gzip: _GzipQuery = False,
) -> StreamingResponse:
    """The rows of one objective and split, in the order of its files and with the same bytes each time.

    `jsonl` has a JSON object a line with every column. `hh` has one with `chosen` and `rejected`, each a whole
    conversation in the form of Anthropic's hh-rlhf; the system prompt and all other columns are left away, and so are
    rows with a message that itself names a speaker.
    """
    part = _part(request, session, name, objective, split)
    return _send_text(part, name, form, is_gzip=gzip)


def _part(request: Request, session: Session, name: str, objective: Objective, split: Split) -> Part:
    dataset = service.get(session, name)
    return text_forms.part(
        service.folder_of(dataset, _settings(request)), service.manifest_of(dataset), objective, split
    )


def _send_text(part: Part, name: str, form: TextForm, *, is_gzip: bool) -> StreamingResponse:
    pieces = part.pieces(form)
    file = f"{name}-{part.objective}-{part.split}{text_forms.file_name(form, is_gzip=is_gzip)}"
    return StreamingResponse(
        text_forms.gzipped(pieces) if is_gzip else pieces,
        media_type="application/gzip" if is_gzip else "application/jsonl",
        headers={"Content-Disposition": f'attachment; filename="{file}"', "Cache-Control": "no-store"},
    )


def _settings(request: Request) -> Settings:
    settings: Settings = request.state.settings
    return settings


def _send(file: Path, dataset: str) -> FileResponse:
    """A file to be saved, never shown: what annotators wrote must not act in anybody's browser."""
    folder = "" if file.parent.name == dataset else f"{file.parent.name}-"
    return FileResponse(
        file,
        media_type=_MEDIA_TYPES.get(file.suffix, _PARQUET),
        filename=f"{dataset}-{folder}{file.name}",
        headers={"Cache-Control": "private, no-cache"},
    )
