"""People: who they are, how they sign in, which programs act for them, and what was done by whom."""

import unicodedata
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, String
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, new_id, now


class PersonRole(StrEnum):
    """What a person is here for."""

    ANNOTATOR = "annotator"
    REVIEWER = "reviewer"
    TRAINER = "trainer"
    ADMIN = "admin"


class TokenScope(StrEnum):
    """What a program may do with an API token."""

    WORKER = "worker"
    DATASETS = "datasets"


def name_key(name: str) -> str:
    """The form in which two names are compared: databases disagree about capitals beyond A to Z."""
    return unicodedata.normalize("NFKC", name).casefold().strip()


def _key_of_new_name(context: DefaultExecutionContext) -> str:
    parameters = context.get_current_parameters()  # type: ignore[no-untyped-call]
    return name_key(parameters["name"])


class Person(Base):
    """Somebody who may sign in. People are disabled, never deleted: their annotations stay theirs."""

    __tablename__ = "people"

    id: Mapped[UUID] = mapped_column(primary_key=True, default_factory=new_id)
    name: Mapped[str] = mapped_column(String(100))
    name_key: Mapped[str] = mapped_column(String(400), unique=True, init=False, insert_default=_key_of_new_name)
    role: Mapped[PersonRole]
    password_hash: Mapped[str | None] = mapped_column(String(200), default=None, repr=False)
    is_active: Mapped[bool] = mapped_column(default=True)
    is_excluded: Mapped[bool] = mapped_column(default=False)
    """An excluded annotator's work is left out of datasets frozen from then on, with a counted reason."""
    last_seen_at: Mapped[datetime | None] = mapped_column(default=None)
    """When an annotator last did something, to the minute: comparisons are kept in stock for those who are here."""
    created_at: Mapped[datetime] = mapped_column(default_factory=now)


class SignInLink(Base):
    """A link that signs a person in once; only its hash is stored."""

    __tablename__ = "sign_in_links"

    id: Mapped[UUID] = mapped_column(primary_key=True, default_factory=new_id)
    person_id: Mapped[UUID] = mapped_column(ForeignKey("people.id"), index=True)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True, repr=False)
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None] = mapped_column(default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=now)


class SignInSession(Base):
    """A browser that is signed in; the cookie holds the token, the database its hash."""

    __tablename__ = "sign_in_sessions"

    id: Mapped[UUID] = mapped_column(primary_key=True, default_factory=new_id)
    person_id: Mapped[UUID] = mapped_column(ForeignKey("people.id"), index=True)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True, repr=False)
    csrf_token: Mapped[str] = mapped_column(String(64), repr=False)
    expires_at: Mapped[datetime]
    created_at: Mapped[datetime] = mapped_column(default_factory=now)


class ApiToken(Base):
    """A program's key to the API; shown once, stored as a hash, revocable."""

    __tablename__ = "api_tokens"

    id: Mapped[UUID] = mapped_column(primary_key=True, default_factory=new_id)
    name: Mapped[str] = mapped_column(String(100))
    scope: Mapped[TokenScope]
    token_hash: Mapped[str] = mapped_column(String(64), unique=True, repr=False)
    created_by: Mapped[UUID | None] = mapped_column(ForeignKey("people.id"), default=None)
    expires_at: Mapped[datetime | None] = mapped_column(default=None)
    """From when on it is refused; ``None`` for a token that lasts until it is revoked."""
    last_used_at: Mapped[datetime | None] = mapped_column(default=None)
    """To a few minutes, so that a program that asks often does not write as often."""
    revoked_at: Mapped[datetime | None] = mapped_column(default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=now)


class AuditEvent(Base):
    """One thing that was done, by whom and when; rows are only ever added."""

    __tablename__ = "audit_events"

    id: Mapped[UUID] = mapped_column(primary_key=True, default_factory=new_id)
    action: Mapped[str] = mapped_column(String(60))
    subject: Mapped[str] = mapped_column(String(200))
    actor_id: Mapped[UUID | None] = mapped_column(ForeignKey("people.id"), default=None)
    """Empty where the system acted by itself."""
    detail: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    at: Mapped[datetime] = mapped_column(default_factory=now, index=True)
