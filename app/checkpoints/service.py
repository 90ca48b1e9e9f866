"""Registers chat checkpoints by digest, and promotes one to be sampled from."""

from collections.abc import Collection
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.accounts import audit
from app.checkpoints import queries, variants
from app.errors import NotFoundError
from app.models import Batch, Checkpoint, Person, now
from contract.checkpoint_files import CheckpointFiles
from contract.vocabulary import Generation

_SHORT_DIGEST = 8


def register(session: Session, files: CheckpointFiles) -> Checkpoint:
    """Note a checkpoint. The same weights are the same checkpoint, whatever they are called."""
    known = queries.by_digest(session, files.digest)
    if known is not None:
        return known
    try:
        with session.begin_nested():
            return _new(session, files)
    except IntegrityError:
        # Two workers on one shared folder find a checkpoint together, and tell of it together. What the other one
        # wrote, this checkpoint or another of its name, can be seen now.
        return queries.by_digest(session, files.digest) or _new(session, files)


def _new(session: Session, files: CheckpointFiles) -> Checkpoint:
    name = files.name
    if queries.by_name(session, name) is not None:
        name = f"{name}@{files.digest[:_SHORT_DIGEST]}"
    checkpoint = Checkpoint(name=name, **files.model_dump(exclude={"name"}))
    session.add(checkpoint)
    session.flush()
    audit.record(session, "checkpoint.registered", name, digest=files.digest)
    return checkpoint


def promote(
    session: Session, checkpoint: Checkpoint, *, for_open_batch: bool, actor: Person | None = None
) -> Checkpoint:
    """Make a checkpoint the current one: the next batch is drawn from it, and from the one that it follows.

    With ``for_open_batch`` the batch that is open samples from them from now on too. That is a person's
    decision and stands in the audit trail; every response says which checkpoint made it either way.
    """
    previous = queries.current(session)
    is_current = previous is not None and previous.id == checkpoint.id
    if not is_current:
        if checkpoint.promoted_at is None:
            # The first promotion settles the lineage: going back to an older checkpoint does not turn it around.
            checkpoint.parent_id = previous.id if previous is not None else None
        checkpoint.promoted_at = now()
    if for_open_batch or not is_current:
        audit.record(session, "checkpoint.promoted", checkpoint.name, actor=actor, for_open_batch=for_open_batch)
    variants.fill(session, checkpoint)
    if for_open_batch:
        variants.replace_in_open_batch(session, checkpoint)
    return checkpoint


def draw_waiting_from_newest(
    session: Session, batch: Batch, newest: Checkpoint, generations: Collection[Generation]
) -> None:
    """Let a batch's waiting responses of generations that it no longer draws from be drawn from the newest one."""
    variants.draw_waiting_from_newest(session, batch.id, newest, generations)


def get(session: Session, checkpoint_id: UUID) -> Checkpoint:
    """A checkpoint by key.

    Raises:
        NotFoundError: There is no such checkpoint.

    """
    checkpoint = session.get(Checkpoint, checkpoint_id)
    if checkpoint is None:
        msg = "There is no such checkpoint."
        raise NotFoundError(msg)
    return checkpoint


def current(session: Session) -> Checkpoint | None:
    """The checkpoint that new batches are drawn from."""
    return queries.current(session)


def all_checkpoints(session: Session) -> list[Checkpoint]:
    """Every checkpoint, the newest first."""
    return queries.all_checkpoints(session)
