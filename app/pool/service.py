"""What admins do with the prompt pool: add prompts, look for some, take one out."""

from collections.abc import Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

from sqlalchemy.orm import Session

from app.accounts import audit
from app.database import Database
from app.errors import ConflictError, InvalidInputError, NotFoundError
from app.models import Person, PoolPrompt, PoolPromptState, new_id, now
from app.pool import drafts, queries
from app.pool.drafts import Draft, Key, Wanted, text_of
from app.pool.queries import Filter
from app.pool.reading import NewPrompt
from app.settings import Settings
from contract.vocabulary import Objective

PAGE_SIZE = 50
_SUBJECT = "prompt pool"


class NotAddableError(InvalidInputError):
    """Some lines of a file are no prompts."""


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


def check(database: Database, settings: Settings, wanted: Wanted, stream: BinaryIO | str, name: str = "") -> Draft:
    """Check a file or a text of prompts, which takes a while for a large one: the caller holds no transaction.

    Raises:
        PromptsSourceError: The file as a whole cannot be read.

    """
    with text_of(stream) if not isinstance(stream, str) else nullcontext(StringIO(stream, newline="")) as text:
        return drafts.check(
            _root(settings),
            wanted,
            text,
            name,
            max_characters=settings.max_prompt_characters,
            known_of=lambda keys: _known(database, keys),
        )


def draft_of(draft_id: UUID, settings: Settings) -> Draft:
    """Prompts that wait to be added.

    Raises:
        NoSuchImportError: There are none, or none any more.

    """
    return drafts.get(_root(settings), draft_id)


def discard(draft_id: UUID, settings: Settings) -> None:
    """Throw away prompts that wait to be added."""
    drafts.discard(_root(settings), draft_id)


def confirm(session: Session, draft: Draft, settings: Settings, *, actor: Person | None = None) -> Added:
    """Add what was checked; the draft stays until it is discarded, so that a failed transaction can be repeated.

    Raises:
        NotAddableError: Some lines are no prompts.

    """
    if draft.problem_count:
        msg = f"{draft.name or 'The text'} cannot be added: {draft.problem_count:,} lines are no prompts."
        raise NotAddableError(msg)
    prompts = list(drafts.prompts_of(_root(settings), draft))
    return add(session, prompts, source=draft.source, actor=actor, repeated=draft.duplicates)


def add(
    session: Session, prompts: Sequence[NewPrompt], *, source: str, actor: Person | None = None, repeated: int = 0
) -> Added:
    """Add prompts to the pool. A prompt that an objective has had before, even a retired one, is not taken again.

    ``repeated`` were left out before, since others among the new ones say the same.
    """
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
            "source": prompt.source or source,
            "risk_category": prompt.tags.risk_category,
            "attack_vector": prompt.tags.attack_vector,
            "tags": list(prompt.tags.words),
            "state": PoolPromptState.WAITING,
            "added_by": actor.id if actor is not None else None,
            "added_at": now(),
        }
        for key, ((_, digest), prompt) in zip(keys, reversed(different.items()), strict=True)
    )
    added = queries.add(session, rows)
    known = len(prompts) - added + repeated
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


def _known(database: Database, keys: Collection[Key]) -> set[Key]:
    digests = {objective: [digest for other, digest in keys if other is objective] for objective in Objective}
    with database.read() as session:
        return {(one, digest) for one in Objective for digest in queries.known(session, one, digests[one])}


def _root(settings: Settings) -> Path:
    return settings.data_dir / "prompt-imports"
