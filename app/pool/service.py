"""What admins do with the prompt pool: add prompts, look for some, take one out."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.orm import Session

from app.accounts import audit
from app.errors import ConflictError, NotFoundError
from app.models import Person, PoolPrompt, PoolPromptState, new_id, now
from app.pool import queries
from app.pool.queries import Filter
from app.pool.reading import NewPrompt
from contract.vocabulary import Objective

PAGE_SIZE = 50
_SUBJECT = "prompt pool"


@dataclass(frozen=True)
class Added:
    """What came of adding prompts."""

    added: int
    known: int
    """Those that were in the pool already, or twice among the new ones."""


@dataclass(frozen=True)
class Found:
    """One page of the prompts that match."""

    prompts: list[PoolPrompt]
    total: int
    page: int
    pages: int


def add(session: Session, prompts: Sequence[NewPrompt], *, source: str, actor: Person | None = None) -> Added:
    """Add prompts to the pool. A prompt that an objective has had before, even a retired one, is not taken again."""
    # Of equal ones the first counts.
    different = {(prompt.tags.objective, prompt.digest): prompt for prompt in reversed(prompts)}
    # Keys of one millisecond are in no order; sorted, they keep that of the file, in which prompts are then used.
    keys = sorted(new_id() for _ in different)
    rows = (
        {
            "id": key,
            "objective": prompt.tags.objective,
            "turns": list(prompt.turns),
            "digest": digest,
            "source": source,
            "risk_category": prompt.tags.risk_category,
            "attack_vector": prompt.tags.attack_vector,
            "state": PoolPromptState.WAITING,
            "added_by": actor.id if actor is not None else None,
            "added_at": now(),
        }
        for key, ((_, digest), prompt) in zip(keys, reversed(different.items()), strict=True)
    )
    added = queries.add(session, rows)
    known = len(prompts) - added
    audit.record(session, "prompts.added", _SUBJECT, actor=actor, added=added, known=known, source=source)
    return Added(added=added, known=known)


def find(session: Session, wanted: Filter, page: int) -> Found:
    """The prompts that match, the newest first."""
    total = queries.count(session, wanted)
    pages = max(1, -(-total // PAGE_SIZE))
    page = min(page, pages)
    prompts = queries.newest(session, wanted, limit=PAGE_SIZE, offset=(page - 1) * PAGE_SIZE)
    return Found(prompts=prompts, total=total, page=page, pages=pages)


def counts(session: Session) -> list[tuple[Objective, dict[PoolPromptState, int]]]:
    """How many prompts there are of each objective, by state."""
    found = queries.counts(session)
    return [(objective, {state: found[objective, state] for state in PoolPromptState}) for objective in Objective]


def retire(session: Session, prompt_id: UUID, *, actor: Person) -> None:
    """Take a prompt out of the pool for good; it stays known, so that it is not added again.

    Raises:
        NotFoundError: There is no such prompt.
        ConflictError: It is used already.

    """
    prompt = queries.locked(session, prompt_id)
    if prompt is None:
        msg = "There is no such prompt."
        raise NotFoundError(msg)
    if prompt.state is PoolPromptState.USED:
        msg = "This prompt is used already: its comparison is a part of a batch."
        raise ConflictError(msg)
    if prompt.state is PoolPromptState.WAITING:
        prompt.state = PoolPromptState.RETIRED
        audit.record(session, "prompt.retired", _SUBJECT, actor=actor, prompt=str(prompt.id))
