"""What happened to a batch, when, and who did it, in words: the audit trail as the batch's page tells it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from app.batches import queries
from app.models import Batch

_SYSTEM = "the system"
_WORDS = {
    "batch.created": "scheduled the batch",
    "batch.changed": "changed its settings",
    "batch.moved": "moved it",
    "batch.extended": "extended it",
    "batch.opened": "opened it",
    "batch.close_requested": "ended the week early",
    "batch.closing": "stopped taking prompts",
    "batch.closed": "closed it",
    "batch.settled": "ended its review: nothing in it changes any more",
    "batch.frozen": "froze it",
    "dataset.revised": "wrote a new version of its dataset",
}


@dataclass(frozen=True)
class Happening:
    """One thing that happened."""

    at: datetime
    who: str
    """A person's name; the system's where it acted by itself."""
    what: str
    action: str
    """As the audit trail names it."""
    details: list[tuple[str, str]]


def of_batch(session: Session, batch: Batch) -> list[Happening]:
    """Everything that happened to a batch, the latest first."""
    return [
        Happening(
            at=event.at,
            who=name or _SYSTEM,
            what=_WORDS.get(event.action, event.action),
            action=event.action,
            details=_details(event.detail),
        )
        for event, name in queries.events(session, batch)
    ]


def _details(detail: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the audit trail keeps beside the action; what was empty says nothing."""
    return [(name, _said(value)) for name, value in detail.items() if value not in (None, "")]


def _said(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value).replace("_", " ")
