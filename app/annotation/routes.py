"""The workspace over HTTP: one page for every state, and the forms that lead from one state to the next.

What a form changes is one short transaction of its own, committed before the next screen is read and rendered: on
SQLite there is one writer at a time, and nobody waits for somebody else's screen.
"""

from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Form, Response
from fastapi.responses import HTMLResponse

from app.accounts.forms import ProtectedForm
from app.annotation import answers, desk, judging, keeping, service
from app.annotation.answers import Rejected
from app.annotation.day import Day, day
from app.annotation.difference import Piece, differences
from app.annotation.drafts import Filling
from app.annotation.forms import AnnotationForm, DraftForm, FirstPromptForm, FlagForm, PromptForm, SkipForm
from app.annotation.workplace import Workplace, WorkplaceDep
from app.annotation.workspace import Workspace
from app.web.templating import Page, is_partial, render
from contract.vocabulary import Objective, Side

router = APIRouter(prefix="/annotate")


@dataclass(frozen=True, kw_only=True)
class DayPage(Page):
    """The annotator's own day."""

    title: str = "Your day"
    day: Day


@dataclass(frozen=True, kw_only=True)
class DifferencePage(Page):
    """Both responses with the words that only one of them has."""

    title: str = "Difference"
    comparison_id: UUID
    pieces_a: list[Piece]
    pieces_b: list[Piece]


@router.get("")
def workspace_page(workplace: WorkplaceDep, objective: Objective | None = None) -> HTMLResponse:
    """Where the annotator stands; where nothing of theirs waits to be judged, something is handed out."""
    with workplace.database.read() as session:
        found = desk.resume(session, workplace.annotator)
        if found.is_to_judge or not desk.may_hand_out(session):
            return workplace.show(workplace.room(session, found).screen(objective))
    with workplace.database.write() as session:
        found = desk.next_step(session, workplace.annotator, minutes=workplace.minutes)
    with workplace.database.read() as session:
        return workplace.show(workplace.room(session, found).screen(objective))


@router.get("/new")
def new_conversation_page(workplace: WorkplaceDep, objective: Objective | None = None) -> HTMLResponse:
    """The form for a new conversation, while others are under way."""
    with workplace.database.read() as session:
        room = workplace.room(session, desk.look(session, workplace.annotator).at(None))
        return workplace.show(room.new_conversation(objective))


@router.get("/tray")
def tray(workplace: WorkplaceDep, seen: str = "", current: UUID | None = None) -> Response:
    """The annotator's open conversations; nothing at all where they stand as they did."""
    with workplace.database.read() as session:
        shown = workplace.room(session, desk.look(session, workplace.annotator).at(current)).tray_only()
    return _nothing_new() if shown.tray_seen == seen else workplace.show_part(shown, "tray")


@router.get("/day")
def day_page(workplace: WorkplaceDep) -> HTMLResponse:
    """What the annotator did, and what came of it."""
    with workplace.database.read() as session:
        page = DayPage(day=day(session, workplace.annotator))
        return render(workplace.request, "annotation/day.html", page, block="day")


@router.get("/comparisons/{comparison_id}")
def comparison_page(
    workplace: WorkplaceDep, comparison_id: UUID, *, seen: str | None = None, change: bool = False
) -> Response:
    """The screen of a comparison; with ``seen`` only what is new since then, while the responses are sampled."""
    with workplace.database.read() as session:
        held = service.held(session, workplace.annotator, comparison_id)
        room = workplace.room(session, desk.resume(session, workplace.annotator))
        shown = room.change(held) if change else room.of(held)
        if seen is None or shown.progress is None:
            return workplace.show(shown)
    if shown.progress.seen == seen:
        return _nothing_new()
    part = workplace.show_part(shown, "progress")
    part.headers["HX-Retarget"] = "#progress"
    part.headers["HX-Reswap"] = "outerHTML"
    return part


@router.get("/comparisons/{comparison_id}/difference")
def difference_page(workplace: WorkplaceDep, comparison_id: UUID) -> HTMLResponse:
    """Which words only one of the responses has."""
    with workplace.database.read() as session:
        comparison = service.held_complete(session, workplace.annotator, comparison_id).comparison
        a, b = differences(comparison.response(Side.A).text, comparison.response(Side.B).text)
    page = DifferencePage(comparison_id=comparison_id, pieces_a=a, pieces_b=b)
    return render(workplace.request, "annotation/difference.html", page, block="difference")


@router.post("/conversations")
def start_conversation(workplace: WorkplaceDep, form: Annotated[FirstPromptForm, Form()]) -> Response:
    """Begin a conversation with a prompt."""
    settings = workplace.settings
    prompt = answers.read_prompt(
        form.prompt, max_characters=settings.max_prompt_characters, objective=form.objective, tags=form.tags
    )
    if isinstance(prompt, Rejected):
        with workplace.database.read() as session:
            room = workplace.room(session, desk.look(session, workplace.annotator).at(None))
            return workplace.show(_with_typed(room.new_conversation(form.objective), form), problem=prompt)
    with workplace.database.write() as session:
        asked = service.start_conversation(
            session,
            workplace.annotator,
            form.objective,
            prompt,
            form_id=form.form_id,
            most_open=settings.max_open_conversations,
        )
        found = desk.next_step(session, workplace.annotator, minutes=workplace.minutes, asked=asked.id)
    return workplace.go_on(found)


