"""The workspace over HTTP: one page for every state, and the forms that lead from one state to the next."""

from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from app.accounts.forms import ProtectedForm
from app.annotation import answers, judging, service
from app.annotation.answers import Rejected, SafetyAnswer
from app.annotation.forms import AnnotationForm, FirstPromptForm, NextPromptForm, SkipForm
from app.annotation.workspace import Draft, Workspace, workspace, workspace_to_change
from app.database import Database, SessionDep
from app.models import ComparisonState, SkipReason
from app.settings import Settings
from app.web.access import AnnotatorDep, Visitor
from app.web.templating import Page, is_partial, render
from contract.vocabulary import Objective

router = APIRouter(prefix="/annotate")


@dataclass(frozen=True, kw_only=True)
class WorkspacePage(Page):
    """The workspace in one of its states."""

    title: str = "Annotate"
    workspace: Workspace
    max_prompt_characters: int
    max_rationale_characters: int = answers.RATIONALE_CHARACTERS
    problem: Rejected | None = None
    """Why the form came back."""
    skip_reasons: list[SkipReason] = field(default_factory=lambda: list(SkipReason))
    safety_answers: list[SafetyAnswer] = field(default_factory=lambda: list(SafetyAnswer))


@router.get("")
def workspace_page(
    request: Request, session: SessionDep, visitor: AnnotatorDep, objective: Objective | None = None
) -> HTMLResponse:
    """Where the annotator stands."""
    return _show(request, session, workspace(session, visitor.person, objective))


@router.get("/comparisons/{comparison_id}")
def comparison_page(
    request: Request,
    session: SessionDep,
    visitor: AnnotatorDep,
    comparison_id: UUID,
    *,
    waiting: bool = False,
    change: bool = False,
) -> Response:
    """The workspace again; with ``waiting`` nothing at all while the responses are still being sampled."""
    comparison = service.own_comparison(session, visitor.person, comparison_id)
    if waiting and is_partial(request) and comparison.state is ComparisonState.SAMPLING:
        return Response(status_code=HTTPStatus.NO_CONTENT)
    if change:
        return _show(request, session, workspace_to_change(session, visitor.person, comparison))
    return _show(request, session, workspace(session, visitor.person))


@router.post("/conversations")
def start_conversation(
    request: Request, session: SessionDep, visitor: AnnotatorDep, form: Annotated[FirstPromptForm, Form()]
) -> Response:
    """Begin a conversation with a prompt."""
    prompt = answers.read_prompt(form.prompt, max_characters=_settings(request).max_prompt_characters)
    if isinstance(prompt, Rejected):
        shown = workspace(session, visitor.person, form.objective)
        return _show_again(request, session, shown, prompt, Draft(prompt=form.prompt))
    service.start_conversation(session, visitor.person, form.objective, prompt)
    return _go_on(request, session, visitor)


@router.post("/conversations/{conversation_id}/prompts")
def continue_conversation(
    request: Request,
    session: SessionDep,
    visitor: AnnotatorDep,
    conversation_id: UUID,
    form: Annotated[NextPromptForm, Form()],
) -> Response:
    """Write the next prompt of a conversation."""
    prompt = answers.read_prompt(form.prompt, max_characters=_settings(request).max_prompt_characters)
    if isinstance(prompt, Rejected):
        return _show_again(request, session, workspace(session, visitor.person), prompt, Draft(prompt=form.prompt))
    service.continue_conversation(session, visitor.person, conversation_id, prompt)
    return _go_on(request, session, visitor)


@router.post("/conversations/{conversation_id}/finish")
def finish_conversation(
    request: Request,
    session: SessionDep,
    visitor: AnnotatorDep,
    conversation_id: UUID,
    _form: Annotated[ProtectedForm, Form()],
) -> Response:
    """End a conversation."""
    service.finish_conversation(session, visitor.person, conversation_id)
    return _go_on(request, session, visitor)


@router.post("/comparisons/{comparison_id}/annotation")
def annotate(
    request: Request,
    session: SessionDep,
    visitor: AnnotatorDep,
    comparison_id: UUID,
    form: Annotated[AnnotationForm, Form()],
) -> Response:
    """Record which response is better and how much, or change it."""
    comparison = service.own_comparison(session, visitor.person, comparison_id)
    answer = answers.read_answer(
        comparison, rating=form.rating, safety=form.safety, rationale=form.rationale, is_confirmed=form.confirm
    )
    if isinstance(answer, Rejected):
        shown = workspace_to_change(session, visitor.person, comparison)
        draft = Draft(rating=form.rating, safety=form.safety, rationale=form.rationale)
        return _show_again(request, session, shown, answer, draft)
    judging.annotate(session, visitor.person, comparison, answer)
    return _go_on(request, session, visitor)


@router.post("/comparisons/{comparison_id}/skip")
def skip(
    request: Request,
    session: SessionDep,
    visitor: AnnotatorDep,
    comparison_id: UUID,
    form: Annotated[SkipForm, Form()],
) -> Response:
    """Refuse to rate a comparison, with the reason."""
    comparison = service.own_comparison(session, visitor.person, comparison_id)
    judging.skip(session, visitor.person, comparison, form.reason, form.note)
    return _go_on(request, session, visitor)


@router.post("/comparisons/{comparison_id}/retry")
def retry(
    request: Request,
    session: SessionDep,
    visitor: AnnotatorDep,
    comparison_id: UUID,
    _form: Annotated[ProtectedForm, Form()],
) -> Response:
    """Sample the responses once more."""
    comparison = service.own_comparison(session, visitor.person, comparison_id)
    service.retry(session, visitor.person, comparison)
    return _go_on(request, session, visitor)


def _go_on(request: Request, session: SessionDep, visitor: Visitor) -> Response:
    """After something was done: the next screen at once for htmx, a redirect to it otherwise."""
    if not is_partial(request):
        return RedirectResponse("/annotate", status_code=HTTPStatus.SEE_OTHER)
    session.flush()
    return _show(request, session, workspace(session, visitor.person))


def _show_again(
    request: Request, session: SessionDep, shown: Workspace, problem: Rejected, draft: Draft
) -> HTMLResponse:
    """The screen as it was, with what was typed and pressed, and what is wrong with it."""
    return _show(request, session, replace(shown, draft=draft), problem)


def _show(request: Request, session: SessionDep, shown: Workspace, problem: Rejected | None = None) -> HTMLResponse:
    if shown.is_first_look and shown.comparison_id is not None:
        _start_clock(request, session, shown.comparison_id)
    page = WorkspacePage(
        workspace=shown, max_prompt_characters=_settings(request).max_prompt_characters, problem=problem
    )
    status = HTTPStatus.UNPROCESSABLE_ENTITY if problem is not None else HTTPStatus.OK
    return render(request, "annotation/workspace.html", page, block="workspace", status=status)


def _start_clock(request: Request, session: SessionDep, comparison_id: UUID) -> None:
    """Note the first look at a pair, which is most often a GET: its own transaction only reads.

    So a GET notes it in a short transaction of its own. Looking again changes nothing, which keeps the GET safe to
    repeat. A POST writes anyway, and must use its own transaction: on SQLite it holds the write lock.
    """
    if request.method == "GET":
        database: Database = request.state.database
        with database.write() as writing:
            service.mark_shown(writing, comparison_id)
    else:
        service.mark_shown(session, comparison_id)


def _settings(request: Request) -> Settings:
    settings: Settings = request.state.settings
    return settings
