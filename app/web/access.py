"""Who may call a route. Every route declares one of these; a test fails where one does not."""

import hmac
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated
from urllib.parse import urlsplit
from uuid import UUID

from fastapi import Depends, Request

from app.accounts import service as accounts
from app.database import Database
from app.errors import AppError, ForbiddenError, NotFoundError
from app.models import ApiToken, Person, PersonRole, SignInSession, TokenScope
from app.settings import Settings
from app.web.csrf import disguise, is_disguised

SESSION_COOKIE = "preferably_session"
CSRF_FIELD = "csrf_token"
CSRF_HEADER = "X-CSRF-Token"
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_BEARER = "bearer "


class SignInRequiredError(AppError):
    """Nobody is signed in; pages send the visitor to the sign-in page."""

    status = HTTPStatus.UNAUTHORIZED
    code = "sign_in_required"


class BadTokenError(AppError):
    """The API token is missing, wrong, revoked or expired."""

    status = HTTPStatus.UNAUTHORIZED
    code = "bad_token"


class WrongScopeError(ForbiddenError):
    """The API token is valid, and for something else."""

    code = "wrong_scope"


class ForgedRequestError(ForbiddenError):
    """A form came from another site, or from a page that is too old."""

    code = "forged_request"


@dataclass(frozen=True)
class Visitor:
    """Who is signed in, and through which session: rows as they were when the request came, of no transaction."""

    person: Person
    sign_in: SignInSession


@dataclass(frozen=True)
class VisitorView:
    """What pages show of the visitor: plain values, which an error page can show after a rollback too."""

    id: UUID
    name: str
    role: PersonRole
    csrf_token: str
    """The secret that every form of this session carries, in disguise."""


async def submitted_csrf_token(request: Request) -> str | None:
    """The CSRF token of a request, from htmx's header or from the form."""
    header = request.headers.get(CSRF_HEADER)
    if header is not None or request.method in _SAFE_METHODS:
        return header
    field = (await request.form()).get(CSRF_FIELD)
    return field if isinstance(field, str) else None


@dataclass(frozen=True)
class Access:
    """A route for people who are signed in and have one of some roles."""

    roles: frozenset[PersonRole]

    def __call__(
        self,
        request: Request,
        csrf_token: Annotated[str | None, Depends(submitted_csrf_token)],
    ) -> Visitor:
        """The visitor.

        Raises:
            SignInRequiredError: Nobody is signed in.
            ForbiddenError: The visitor has none of the roles.
            ForgedRequestError: The request changes something and was not made by one of our pages.

        """
        visitor = self.before_body(request)
        if request.method not in _SAFE_METHODS:
            require_same_origin(request)
            if csrf_token is None or not is_disguised(csrf_token, visitor.sign_in.csrf_token):
                msg = "This form is from an older session. Reload the page and try again; your text is still there."
                raise ForgedRequestError(msg)
        return visitor

    def before_body(self, request: Request) -> Visitor:
        """The visitor, told by the headers alone: a large upload from anybody else is refused before it is read.

        Raises:
            SignInRequiredError: Nobody is signed in.
            ForbiddenError: The visitor has none of the roles.

        """
        visitor = visitor_of(request)
        if visitor is None:
            msg = "Please sign in first."
            raise SignInRequiredError(msg)
        request.state.visitor = VisitorView(
            id=visitor.person.id,
            name=visitor.person.name,
            role=visitor.person.role,
            csrf_token=disguise(visitor.sign_in.csrf_token),
        )
        if visitor.person.role not in self.roles:
            msg = f"This page is for the role {' or '.join(sorted(self.roles))}; yours is {visitor.person.role}."
            raise ForbiddenError(msg)
        return visitor


