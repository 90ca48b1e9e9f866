"""The admin's page of the prompt pool."""

from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import BeforeValidator

from app.accounts.forms import ProtectedForm
from app.database import SessionDep
from app.models import PoolPromptState
from app.pool import pages, service
from app.pool.forms import PromptsForm
from app.pool.queries import Filter
from app.pool.reading import read_prompts
from app.pool.service import Added
from app.settings import Settings
from app.web.access import AdminDep
from app.web.templating import render
from contract.vocabulary import Objective

router = APIRouter()


def _none_if_empty(typed: object) -> object:
    return typed or None


@router.get("/admin/prompts")
def pool_page(
    request: Request,
    session: SessionDep,
    _visitor: AdminDep,
    *,
    objective: Annotated[Objective | None, Query(), BeforeValidator(_none_if_empty)] = None,
    state: Annotated[PoolPromptState | None, Query(), BeforeValidator(_none_if_empty)] = None,
    text: Annotated[str, Query(max_length=200)] = "",
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
    added: Annotated[int | None, Query(ge=0)] = None,
    known: Annotated[int, Query(ge=0)] = 0,
) -> HTMLResponse:
    """What is in the pool."""
    wanted = Filter(objective=objective, state=state, text=text.strip())
    came_of_it = Added(added=added, known=known) if added is not None else None
    return render(request, "pool/pool.html", pages.pool_page(session, wanted, page, added=came_of_it))


@router.post("/admin/prompts")
def add_prompts(
    request: Request, session: SessionDep, visitor: AdminDep, form: Annotated[PromptsForm, Form()]
) -> Response:
    """Add prompts, all of them or, where a line is none, not one."""
    settings: Settings = request.state.settings
    prompts, problems = read_prompts(form.text, form.tags, max_characters=settings.max_prompt_characters)
    if problems:
        page = pages.pool_page(session, Filter(), form=form, problems=problems)
        return render(request, "pool/pool.html", page, status=HTTPStatus.UNPROCESSABLE_ENTITY)
    added = service.add(session, prompts, source=form.source, actor=visitor.person)
    return _see(f"/admin/prompts?added={added.added}&known={added.known}")


@router.post("/admin/prompts/{prompt_id}/retire")
def retire_prompt(
    session: SessionDep, visitor: AdminDep, prompt_id: UUID, _form: Annotated[ProtectedForm, Form()]
) -> Response:
    """Take a prompt out of the pool."""
    service.retire(session, prompt_id, actor=visitor.person)
    return _see("/admin/prompts?state=waiting")


def _see(path: str) -> RedirectResponse:
    return RedirectResponse(path, status_code=HTTPStatus.SEE_OTHER)
