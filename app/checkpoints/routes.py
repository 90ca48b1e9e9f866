"""The admin's page of chat checkpoints: what is registered, what is current, promotion."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlalchemy.orm import Session

from app.checkpoints import queries, service
from app.checkpoints.forms import PromoteForm
from app.database import SessionDep
from app.models import Checkpoint
from app.web.access import AdminDep
from app.web.templating import Page, render

router = APIRouter()

_UNITS = ("B", "kB", "MB", "GB", "TB")
_UNIT_STEP = 1000
_NO_BREAK = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True)
class CheckpointRow:
    """A checkpoint in the registry."""

    checkpoint: Checkpoint
    size: str
    responses: int
    parent: str
    is_current: bool


@dataclass(frozen=True, kw_only=True)
class CheckpointsPage(Page):
    """The registry of chat checkpoints."""

    title: str = "Checkpoints"
    rows: list[CheckpointRow]


@router.get("/admin/checkpoints")
def checkpoints_page(request: Request, session: SessionDep, _visitor: AdminDep) -> HTMLResponse:
    """Every chat checkpoint."""
    return render(request, "checkpoints/checkpoints.html", CheckpointsPage(rows=_rows(session)))


@router.post("/admin/checkpoints/{checkpoint_id}/promote")
def promote(
    session: SessionDep, visitor: AdminDep, checkpoint_id: UUID, form: Annotated[PromoteForm, Form()]
) -> Response:
    """Make a checkpoint the current one."""
    checkpoint = service.get(session, checkpoint_id)
    service.promote(session, checkpoint, for_open_batch=form.for_open_batch, actor=visitor.person)
    return RedirectResponse("/admin/checkpoints", status_code=HTTPStatus.SEE_OTHER)


def _rows(session: Session) -> list[CheckpointRow]:
    checkpoints = queries.all_checkpoints(session)
    names = {checkpoint.id: checkpoint.name for checkpoint in checkpoints}
    responses = queries.responses_by_checkpoint(session)
    current = queries.current(session)
    return [
        CheckpointRow(
            checkpoint=checkpoint,
            size=_size(checkpoint.weight_bytes),
            responses=responses.get(checkpoint.id, 0),
            parent=names.get(checkpoint.parent_id, "") if checkpoint.parent_id is not None else "",
            is_current=current is not None and current.id == checkpoint.id,
        )
        for checkpoint in checkpoints
    ]


def _size(number: float) -> str:
    """A number of bytes, short."""
    for unit in _UNITS[:-1]:
        if number < _UNIT_STEP:
            return f"{number:.3g}{_NO_BREAK}{unit}"
        number /= _UNIT_STEP
    return f"{number:.3g}{_NO_BREAK}{_UNITS[-1]}"
