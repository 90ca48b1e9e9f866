"""An annotator's request: who it is, and how the next screen reaches them."""

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlalchemy.orm import Session

from app.annotation import answers, keeping
from app.annotation.answers import Rejected, SafetyAnswer
from app.annotation.desk import Desk
from app.annotation.workspace import Room, Screen, Workspace
from app.database import Database, DatabaseDep
from app.models import FlagKind, Person, SkipReason
from app.settings import Settings
from app.web.access import AnnotatorDep
from app.web.templating import Page, is_partial, render
from contract.vocabulary import AttackVector, RiskCategory

_TEMPLATE = "annotation/workspace.html"


@dataclass(frozen=True, kw_only=True)
class WorkspacePage(Page):
    """The workspace in one of its states."""

    title: str = "Annotate"
    workspace: Workspace
    max_prompt_characters: int
    max_rationale_characters: int = answers.RATIONALE_CHARACTERS
    problem: Rejected | None = None
    """Why the form came back."""
    notice: str = ""
    """What else there is to say."""
    skip_reasons: list[SkipReason] = field(default_factory=lambda: list(SkipReason))
    safety_answers: list[SafetyAnswer] = field(default_factory=lambda: list(SafetyAnswer))
    risk_categories: list[RiskCategory] = field(default_factory=lambda: list(RiskCategory))
    attack_vectors: list[AttackVector] = field(default_factory=lambda: list(AttackVector))
    flag_kinds: list[FlagKind] = field(default_factory=lambda: list(FlagKind))


@dataclass(frozen=True)
class Workplace:
    """One request of an annotator."""

    request: Request
    database: Database
    annotator: Person
    """As they were when the request came; of no transaction."""
    settings: Settings

    @property
    def minutes(self) -> float:
        """How long what is handed out is theirs."""
        return self.settings.hand_out_minutes

    def room(self, session: Session, desk: Desk) -> Room:
        """Builds the screens of this annotator."""
        return Room(session, self.annotator, desk, self.settings.max_open_conversations)

    def show(self, shown: Workspace, *, problem: Rejected | None = None, notice: str = "") -> HTMLResponse:
        """A screen. Its session must still be open."""
        status = HTTPStatus.UNPROCESSABLE_ENTITY if problem is not None else HTTPStatus.OK
        page = self._page(shown, problem=problem, notice=notice)
        answer = render(self.request, _TEMPLATE, page, block="workspace", status=status)
        if shown.is_first_look and shown.screen is Screen.JUDGE and shown.comparison_id is not None:
            self._start_clock(shown.comparison_id)
        return answer

    def show_part(self, shown: Workspace, block: str) -> HTMLResponse:
        """A part of a screen that has a block of its own."""
        return render(self.request, _TEMPLATE, self._page(shown), block=block)

    def go_on(self, desk: Desk) -> Response:
        """After something was done: the next screen at once for htmx, a redirect to it otherwise."""
        if not is_partial(self.request):
            return self.redirect("/annotate")
        with self.database.read() as session:
            return self.show(self.room(session, desk).screen())

    def redirect(self, path: str) -> RedirectResponse:
        """See another page."""
        return RedirectResponse(path, status_code=HTTPStatus.SEE_OTHER)

    def _page(self, shown: Workspace, *, problem: Rejected | None = None, notice: str = "") -> WorkspacePage:
        return WorkspacePage(
            workspace=shown,
            max_prompt_characters=self.settings.max_prompt_characters,
            problem=problem,
            notice=notice,
        )

    def _start_clock(self, comparison_id: UUID) -> None:
        """Note the first look at a pair, in a short transaction of its own: the screen's own only reads.

        Looking again changes nothing, which keeps a GET safe to repeat.
        """
        with self.database.write() as session:
            keeping.note_look(session, self.annotator, comparison_id)


def _workplace(request: Request, database: DatabaseDep, visitor: AnnotatorDep) -> Workplace:
    return Workplace(request, database, visitor.person, request.state.settings)


WorkplaceDep = Annotated[Workplace, Depends(_workplace)]
