"""The reviewer's page."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from app.database import SessionDep
from app.review import service
from app.review.forms import VerdictForm
from app.review.service import Queue
from app.web.access import ReviewerDep
from app.web.templating import Page, is_partial, render

router = APIRouter()


@dataclass(frozen=True, kw_only=True)
class ReviewPage(Page):
    """The annotations that wait for a verdict."""

    title: str = "Review"
    queue: Queue


@router.get("/review")
def review_page(
    request: Request, session: SessionDep, visitor: ReviewerDep, page: Annotated[int, Query(ge=1)] = 1
) -> HTMLResponse:
    """What waits for a verdict."""
    queue = service.queue(session, visitor.person, page)
    return render(request, "review/queue.html", ReviewPage(queue=queue), block="queue")


@router.post("/review/{annotation_id}")
def give_verdict(
    request: Request,
    session: SessionDep,
    visitor: ReviewerDep,
    annotation_id: UUID,
    form: Annotated[VerdictForm, Form()],
) -> Response:
    """Approve or reject an annotation."""
    service.give_verdict(
        session, visitor.person, annotation_id, form.verdict, revision=form.revision, feedback=form.feedback
    )
    if is_partial(request):
        queue = service.queue(session, visitor.person, form.page)
        return render(request, "review/queue.html", ReviewPage(queue=queue), block="queue")
    return RedirectResponse(f"/review?page={form.page}", status_code=HTTPStatus.SEE_OTHER)
