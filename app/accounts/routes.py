"""Sign-in, sign-out, one's own account, and the admin's pages of people and tokens."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from app.accounts import queries, service
from app.accounts.forms import (
    ActiveForm,
    ExcludedForm,
    NewPasswordForm,
    PasswordForm,
    PersonForm,
    ProtectedForm,
    TokenForm,
)
from app.comparisons import handout
from app.database import SessionDep
from app.errors import NotFoundError
from app.models import ApiToken, AuditEvent, Person, PersonRole, TokenScope, now
from app.settings import Settings
from app.web.access import SESSION_COOKIE, AdminDep, AnyoneSignedInDep, Public, visitor_of
from app.web.templating import Page, render

router = APIRouter()

_EVENTS_SHOWN = 100
_HOME = {
    PersonRole.ANNOTATOR: "/annotate",
    PersonRole.REVIEWER: "/review",
    PersonRole.TRAINER: "/datasets",
    PersonRole.ADMIN: "/admin",
}


@dataclass(frozen=True, kw_only=True)
class SignInPage(Page):
    """The form for name and password."""

    title: str = "Sign in"
    next: str = "/"
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class LinkPage(Page):
    """Asks whether to use a sign-in link now."""

    title: str = "Sign in"
    token: str
    person: Person


@dataclass(frozen=True, kw_only=True)
class AccountPage(Page):
    """A person's own page."""

    title: str = "Your account"
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class PeoplePage(Page):
    """Everybody, with a form to invite more."""

    title: str = "People"
    people: list[Person]
    roles: list[PersonRole] = field(default_factory=lambda: list(PersonRole))
    link: str = ""
    """A fresh sign-in link; shown this once."""
    link_for: str = ""


@dataclass(frozen=True, kw_only=True)
class TokensPage(Page):
    """The API tokens, with a form to make one."""

    title: str = "API tokens"
    tokens: list[ApiToken]
    scopes: list[TokenScope] = field(default_factory=lambda: list(TokenScope))
    token: str = ""
    """A fresh token; shown this once."""
    at: datetime = field(default_factory=now)
    """The present moment, which tells whether a token has expired."""


@dataclass(frozen=True, kw_only=True)
class AuditPage(Page):
    """The latest events."""

    title: str = "Audit trail"
    events: list[tuple[AuditEvent, str | None]]


@router.get("/", dependencies=[Depends(Public("sends everybody to their own start page"))])
def home(request: Request) -> RedirectResponse:
    """Send people to where their work is."""
    visitor = visitor_of(request)
    return _see(_HOME[visitor.person.role] if visitor is not None else "/sign-in")


@router.get("/sign-in", dependencies=[Depends(Public("nobody is signed in yet"))])
def sign_in_page(request: Request, next: str = "/") -> HTMLResponse:  # noqa: A002 - the query parameter's name
    """The sign-in form."""
    return render(request, "accounts/sign_in.html", SignInPage(next=next))


@router.post("/sign-in", dependencies=[Depends(Public("nobody is signed in yet"))])
def sign_in(request: Request, session: SessionDep, form: Annotated[PasswordForm, Form()]) -> Response:
    """Sign in by name and password."""
    settings: Settings = request.state.settings
    _, token = service.sign_in_by_password(session, form.name, form.password, hours=settings.session_hours)
    return _signed_in(request, token, form.next)


@router.get("/sign-in/{token}", dependencies=[Depends(Public("the link is the key"))])
def link_page(request: Request, session: SessionDep, token: str) -> HTMLResponse:
    """Ask before a link is used up: mail programs open links too."""
    person = service.person_of_link(session, token)
    return render(request, "accounts/link.html", LinkPage(token=token, person=person))


@router.post("/sign-in/{token}", dependencies=[Depends(Public("the link is the key"))])
def use_link(request: Request, session: SessionDep, token: str) -> Response:
    """Sign in by a one-time link."""
    settings: Settings = request.state.settings
    _, session_token = service.sign_in_by_link(session, token, hours=settings.session_hours)
    return _signed_in(request, session_token, "/")


@router.post("/sign-out")
def sign_out(session: SessionDep, visitor: AnyoneSignedInDep, _form: Annotated[ProtectedForm, Form()]) -> Response:
    """Sign out; what was handed out and not judged goes to others."""
    handout.give_back(session, visitor.person)
    service.sign_out(session, visitor.sign_in)
    response = _see("/sign-in")
    response.delete_cookie(SESSION_COOKIE)
    return response


@router.get("/account")
def account_page(request: Request, _visitor: AnyoneSignedInDep) -> HTMLResponse:
    """One's own account."""
    return render(request, "accounts/account.html", AccountPage())