@dataclass(frozen=True)
class TokenAccess:
    """A route for programs that hold an API token of some scope."""

    scopes: frozenset[TokenScope]

    def __call__(self, request: Request) -> ApiToken:
        """The token. It is looked up in a transaction of its own: a long poll must not keep one open.

        Raises:
            BadTokenError: There is none, or it is not valid.
            WrongScopeError: It is valid, and for something else.

        """
        database: Database = request.state.database
        given = _bearer_token(request)
        token = None
        if given:
            with database.read() as session:
                token = accounts.find_api_token(session, given)
        scopes = " or ".join(sorted(self.scopes))
        if token is None:
            msg = f"Give an API token with the scope {scopes} that is valid: Authorization: Bearer ..."
            raise BadTokenError(msg)
        if accounts.is_use_worth_noting(token):
            with database.write() as session:
                accounts.note_token_used(session, token)
        if token.scope not in self.scopes:
            msg = f"This API token has the scope {token.scope}; this needs one with the scope {scopes}."
            raise WrongScopeError(msg)
        return token


@dataclass(frozen=True)
class MetricsAccess:
    """A route for the monitoring system, which holds the token of the settings; without one there is no such page."""

    def __call__(self, request: Request) -> None:
        """Compare the token, in a time that does not tell how much of it is right.

        Raises:
            NotFoundError: No token is set.
            BadTokenError: None is given, or another one.

        """
        settings: Settings = request.state.settings
        token = settings.metrics_token.get_secret_value()
        if not token:
            msg = "There is no such page."
            raise NotFoundError(msg)
        if not hmac.compare_digest(_bearer_token(request).encode(), token.encode()):
            msg = "Give the token of PREFERABLY_METRICS_TOKEN: Authorization: Bearer ..."
            raise BadTokenError(msg)


@dataclass(frozen=True)
class Public:
    """A route for everybody, with the reason why."""

    reason: str

    def __call__(self, request: Request) -> None:
        """Forms on public pages must still come from our own pages."""
        if request.method not in _SAFE_METHODS:
            require_same_origin(request)


def _bearer_token(request: Request) -> str:
    """The token that a program sent; empty where it sent none."""
    header = request.headers.get("Authorization", "")
    return header[len(_BEARER) :].strip() if header.lower().startswith(_BEARER) else ""


def visitor_of(request: Request) -> Visitor | None:
    """Who is signed in, if anybody. They are looked up in a transaction of its own, so that no writer waits for it."""
    token = request.cookies.get(SESSION_COOKIE)
    if not token:
        return None
    database: Database = request.state.database
    with database.read() as session:
        found = accounts.visit(session, token)
    return None if found is None else Visitor(person=found[1], sign_in=found[0])


def require_same_origin(request: Request) -> None:
    """Refuse a request that a page of another site made.

    Raises:
        ForgedRequestError: The browser says that it came from elsewhere.

    """
    settings: Settings = request.state.settings
    origin = request.headers.get("Origin")
    site = request.headers.get("Sec-Fetch-Site")
    own = {urlsplit(settings.public_url).netloc, request.headers.get("Host")}
    if (origin is not None and urlsplit(origin).netloc not in own) or site in {"cross-site", "same-site"}:
        msg = "This request came from another site and was refused."
        raise ForgedRequestError(msg)


AnnotatorDep = Annotated[Visitor, Depends(Access(frozenset({PersonRole.ANNOTATOR})))]
ReviewerDep = Annotated[Visitor, Depends(Access(frozenset({PersonRole.REVIEWER, PersonRole.ADMIN})))]
TRAINERS = Access(frozenset({PersonRole.TRAINER, PersonRole.ADMIN}))
TrainerDep = Annotated[Visitor, Depends(TRAINERS)]
ADMINS = Access(frozenset({PersonRole.ADMIN}))
AdminDep = Annotated[Visitor, Depends(ADMINS)]
AnyoneSignedInDep = Annotated[Visitor, Depends(Access(frozenset(PersonRole)))]
WorkerTokenDep = Annotated[ApiToken, Depends(TokenAccess(frozenset({TokenScope.WORKER})))]
TrainerTokenDep = Annotated[ApiToken, Depends(TokenAccess(frozenset({TokenScope.DATASETS})))]
DatasetTokenDep = Annotated[ApiToken, Depends(TokenAccess(frozenset({TokenScope.DATASETS, TokenScope.WORKER})))]
