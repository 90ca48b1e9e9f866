"""The admin's page of model workers, and another try at what has failed."""

from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from app.accounts.forms import ProtectedForm
from app.database import DatabaseDep, SessionDep
from app.sampling import failures, pages
from app.sampling.forms import RetryForm
from app.settings import Settings
from app.web.access import AdminDep
from app.web.templating import render

router = APIRouter()


@router.get("/admin/workers")
def workers_page(
    request: Request,
    session: SessionDep,
    _visitor: AdminDep,
    *,
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
    gone: bool = False,
    retried: Annotated[int | None, Query(ge=0)] = None,
) -> HTMLResponse:
    """The queue, the workers and what has failed; the page asks for its block again every few seconds."""
    settings: Settings = request.state.settings
    shown = pages.workers_page(session, lease_s=settings.lease_s, page=page, with_gone=gone, retried=retried)
    return render(request, "sampling/workers.html", shown, block="workers")


@router.post("/admin/workers/failed/retry")
def retry_all(database: DatabaseDep, visitor: AdminDep, _form: Annotated[ProtectedForm, Form()]) -> Response:
    """Sample everything again that failed and that somebody may still judge."""
    return _see(failures.retry_all(database, actor=visitor.person))


@router.post("/admin/workers/failed/{job_id}/retry")
def retry(session: SessionDep, visitor: AdminDep, job_id: UUID, form: Annotated[RetryForm, Form()]) -> Response:
    """Sample a pair again that failed."""
    failures.retry(session, job_id, actor=visitor.person)
    return _see(1, page=form.page)


def _see(retried: int, *, page: int = 1) -> RedirectResponse:
    return RedirectResponse(pages.address(page, retried=retried), status_code=HTTPStatus.SEE_OTHER)
