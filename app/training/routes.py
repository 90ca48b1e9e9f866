"""The trainer's pages: runs and reward models, a new run, a run as it goes, a reward model's report."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from app.accounts.forms import ProtectedForm
from app.database import SessionDep
from app.training import pages, service, worker_routes
from app.training.forms import RunForm
from app.web.access import TrainerDep
from app.web.templating import is_partial, render

router = APIRouter()
router.include_router(worker_routes.router)


@router.get("/training")
def training_page(request: Request, session: SessionDep, _visitor: TrainerDep) -> HTMLResponse:
    """All runs and reward models."""
    page = pages.training_page(session)
    response = render(request, "training/training.html", page, block="runs")
    return _complete_when_over(request, response, is_active=page.is_active)


@router.post("/training/runs")
def queue_run(request: Request, session: SessionDep, visitor: TrainerDep, form: Annotated[RunForm, Form()]) -> Response:
    """Queue a run, or show the form again with what is wrong with it."""
    wanted, problems = form.read()
    if wanted is not None:
        problems = service.problems(session, wanted)
    if wanted is None or problems:
        page = pages.training_page(session, form, problems)
        return render(request, "training/training.html", page, status=HTTPStatus.UNPROCESSABLE_ENTITY)
    return _see(f"/training/runs/{service.queue_run(session, wanted, actor=visitor.person).name}")


@router.get("/training/runs/{name}")
def run_page(request: Request, session: SessionDep, _visitor: TrainerDep, name: str) -> HTMLResponse:
    """One run as it goes; the page asks for its block again while the run goes on."""
    page = pages.run_page(session, service.get_run(session, name))
    response = render(request, "training/run.html", page, block="run")
    return _complete_when_over(request, response, is_active=page.is_active)


@router.post("/training/runs/{name}/cancel")
def cancel_run(
    session: SessionDep, visitor: TrainerDep, name: str, _form: Annotated[ProtectedForm, Form()]
) -> Response:
    """Stop a run."""
    service.cancel_run(session, service.get_run(session, name), actor=visitor.person)
    return _see(f"/training/runs/{name}")


@router.post("/training/runs/{name}/retry")
def retry_run(session: SessionDep, visitor: TrainerDep, name: str, _form: Annotated[ProtectedForm, Form()]) -> Response:
    """Queue a failed or cancelled run once more."""
    service.retry_run(session, service.get_run(session, name), actor=visitor.person)
    return _see(f"/training/runs/{name}")


@router.get("/training/reward-models/{name}")
def reward_model_page(request: Request, session: SessionDep, _visitor: TrainerDep, name: str) -> HTMLResponse:
    """What a reward model gets right, what made it, how to use it."""
    page = pages.reward_model_page(session, service.get_reward_model(session, name))
    return render(request, "training/reward_model.html", page)


def _complete_when_over(request: Request, response: HTMLResponse, *, is_active: bool) -> HTMLResponse:
    """Once nothing goes on any more, a page that keeps itself fresh is loaded whole, for the last time."""
    if is_partial(request) and not is_active:
        response.headers["HX-Refresh"] = "true"
    return response


def _see(path: str) -> RedirectResponse:
    return RedirectResponse(path, status_code=HTTPStatus.SEE_OTHER)