@router.post("/conversations/{conversation_id}/prompts")
def continue_conversation(
    workplace: WorkplaceDep, conversation_id: UUID, form: Annotated[PromptForm, Form()]
) -> Response:
    """Write the next prompt of a conversation."""
    with workplace.database.write() as session:
        conversation = service.own_conversation(session, workplace.annotator, conversation_id)
        prompt = answers.read_prompt(
            form.prompt,
            max_characters=workplace.settings.max_prompt_characters,
            objective=conversation.objective,
            tags=form.tags,
            needs_tags=False,
        )
        if not isinstance(prompt, Rejected):
            asked = service.continue_conversation(
                session, workplace.annotator, conversation_id, prompt, form_id=form.form_id
            )
            found = desk.next_step(session, workplace.annotator, minutes=workplace.minutes, asked=asked.id)
    if isinstance(prompt, Rejected):
        with workplace.database.read() as session:
            latest = service.latest_of(session, workplace.annotator, conversation_id)
            room = workplace.room(session, desk.resume(session, workplace.annotator))
            return workplace.show(_with_typed(room.of(latest), form), problem=prompt)
    return workplace.go_on(found)


@router.post("/conversations/{conversation_id}/finish")
def finish_conversation(
    workplace: WorkplaceDep, conversation_id: UUID, _form: Annotated[ProtectedForm, Form()]
) -> Response:
    """End a conversation."""
    with workplace.database.write() as session:
        service.finish_conversation(session, workplace.annotator, conversation_id)
        found = desk.next_step(session, workplace.annotator, minutes=workplace.minutes)
    return workplace.go_on(found)


@router.post("/comparisons/{comparison_id}/annotation")
def annotate(workplace: WorkplaceDep, comparison_id: UUID, form: Annotated[AnnotationForm, Form()]) -> Response:
    """Record which response is better and how much, or change it."""
    minutes = workplace.minutes
    with workplace.database.write() as session:
        held = service.locked_held(session, workplace.annotator, comparison_id)
        batch = service.batch_of(session, held)
        answer = answers.read_answer(batch, held.comparison, form.filled)
        if not isinstance(answer, Rejected):
            judging.annotate(session, workplace.annotator, batch, held, answer, minutes=minutes)
            found = desk.next_step(session, workplace.annotator, minutes=minutes, asked=comparison_id, batch=batch)
            found = replace(found, judged=comparison_id)
    if isinstance(answer, Rejected):
        shown_again = Filling.of(vars(form.filled))
        return _stay(workplace, comparison_id, draft=shown_again, problem=answer)
    return workplace.go_on(found)


@router.post("/comparisons/{comparison_id}/skip")
def skip(workplace: WorkplaceDep, comparison_id: UUID, form: Annotated[SkipForm, Form()]) -> Response:
    """Refuse to judge a comparison, with the reason."""
    minutes = workplace.minutes
    with workplace.database.write() as session:
        judging.skip(session, workplace.annotator, comparison_id, form.reason, form.note, minutes=minutes)
        found = desk.next_step(session, workplace.annotator, minutes=minutes)
    return workplace.go_on(found)


@router.post("/comparisons/{comparison_id}/flag")
def flag(workplace: WorkplaceDep, comparison_id: UUID, form: Annotated[FlagForm, Form()]) -> Response:
    """Tell reviewers and admins something about a comparison; the screen stays."""
    with workplace.database.write() as session:
        judging.flag(session, workplace.annotator, comparison_id, form.kind, form.note)
    if not is_partial(workplace.request):
        return workplace.redirect(f"/annotate/comparisons/{comparison_id}")
    return _stay(workplace, comparison_id, notice="Thank you: it is noted for the reviewers.")


@router.post("/comparisons/{comparison_id}/retry")
def retry(workplace: WorkplaceDep, comparison_id: UUID, _form: Annotated[ProtectedForm, Form()]) -> Response:
    """Sample the responses once more."""
    with workplace.database.write() as session:
        service.retry(session, workplace.annotator, comparison_id)
        found = desk.next_step(session, workplace.annotator, minutes=workplace.minutes, asked=comparison_id)
    return workplace.go_on(found)


@router.post("/drafts/{form_id}")
def keep_draft(workplace: WorkplaceDep, form_id: UUID, form: Annotated[DraftForm, Form()]) -> Response:
    """Keep what is in a form that has not been sent."""
    with workplace.database.write() as session:
        keeping.keep(session, workplace.annotator, form_id, form, minutes=workplace.minutes)
    return _nothing_new()


@router.post("/guidelines/{guideline_id}/read")
def read_guideline(workplace: WorkplaceDep, guideline_id: UUID, _form: Annotated[ProtectedForm, Form()]) -> Response:
    """Note that a version of a guideline was read: it is folded from now on."""
    with workplace.database.write() as session:
        keeping.note_guideline_read(session, workplace.annotator, guideline_id)
    return _nothing_new() if is_partial(workplace.request) else workplace.redirect("/annotate")


def _stay(
    workplace: Workplace,
    comparison_id: UUID,
    *,
    draft: Filling | None = None,
    problem: Rejected | None = None,
    notice: str = "",
) -> HTMLResponse:
    """The screen of a comparison as it was, with what was pressed, and what there is to say about it."""
    with workplace.database.read() as session:
        room = workplace.room(session, desk.resume(session, workplace.annotator))
        shown = room.change(service.held(session, workplace.annotator, comparison_id))
        if draft is not None:
            shown = replace(shown, draft=draft)
        return workplace.show(shown, problem=problem, notice=notice)


def _with_typed(shown: Workspace, form: PromptForm) -> Workspace:
    """A screen with the prompt that came back."""
    typed = Filling(prompt=form.prompt, risk_category=form.risk_category, attack_vector=form.attack_vector)
    return replace(shown, draft=typed, form_id=form.form_id)


def _nothing_new() -> Response:
    return Response(status_code=HTTPStatus.NO_CONTENT)