@router.post("/account/password")
def set_password(
    request: Request, session: SessionDep, visitor: AnyoneSignedInDep, form: Annotated[NewPasswordForm, Form()]
) -> HTMLResponse:
    """Choose a password, so that no link is needed next time."""
    service.set_password(session, visitor.person, form.password, sign_in=visitor.sign_in)
    page = AccountPage(message="Your password is set. Sign in with your name and it from now on.")
    return render(request, "accounts/account.html", page)


@router.get("/admin/people")
def people_page(request: Request, session: SessionDep, _visitor: AdminDep) -> HTMLResponse:
    """Everybody who may sign in."""
    return render(request, "accounts/people.html", PeoplePage(people=queries.people(session)))


@router.post("/admin/people")
def invite(
    request: Request, session: SessionDep, visitor: AdminDep, form: Annotated[PersonForm, Form()]
) -> HTMLResponse:
    """Add a person and show their first sign-in link."""
    person = service.create_person(session, form.name, form.role, actor=visitor.person)
    return _people_with_link(request, session, visitor, person)


@router.post("/admin/people/{person_id}/link")
def issue_link(
    request: Request,
    session: SessionDep,
    visitor: AdminDep,
    person_id: UUID,
    _form: Annotated[ProtectedForm, Form()],
) -> HTMLResponse:
    """Show a fresh sign-in link for somebody."""
    return _people_with_link(request, session, visitor, service.get_person(session, person_id))


@router.post("/admin/people/{person_id}/excluded")
def set_excluded(
    session: SessionDep, visitor: AdminDep, person_id: UUID, form: Annotated[ExcludedForm, Form()]
) -> Response:
    """Leave somebody's work out of datasets, or take it again."""
    person = service.get_person(session, person_id)
    service.set_excluded(session, person, is_excluded=form.is_excluded, actor=visitor.person)
    return _see("/admin/people")


@router.post("/admin/people/{person_id}/active")
def set_active(
    session: SessionDep, visitor: AdminDep, person_id: UUID, form: Annotated[ActiveForm, Form()]
) -> Response:
    """Disable somebody, or let them in again."""
    person = service.get_person(session, person_id)
    service.set_active(session, person, is_active=form.is_active, actor=visitor.person)
    return _see("/admin/people")


@router.get("/admin/tokens")
def tokens_page(request: Request, session: SessionDep, _visitor: AdminDep) -> HTMLResponse:
    """The API tokens."""
    return render(request, "accounts/tokens.html", TokensPage(tokens=queries.api_tokens(session)))


@router.post("/admin/tokens")
def create_token(
    request: Request, session: SessionDep, visitor: AdminDep, form: Annotated[TokenForm, Form()]
) -> HTMLResponse:
    """Make an API token and show it, once."""
    expires_in = timedelta(days=form.days) if form.days is not None else None
    token = service.create_api_token(session, form.name, form.scope, expires_in=expires_in, actor=visitor.person)
    session.flush()
    return render(request, "accounts/tokens.html", TokensPage(tokens=queries.api_tokens(session), token=token))


@router.post("/admin/tokens/{token_id}/revoke")
def revoke_token(
    session: SessionDep, visitor: AdminDep, token_id: UUID, _form: Annotated[ProtectedForm, Form()]
) -> Response:
    """Refuse a token from now on."""
    token = session.get(ApiToken, token_id)
    if token is None:
        msg = "There is no such token."
        raise NotFoundError(msg)
    service.revoke_api_token(session, token, actor=visitor.person)
    return _see("/admin/tokens")


@router.get("/admin/audit")
def audit_page(request: Request, session: SessionDep, _visitor: AdminDep) -> HTMLResponse:
    """What was done lately, and by whom."""
    events = queries.recent_events(session, limit=_EVENTS_SHOWN)
    return render(request, "accounts/audit.html", AuditPage(events=events))


def _people_with_link(request: Request, session: SessionDep, visitor: AdminDep, person: Person) -> HTMLResponse:
    settings: Settings = request.state.settings
    token = service.issue_sign_in_link(session, person, hours=settings.sign_in_link_hours, actor=visitor.person)
    link = f"{settings.public_url}/sign-in/{token}"
    page = PeoplePage(people=queries.people(session), link=link, link_for=person.name)
    return render(request, "accounts/people.html", page)


def _signed_in(request: Request, token: str, target: str) -> Response:
    """Set the session's cookie and go on, but never to another site."""
    settings: Settings = request.state.settings
    is_local = target.startswith("/") and not target.startswith(("//", "/\\"))
    response = _see(target if is_local else "/")
    response.set_cookie(
        SESSION_COOKIE,
        token,
        max_age=int(settings.session_hours * 3600),
        httponly=True,
        samesite="lax",
        secure=settings.is_https,
    )
    return response


def _see(path: str) -> RedirectResponse:
    return RedirectResponse(path, status_code=HTTPStatus.SEE_OTHER)
