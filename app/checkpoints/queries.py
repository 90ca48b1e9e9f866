"""The registry's SQL."""

from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.models import Checkpoint, Response


def by_digest(session: Session, digest: str) -> Checkpoint | None:
    """The checkpoint with these weights."""
    return session.scalars(select(Checkpoint).where(Checkpoint.digest == digest)).one_or_none()


def by_name(session: Session, name: str) -> Checkpoint | None:
    """The checkpoint of this name."""
    return session.scalars(select(Checkpoint).where(Checkpoint.name == name)).one_or_none()


def current(session: Session) -> Checkpoint | None:
    """The checkpoint that was promoted last."""
    return session.scalars(
        select(Checkpoint).where(Checkpoint.promoted_at.is_not(None)).order_by(Checkpoint.promoted_at.desc()).limit(1)
    ).one_or_none()


def all_checkpoints(session: Session) -> list[Checkpoint]:
    """Every checkpoint, the newest first."""
    return list(session.scalars(select(Checkpoint).order_by(Checkpoint.registered_at.desc())))


def responses_by_checkpoint(session: Session) -> dict[UUID, int]:
    """How many responses each checkpoint has been asked for."""
    rows = session.execute(select(Response.checkpoint_id, func.count()).group_by(Response.checkpoint_id)).all()
    return dict(rows)
