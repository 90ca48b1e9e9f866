"""Notes who did what; every change that an admin or the system makes leaves one event."""

from typing import Any

from sqlalchemy.orm import Session

from app.models import AuditEvent, Person


def record(session: Session, action: str, subject: str, *, actor: Person | None = None, **detail: Any) -> None:
    """Add an event to the audit trail; without an actor, the system acted by itself."""
    session.add(
        AuditEvent(action=action, subject=subject, actor_id=actor.id if actor is not None else None, detail=detail)
    )
