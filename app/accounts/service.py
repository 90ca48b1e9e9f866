"""Who may come in: people by one-time link or password, programs by API token."""

from datetime import timedelta
from http import HTTPStatus

from pwdlib import PasswordHash
from sqlalchemy.orm import Session

from app.accounts import audit, queries
from app.accounts.tokens import hash_token, new_token
from app.errors import AppError, ConflictError, InvalidInputError, NotFoundError
from app.models import ApiToken, Person, PersonRole, SignInLink, SignInSession, TokenScope, now

_PASSWORDS = PasswordHash.recommended()
# Checking a password against this one when the name is unknown takes as long as when it is known.
_NOBODYS_HASH = _PASSWORDS.hash(new_token())
_PASSWORD_MIN_CHARACTERS = 12
_USE_NOTED_EVERY = timedelta(minutes=5)
_LINK_EXPIRED = "This sign-in link was used before or has expired. Ask an admin for a new one."


class LinkExpiredError(AppError):
    """A sign-in link was used before, or is too old."""

    status = HTTPStatus.GONE
    code = "link_expired"


class WrongPasswordError(AppError):
    """Name and password do not belong together; which of the two is wrong is not said."""

    status = HTTPStatus.UNAUTHORIZED
    code = "wrong_password"


def create_person(session: Session, name: str, role: PersonRole, *, actor: Person | None = None) -> Person:
    """Add a person, who can sign in once a link is issued.

    Raises:
        InvalidInputError: The name is empty.
        ConflictError: Somebody has this name already.

    """
    name = name.strip()
    if not name:
        msg = "name: give the person a name."
        raise InvalidInputError(msg)
    if queries.person_by_name(session, name) is not None:
        msg = f"name: there is somebody called {name} already."
        raise ConflictError(msg)
    person = Person(name=name, role=role)
    session.add(person)
    session.flush()
    audit.record(session, "person.created", name, actor=actor, role=role.value)
    return person


def get_or_create_person(session: Session, name: str, role: PersonRole) -> Person:
    """The person of this name, added if there is none."""
    return queries.person_by_name(session, name) or create_person(session, name, role)


def issue_sign_in_link(session: Session, person: Person, *, hours: float, actor: Person | None = None) -> str:
    """Make a link that signs a person in once, and give its token; only the hash is kept."""
    token = new_token()
    session.add(
        SignInLink(person_id=person.id, token_hash=hash_token(token), expires_at=now() + timedelta(hours=hours))
    )
    audit.record(session, "person.link_issued", person.name, actor=actor)
    return token


def person_of_link(session: Session, token: str) -> Person:
    """Whom a link would sign in; looking does not use it up, since mail programs look at links too.

    Raises:
        LinkExpiredError: The link was used, has expired, or never existed.

    """
    return _usable_link(session, token)[1]


def sign_in_by_link(session: Session, token: str, *, hours: float) -> tuple[Person, str]:
    """Use a link up; gives the person and the token of the new session.

    Raises:
        LinkExpiredError: The link was used, has expired, or never existed.

    """
    link, person = _usable_link(session, token)
    if not queries.use_link(session, link.id, at=now()):
        raise LinkExpiredError(_LINK_EXPIRED)
    return person, _start_session(session, person, hours=hours)


def sign_in_by_password(session: Session, name: str, password: str, *, hours: float) -> tuple[Person, str]:
    """Sign in with a name and a password; gives the person and the token of the new session.

    Raises:
        WrongPasswordError: They do not belong together.

    """
    person = queries.person_by_name(session, name)
    password_hash = person.password_hash if person is not None and person.is_active else None
    is_right = _PASSWORDS.verify(password, password_hash or _NOBODYS_HASH)
    if person is None or password_hash is None or not is_right:
        msg = "Name and password do not belong together."
        raise WrongPasswordError(msg)
    return person, _start_session(session, person, hours=hours)


