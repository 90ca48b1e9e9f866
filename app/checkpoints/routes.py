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
from app.models import Checkpoint, now
from app.sampling import overview
from app.sampling.overview import Holding, RefusedFolder, Standing
from app.settings import Settings
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
    held: list[Holding]
    """What the workers that are alive have to do with it."""

    @property
    def is_served(self) -> bool:
        """Whether some worker draws responses from it."""
        return any(one.standing is Standing.SERVING for one in self.held)


@dataclass(frozen=True, kw_only=True)
class CheckpointsPage(Page):
    """The registry of chat checkpoints."""

    title: str = "Checkpoints"
    rows: list[CheckpointRow]
    refused: list[RefusedFolder]
    """What workers refuse that is not in the registry."""


@router.get("/admin/checkpoints")
def checkpoints_page(request: Request, session: SessionDep, _visitor: AdminDep) -> HTMLResponse:
    """Every chat checkpoint; the page asks for its block again, to show how workers follow a promotion."""
    settings: Settings = request.state.settings
    page = _page(session, lease_s=settings.lease_s)
    return render(request, "checkpoints/checkpoints.html", page, block="registry")


@router.post("/admin/checkpoints/{checkpoint_id}/promote")
def promote(
    session: SessionDep, visitor: AdminDep, checkpoint_id: UUID, form: Annotated[PromoteForm, Form()]
) -> Response:
    """Make a checkpoint the current one."""
    checkpoint = service.get(session, checkpoint_id)
    service.promote(session, checkpoint, for_open_batch=form.for_open_batch, actor=visitor.person)
    return RedirectResponse("/admin/checkpoints", status_code=HTTPStatus.SEE_OTHER)


def _page(session: Session, *, lease_s: float) -> CheckpointsPage:
    views = overview.worker_views(session, at=now(), lease_s=lease_s)
    rows = _rows(session, overview.holdings(views))
    registered = {row.checkpoint.digest for row in rows}
    return CheckpointsPage(rows=rows, refused=overview.refused_folders(views, registered))


def _rows(session: Session, held: dict[str, list[Holding]]) -> list[CheckpointRow]:
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
            held=held.get(checkpoint.digest, []),
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
