"""The SQL of people, their sessions and links."""

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.models import ApiToken, AuditEvent, Person, SignInLink, SignInSession


def person_by_name(session: Session, name: str) -> Person | None:
    """The person with this name, whatever its capitals."""
    return session.scalars(select(Person).where(func.lower(Person.name) == name.strip().lower())).one_or_none()


def people(session: Session) -> list[Person]:
    """Everybody, by name."""
    return list(session.scalars(select(Person).order_by(func.lower(Person.name))))


def link_by_hash(session: Session, token_hash: str) -> SignInLink | None:
    """A sign-in link, locked, so that two clicks cannot both use it."""
    return session.scalars(
        select(SignInLink).where(SignInLink.token_hash == token_hash).with_for_update()
    ).one_or_none()


def visit(session: Session, token_hash: str, *, at: datetime) -> tuple[SignInSession, Person] | None:
    """The live session of a cookie and its person, unless the person was disabled."""
    row = session.execute(
        select(SignInSession, Person)
        .join(Person, Person.id == SignInSession.person_id)
        .where(SignInSession.token_hash == token_hash, SignInSession.expires_at > at, Person.is_active)
    ).one_or_none()
    return None if row is None else (row[0], row[1])


def api_token(session: Session, token_hash: str) -> ApiToken | None:
    """An API token that has not been revoked."""
    return session.scalars(
        select(ApiToken).where(ApiToken.token_hash == token_hash, ApiToken.revoked_at.is_(None))
    ).one_or_none()


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
