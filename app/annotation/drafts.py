"""Drafts: what is typed and pressed in a form is kept on the server until it is sent."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any
from uuid import UUID, uuid5

from sqlalchemy import Uuid, bindparam, delete, select
from sqlalchemy.orm import Session

from app.models import Draft, DraftKind, Person, new_id, now
from app.upserts import Upsert
from contract.vocabulary import Objective

# Of one annotator: an abandoned form leaves its draft behind, and nobody has this many open.
_MOST_DRAFTS = 20
_KEEP = Upsert(
    Draft,
    ["annotator_id", "form_id"],
    lambda new: {"kind": new.kind, "fields": new.fields, "updated_at": new.updated_at},
)
_THIS = (Draft.annotator_id == bindparam("annotator", type_=Uuid()), Draft.form_id == bindparam("form", type_=Uuid()))
_FIND = select(Draft.fields).where(*_THIS)
_DROP = delete(Draft).where(*_THIS)


@dataclass(frozen=True)
class Filling:
    """What is in a form, everything as text."""

    prompt: str = ""
    risk_category: str = ""
    attack_vector: str = ""
    rating: str = ""
    safety: str = ""
    rationale: str = ""
    quality_a: str = ""
    quality_b: str = ""
    edited_text: str = ""
    edited_of: str = ""

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> "Filling":
        """What a draft holds; names of an older version are passed over."""
        names = {field.name for field in fields(cls)}
        return cls(**{name: str(value) for name, value in stored.items() if name in names})


def next_prompt_id(conversation_id: UUID, turn: int) -> UUID:
    """The form of a conversation's next prompt: always the same, so that its draft is found again."""
    return uuid5(conversation_id, str(turn))


def first_prompt(session: Session, annotator: Person, objective: Objective) -> tuple[UUID, Filling]:
    """The form for a new conversation: the one that was begun last, or an empty one."""
    rows = session.scalars(
        select(Draft)
        .where(Draft.annotator_id == annotator.id, Draft.kind == DraftKind.FIRST_PROMPT)
        .order_by(Draft.updated_at.desc())
    )
    found = next((row for row in rows if row.fields.get("objective") == objective), None)
    return (found.form_id, Filling.of(found.fields)) if found is not None else (new_id(), Filling())


def find(session: Session, annotator: Person, form_id: UUID) -> Filling | None:
    """What an annotator has put into a form."""
    stored = session.scalar(_FIND, {"annotator": annotator.id, "form": form_id})
    return Filling.of(stored) if stored is not None else None


def keep(session: Session, annotator: Person, form_id: UUID, kind: DraftKind, values: Mapping[str, object]) -> None:
    """Keep what is in a form; the last state wins."""
    row = {"kind": kind, "fields": dict(values), "updated_at": now()}
    _KEEP.run(session, {"annotator_id": annotator.id, "form_id": form_id} | row)
    old = (
        select(Draft.form_id)
        .where(Draft.annotator_id == annotator.id)
        .order_by(Draft.updated_at.desc(), Draft.form_id)
        .offset(_MOST_DRAFTS)
    )
    for old_id in session.scalars(old).all():
        drop(session, annotator, old_id)


def drop(session: Session, annotator: Person, form_id: UUID) -> None:
    """Forget what was in a form: it was sent."""
    session.connection().execute(_DROP, {"annotator": annotator.id, "form": form_id})
