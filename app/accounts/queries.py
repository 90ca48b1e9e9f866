"""The SQL of people, their sessions and links."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import bindparam, delete, or_, select, update
from sqlalchemy.orm import Session

from app.models import ApiToken, AuditEvent, Person, SignInLink, SignInSession
from app.models.people import name_key


def person_by_name(session: Session, name: str) -> Person | None:
    """The person with this name, whatever its capitals."""
    return session.scalars(select(Person).where(Person.name_key == name_key(name))).one_or_none()


def people(session: Session) -> list[Person]:
    """Everybody, by name."""
    return list(session.scalars(select(Person).order_by(Person.name_key)))


def usable_link(session: Session, token_hash: str, *, at: datetime) -> tuple[SignInLink, Person] | None:
    """A sign-in link that can be used, and whom it signs in."""
    row = session.execute(
        select(SignInLink, Person)
        .join(Person, Person.id == SignInLink.person_id)
        .where(
            SignInLink.token_hash == token_hash,
            SignInLink.used_at.is_(None),
            SignInLink.expires_at > at,
            Person.is_active,
        )
    ).one_or_none()
    return None if row is None else (row[0], row[1])


def use_link(session: Session, link_id: UUID, *, at: datetime) -> bool:
    """Use a link up; of two clicks at once only one is told that it did."""
    used = session.execute(
        update(SignInLink)
        .where(SignInLink.id == link_id, SignInLink.used_at.is_(None))
        .values(used_at=at)
        .returning(SignInLink.id)
    )
    return used.one_or_none() is not None


def shut_out(session: Session, person_id: UUID, *, but: UUID | None = None) -> None:
    """End a person's sessions, but for one, and withdraw the links that they have not used."""
    session.execute(
        delete(SignInSession).where(SignInSession.person_id == person_id, SignInSession.id.is_distinct_from(but))
    )
    session.execute(delete(SignInLink).where(SignInLink.person_id == person_id, SignInLink.used_at.is_(None)))


def end_session(session: Session, sign_in_id: UUID) -> None:
    """Sign a browser out; nothing happens if it is signed out already."""
    session.execute(delete(SignInSession).where(SignInSession.id == sign_in_id))


# Every request asks this; built once, since building it costs more than asking it.
_VISIT = (
    select(SignInSession, Person)
    .join(Person, Person.id == SignInSession.person_id)
    .where(
        SignInSession.token_hash == bindparam("token_hash"),
        SignInSession.expires_at > bindparam("at"),
        Person.is_active,
    )
)


def visit(session: Session, token_hash: str, *, at: datetime) -> tuple[SignInSession, Person] | None:
    """The live session of a cookie and its person, unless the person was disabled."""
    row = session.execute(_VISIT, {"token_hash": token_hash, "at": at}).one_or_none()
    return None if row is None else (row[0], row[1])


def api_token(session: Session, token_hash: str, *, at: datetime) -> ApiToken | None:
    """An API token that has neither been revoked nor expired."""
    return session.scalars(
        select(ApiToken).where(
            ApiToken.token_hash == token_hash,
            ApiToken.revoked_at.is_(None),
            or_(ApiToken.expires_at.is_(None), ApiToken.expires_at > at),
        )
    ).one_or_none()


def note_token_used(session: Session, token_id: UUID, *, at: datetime) -> None:
    """Keep when a token was used last."""
    session.execute(update(ApiToken).where(ApiToken.id == token_id).values(last_used_at=at))


def api_tokens(session: Session) -> list[ApiToken]:
    """All API tokens, the newest first."""
    return list(session.scalars(select(ApiToken).order_by(ApiToken.created_at.desc())))


def recent_events(session: Session, *, limit: int) -> list[tuple[AuditEvent, str | None]]:
    """The latest events of the audit trail, each with its actor's name."""
    rows = session.execute(
        select(AuditEvent, Person.name)
        .outerjoin(Person, Person.id == AuditEvent.actor_id)
        .order_by(AuditEvent.at.desc())
        .limit(limit)
    )
    return [(event, name) for event, name in rows]