def set_password(session: Session, person: Person, password: str, *, sign_in: SignInSession) -> None:
    """Let a person sign in by password from now on; their sessions in other browsers end.

    Raises:
        InvalidInputError: The password is too short.

    """
    if len(password) < _PASSWORD_MIN_CHARACTERS:
        msg = f"password: use at least {_PASSWORD_MIN_CHARACTERS} characters."
        raise InvalidInputError(msg)
    # The visitor was read before this transaction began.
    person = get_person(session, person.id)
    person.password_hash = _PASSWORDS.hash(password)
    queries.shut_out(session, person.id, but=sign_in.id)
    audit.record(session, "person.password_set", person.name, actor=person)


def sign_out(session: Session, sign_in: SignInSession) -> None:
    """End a browser's session."""
    queries.end_session(session, sign_in.id)


def set_active(session: Session, person: Person, *, is_active: bool, actor: Person) -> None:
    """Disable a person, whose sessions and links end with it, or let them sign in anew.

    Raises:
        InvalidInputError: Somebody tries to lock themselves out.

    """
    if person.id == actor.id:
        msg = "You cannot disable yourself."
        raise InvalidInputError(msg)
    person.is_active = is_active
    if not is_active:
        queries.shut_out(session, person.id)
    audit.record(session, "person.enabled" if is_active else "person.disabled", person.name, actor=actor)


def set_excluded(session: Session, person: Person, *, is_excluded: bool, actor: Person) -> None:
    """Leave a person's work out of all datasets from now on, or take it again.

    Frozen datasets stay as they are; the reconciler has a new version of each written that the work is in.
    """
    person.is_excluded = is_excluded
    audit.record(session, "person.work_excluded" if is_excluded else "person.work_taken", person.name, actor=actor)


def visit(session: Session, token: str) -> tuple[SignInSession, Person] | None:
    """The live session of a cookie's token and its person, unless the person was disabled."""
    return queries.visit(session, hash_token(token), at=now())


def find_api_token(session: Session, token: str) -> ApiToken | None:
    """The API token, unless it was revoked, has expired, or never existed."""
    return queries.api_token(session, hash_token(token), at=now())


def is_use_worth_noting(token: ApiToken) -> bool:
    """Whether the last noted use of a token is long enough ago to note another one."""
    return token.last_used_at is None or now() - token.last_used_at > _USE_NOTED_EVERY


def note_token_used(session: Session, token: ApiToken) -> None:
    """Keep that a token was used just now."""
    queries.note_token_used(session, token.id, at=now())


def create_api_token(
    session: Session,
    name: str,
    scope: TokenScope,
    *,
    expires_in: timedelta | None = None,
    actor: Person | None = None,
) -> str:
    """Make a token for a program and give it, once; only the hash is kept."""
    token = new_token()
    session.add(
        ApiToken(
            name=name,
            scope=scope,
            token_hash=hash_token(token),
            expires_at=now() + expires_in if expires_in is not None else None,
            created_by=actor.id if actor is not None else None,
        )
    )
    audit.record(session, "token.created", name, actor=actor, scope=scope.value)
    return token


def revoke_api_token(session: Session, token: ApiToken, *, actor: Person) -> None:
    """Refuse a token from now on."""
    token.revoked_at = now()
    audit.record(session, "token.revoked", token.name, actor=actor)


def get_person(session: Session, person_id: object) -> Person:
    """A person by key.

    Raises:
        NotFoundError: There is no such person.

    """
    person = session.get(Person, person_id)
    if person is None:
        msg = "There is no such person."
        raise NotFoundError(msg)
    return person


def _usable_link(session: Session, token: str) -> tuple[SignInLink, Person]:
    found = queries.usable_link(session, hash_token(token), at=now())
    if found is None:
        raise LinkExpiredError(_LINK_EXPIRED)
    return found


def _start_session(session: Session, person: Person, *, hours: float) -> str:
    token = new_token()
    session.add(
        SignInSession(
            person_id=person.id,
            token_hash=hash_token(token),
            csrf_token=new_token(),
            expires_at=now() + timedelta(hours=hours),
        )
    )
    audit.record(session, "person.signed_in", person.name, actor=person)
    return token
