"""The admin's pages of the prompt pool."""

from collections.abc import AsyncGenerator
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Form, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import BeforeValidator
from starlette.datastructures import FormData, UploadFile

from app.accounts.forms import ProtectedForm
from app.database import DatabaseDep, SessionDep
from app.models import PoolPromptState
from app.pool import pages, service
from app.pool.forms import PromptsForm
from app.pool.queries import Filter
from app.pool.service import Added
from app.settings import Settings
from app.web.access import ADMINS, AdminDep
from app.web.fields import read_fields
from app.web.templating import render
from contract.vocabulary import Objective

router = APIRouter()

_UPLOAD_BYTES = 256 * 1024**2
_NAME_CHARACTERS = 200


def _none_if_empty(typed: object) -> object:
    return typed or None


async def _only_for_admins(request: Request) -> AsyncGenerator[None]:
    """Refuse a large upload from anybody else before it is read, and remove what was read of it in the end."""
    await run_in_threadpool(ADMINS.before_body, request)
    try:
        yield
    finally:
        await request.close()


async def _form_of(request: Request) -> FormData:
    """The fields and the file of an upload, which FastAPI would otherwise read before it asks who sends it."""
    return await request.form(max_part_size=_UPLOAD_BYTES)


def _filter(
    objective: Annotated[Objective | None, Query(), BeforeValidator(_none_if_empty)] = None,
    state: Annotated[PoolPromptState | None, Query(), BeforeValidator(_none_if_empty)] = None,
    text: Annotated[str, Query(max_length=200)] = "",
    tag: Annotated[str, Query(max_length=200)] = "",
) -> Filter:
    return Filter(objective=objective, state=state, text=text.strip(), tag=pages.one_tag(tag))


@router.get("/admin/prompts")
def pool_page(
    request: Request,
    session: SessionDep,
    _visitor: AdminDep,
    wanted: Annotated[Filter, Depends(_filter)],
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
    added: Annotated[int | None, Query(ge=0)] = None,
    known: Annotated[int, Query(ge=0)] = 0,
) -> HTMLResponse:
    """What is in the pool."""
    came_of_it = Added(added=added, known=known) if added is not None else None
    return render(request, "pool/pool.html", pages.pool_page(session, wanted, page, added=came_of_it))


@router.post("/admin/prompts", dependencies=[Depends(_only_for_admins)], max_body_size=_UPLOAD_BYTES)
def check_prompts(
    request: Request, database: DatabaseDep, _visitor: AdminDep, fields: Annotated[FormData, Depends(_form_of)]
) -> Response:
    """Check prompts that were typed or uploaded, and show what they are; nothing is added yet."""
    settings = _settings(request)
    typed = {name: value for name, value in fields.items() if isinstance(value, str)}
    upload = fields.get("file")
    form, problems = read_fields(PromptsForm, typed)
    if form is None:
        return _again(request, database, typed, [f"{name}: {problem}" for name, problem in problems.items()])
    if isinstance(upload, UploadFile) and upload.filename:
        name = Path(upload.filename).name[:_NAME_CHARACTERS]
        draft = service.check(database, settings, form.wanted, upload.file, name)
    else:
        draft = service.check(database, settings, form.wanted, form.text)
        if draft.problem_count:
            # What was typed is corrected where it was typed.
            service.discard(draft.id, settings)
            return _again(request, database, typed, draft.problems, draft.problem_count)
    return _see(f"/admin/prompts/imports/{draft.id}")


@router.get("/admin/prompts/imports/{draft_id}")
def import_page(request: Request, _visitor: AdminDep, draft_id: UUID) -> HTMLResponse:
    """What checked prompts are."""
    draft = service.draft_of(draft_id, _settings(request))
    return render(request, "pool/checked.html", pages.CheckedPage(title="Add prompts", draft=draft))


@router.post("/admin/prompts/imports/{draft_id}")
def confirm_import(
    request: Request,
    database: DatabaseDep,
    visitor: AdminDep,
    draft_id: UUID,
    _form: Annotated[ProtectedForm, Form()],
) -> Response:
    """Add checked prompts to the pool."""
    settings = _settings(request)
    draft = service.draft_of(draft_id, settings)
    with database.write() as session:
        added = service.confirm(session, draft, settings, actor=visitor.person)
    service.discard(draft_id, settings)
    return _see(f"/admin/prompts?added={added.added}&known={added.known}")


@router.post("/admin/prompts/imports/{draft_id}/discard")
def discard_import(
    request: Request, _visitor: AdminDep, draft_id: UUID, _form: Annotated[ProtectedForm, Form()]
) -> Response:
    """Throw checked prompts away."""
    service.discard(draft_id, _settings(request))
    return _see("/admin/prompts")


@router.post("/admin/prompts/{prompt_id}/retire")
def retire_prompt(
    session: SessionDep, visitor: AdminDep, prompt_id: UUID, _form: Annotated[ProtectedForm, Form()]
) -> Response:
    """Take a prompt out of the pool."""
    service.retire(session, prompt_id, actor=visitor.person)
    return _see("/admin/prompts?state=waiting")


def _again(
    request: Request, database: DatabaseDep, typed: dict[str, Any], problems: list[str], count: int = 0
) -> HTMLResponse:
    with database.read() as session:
        page = pages.pool_page(session, Filter(), typed=typed, problems=problems, problem_count=count)
        return render(request, "pool/pool.html", page, status=HTTPStatus.UNPROCESSABLE_ENTITY)


def _settings(request: Request) -> Settings:
    settings: Settings = request.state.settings
    return settings


def _see(path: str) -> RedirectResponse:
    return RedirectResponse(path, status_code=HTTPStatus.SEE_OTHER)
