"""The admin's pages: this week, the calendar of batches, a batch with its settings, closing it, guidelines."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from app.accounts.forms import ProtectedForm
from app.batches import calendar, guidelines, moving, pages, schedule, service
from app.batches.forms import BatchForm, CloseForm, ExtendForm, GuidelineForm, SkipForm
from app.batches.schedule_form import ScheduleForm
from app.database import SessionDep
from app.models import now
from app.settings import Settings
from app.web.access import AdminDep
from app.web.templating import render

router = APIRouter()


@router.get("/admin")
def week_page(request: Request, session: SessionDep, _visitor: AdminDep) -> HTMLResponse:
    """How collecting goes right now; the page asks for its block again every few seconds."""
    settings: Settings = request.state.settings
    page = pages.week_page(session, lease_s=settings.lease_s)
    return render(request, "batches/week.html", page, block="week")


@router.get("/admin/batches")
def batches_page(request: Request, session: SessionDep, _visitor: AdminDep) -> HTMLResponse:
    """The calendar: past, current and next weeks."""
    return render(request, "batches/batches.html", calendar.calendar_page(session))


@router.post("/admin/batches")
def schedule_next(session: SessionDep, visitor: AdminDep, _form: Annotated[ProtectedForm, Form()]) -> Response:
    """Schedule the week after the newest batch, and show it."""
    return _see(f"/admin/batches/{schedule.schedule_next(session, actor=visitor.person).number}")


@router.get("/admin/batches/schedule")
def schedule_page(request: Request, session: SessionDep, _visitor: AdminDep) -> HTMLResponse:
    """When batches open, and what new ones are like."""
    return render(request, "batches/schedule.html", calendar.schedule_page(session))


@router.post("/admin/batches/schedule")
def save_schedule(
    request: Request, session: SessionDep, visitor: AdminDep, form: Annotated[ScheduleForm, Form()]
) -> Response:
    """Save the schedule, or show the form again with what is wrong with it."""
    plan, problems = form.read_plan()
    if plan is None:
        page = calendar.schedule_page(session, form, problems)
        return render(request, "batches/schedule.html", page, status=HTTPStatus.UNPROCESSABLE_ENTITY)
    schedule.save(session, plan, to_scheduled=bool(form.to_scheduled), actor=visitor.person)
    return _see("/admin/batches")


@router.post("/admin/batches/skipped")
def skip_week(session: SessionDep, visitor: AdminDep, form: Annotated[SkipForm, Form()]) -> Response:
    """Skip a week to come, or do not skip it after all."""
    act = moving.skip if form.is_skipped else moving.take_back_skip
    act(session, form.starts_on, actor=visitor.person)
    return _see("/admin/batches")


@router.get("/admin/batches/{number}")
def batch_page(request: Request, session: SessionDep, _visitor: AdminDep, number: int) -> HTMLResponse:
    """Everything about one batch."""
    return render(request, "batches/batch.html", pages.batch_page(session, service.get(session, number)))


@router.post("/admin/batches/{number}")
def change_batch(
    request: Request, session: SessionDep, visitor: AdminDep, number: int, form: Annotated[BatchForm, Form()]
) -> Response:
    """Change a batch's settings, or show the form again with what is wrong with it."""
    batch = service.get(session, number)
    settings, problems = form.read(service.settings_of(session, batch))
    if settings is None:
        page = pages.batch_page(session, batch, form, problems)
        return render(request, "batches/batch.html", page, status=HTTPStatus.UNPROCESSABLE_ENTITY)
    moving.change(session, batch, settings, actor=visitor.person)
    return _see(f"/admin/batches/{number}")


@router.get("/admin/batches/{number}/statistics")
def statistics_page(request: Request, session: SessionDep, _visitor: AdminDep, number: int) -> HTMLResponse:
    """The statistics of one batch; the batch's page loads the block when it is there."""
    page = pages.statistics_page(session, service.get(session, number))
    return render(request, "batches/statistics.html", page, block="statistics")


@router.get("/admin/batches/{number}/close")
def close_page(request: Request, session: SessionDep, _visitor: AdminDep, number: int) -> HTMLResponse:
    """Ask before the week is closed."""
    return render(request, "batches/close.html", pages.close_page(session, service.get(session, number)))


@router.post("/admin/batches/{number}/close")
def close_batch(session: SessionDep, visitor: AdminDep, number: int, form: Annotated[CloseForm, Form()]) -> Response:
    """Close the week now."""
    batch = service.get(session, number)
    service.close_now(session, batch, wait_for_running=form.wait_for_running, actor=visitor.person)
    return _see("/admin")


@router.get("/admin/batches/{number}/extend")
def extend_page(request: Request, session: SessionDep, _visitor: AdminDep, number: int) -> HTMLResponse:
    """Ask until when the batch stays open."""
    return render(request, "batches/extend.html", calendar.extend_page(service.get(session, number)))


@router.post("/admin/batches/{number}/extend")
def extend_batch(
    request: Request, session: SessionDep, visitor: AdminDep, number: int, form: Annotated[ExtendForm, Form()]
) -> Response:
    """Keep the batch open for longer."""
    batch = service.get(session, number)
    closes_at, problems = form.read(batch, now())
    if closes_at is None:
        page = calendar.extend_page(batch, form, problems)
        return render(request, "batches/extend.html", page, status=HTTPStatus.UNPROCESSABLE_ENTITY)
    moving.extend(session, batch, closes_at, actor=visitor.person)
    return _see(f"/admin/batches/{number}")


@router.get("/admin/guidelines")
def guidelines_page(request: Request, session: SessionDep, _visitor: AdminDep) -> HTMLResponse:
    """The guidelines and their history."""
    return render(request, "batches/guidelines.html", pages.guidelines_page(session))


@router.post("/admin/guidelines")
def add_guideline(
    request: Request, session: SessionDep, visitor: AdminDep, form: Annotated[GuidelineForm, Form()]
) -> Response:
    """Publish a new version of a guideline."""
    guidelines.ensure_first(session)
    problems = form.problems(guidelines.current(session, form.objective).text)
    if problems:
        page = pages.guidelines_page(session, form, problems)
        return render(request, "batches/guidelines.html", page, status=HTTPStatus.UNPROCESSABLE_ENTITY)
    guidelines.add_version(session, form.objective, form.plain_text, actor=visitor.person)
    return _see(f"/admin/guidelines#{form.objective}")


def _see(path: str) -> RedirectResponse:
    return RedirectResponse(path, status_code=HTTPStatus.SEE_OTHER)
