"""What people do with batches: look at the open one, change settings, close the week."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta

from sqlalchemy import delete
from sqlalchemy.orm import Session

from app.accounts import audit
from app.batches import guidelines, queries
from app.batches.weeks import WEEK
from app.checkpoints import service as checkpoints
from app.errors import ConflictError, InvalidInputError, NotFoundError
from app.models import (
    Batch,
    BatchState,
    BatchTarget,
    BatchVariant,
    Checkpoint,
    Person,
    RationaleMode,
    ResponseDisplay,
    SkipPolicy,
    now,
)
from contract.vocabulary import Generation, Objective

GRACE_MINUTES = 10
# Of a batch's number: beyond it no database has a row, and SQLite cannot even be asked.
_LARGEST_NUMBER = 2**31 - 1
_FIRST_TARGETS = {Objective.HELPFULNESS: 200, Objective.SAFETY: 100}


@dataclass(frozen=True)
class VariantSettings:
    """One model variant: which generation of the chat model, and how it is sampled from."""

    temperature: float
    top_p: float
    top_k: int = 0
    weight: float = 1.0
    generation: Generation = Generation.NEWEST


# The annotation temperatures of Llama 2 are not published (LLAMA2.md, A1); its best for sampling is 1.2 to 1.3.
_FIRST_VARIANTS = (VariantSettings(temperature=0.7, top_p=0.95), VariantSettings(temperature=1.2, top_p=0.95))


@dataclass(frozen=True)
class BatchSettings:
    """Everything that an admin sets on a batch."""

    opens_at: datetime
    closes_at: datetime
    time_zone: str = "UTC"
    targets: Mapping[Objective, int] = field(default_factory=lambda: dict(_FIRST_TARGETS))
    variants: Sequence[VariantSettings] = _FIRST_VARIANTS
    turns_per_conversation: int = 6
    multi_turn_share: float = 1.0
    max_new_tokens: int = 256
    system_prompt: str = ""
    curriculum: str = ""
    grace_minutes: int = GRACE_MINUTES
    review_share: float = 0.0
    held_out_share: float = 0.1
    held_out_max: int = 1000
    pool_share: float = 0.0
    overlap_share: float = 0.0
    overlap_annotations: int = 3
    skip_policy: SkipPolicy = SkipPolicy.RETIRE
    response_display: ResponseDisplay = ResponseDisplay.TOGETHER
    rationale_mode: RationaleMode = RationaleMode.OPTIONAL
    asks_edit: bool = False
    asks_quality: bool = False


# The settings that are columns of the batch itself; targets and variants are rows of their own.
_COLUMNS = tuple(one.name for one in fields(BatchSettings) if one.name not in {"targets", "variants"})


def open_batch(session: Session) -> Batch | None:
    """The batch that takes new prompts now."""
    return next(iter(queries.in_states(session, [BatchState.OPEN])), None)


def get(session: Session, number: int) -> Batch:
    """A batch by its number.

    Raises:
        NotFoundError: There is no such batch.

    """
    batch = queries.by_number(session, number) if abs(number) <= _LARGEST_NUMBER else None
    if batch is None:
        msg = f"There is no batch {number}."
        raise NotFoundError(msg)
    return batch


def opened(session: Session) -> list[Batch]:
    """Every batch that is or was open, the oldest first."""
    return queries.in_states(session, [state for state in BatchState if state is not BatchState.SCHEDULED])


def variants(session: Session, batch: Batch) -> list[BatchVariant]:
    """The model variants that a batch draws from."""
    return queries.variants(session, batch.id)


def problems(settings: BatchSettings) -> dict[str, str]:
    """What is wrong with settings that contradict each other: a message by field."""
    found = {}
    if settings.closes_at <= settings.opens_at:
        found["closes_at"] = "a batch must close after it opens."
    pool = list(settings.variants)
    if len(pool) < 2 or len({replace(variant, weight=1.0) for variant in pool}) < len(pool):  # noqa: PLR2004
        # A comparison has two responses, and the weight of a variant changes neither.
        found["variants"] = "give at least two different ones; equal variants would draw equal responses."
    elif all(variant.generation is not Generation.NEWEST for variant in pool):
        found["variants"] = "at least one must sample from the newest checkpoint; a reward model has to know it."
    if not any(settings.targets.values()):
        found["targets"] = "at least one objective needs a target above 0."
    return found


def create(session: Session, settings: BatchSettings, *, actor: Person | None = None) -> Batch:
    """Add a scheduled batch with the next number."""
    check(settings)
    # The first versions are made here: pages show the guideline in transactions that only read.
    guidelines.ensure_first(session)
    newest = queries.latest(session)
    batch = Batch(
        number=newest.number + 1 if newest is not None else 1,
        opens_at=settings.opens_at,
        closes_at=settings.closes_at,
    )
    session.add(batch)
    session.flush()
    _apply(session, batch, settings)
    audit.record(session, "batch.created", f"batch {batch.number}", actor=actor)
    return batch


def has_any(session: Session) -> bool:
    """Whether there is a batch, in whatever state."""
    return queries.latest(session) is not None


def ensure_first(session: Session) -> None:
    """Schedule a first week, from now on, where there is no batch at all."""
    if not has_any(session):
        create(session, first_settings(now()))


def first_settings(at: datetime) -> BatchSettings:
    """The settings of a first week, from a moment on."""
    return BatchSettings(opens_at=at, closes_at=at + WEEK)


def change(session: Session, batch: Batch, settings: BatchSettings, *, actor: Person) -> None:
    """Change a batch that is not closed yet.

    Raises:
        ConflictError: The batch is closing, closed or frozen.
        InvalidInputError: The settings contradict each other.

    """
    batch = queries.locked(session, batch.id)
    if batch.state not in {BatchState.SCHEDULED, BatchState.OPEN}:
        msg = f"Batch {batch.number} is {batch.state.replace('_', ' ')}; its settings are settled."
        raise ConflictError(msg)
    check(settings)
    before = settings_of(session, batch)
    _apply(session, batch, settings)
    newest = _pinned(session, batch)
    dropped = {one.generation for one in before.variants} - {one.generation for one in settings.variants}
    if newest is not None and dropped:
        checkpoints.draw_waiting_from_newest(session, batch, newest, dropped)
    changed = [one.name for one in fields(settings) if getattr(before, one.name) != getattr(settings, one.name)]
    audit.record(session, "batch.changed", f"batch {batch.number}", actor=actor, settings=", ".join(changed))


def close_now(session: Session, batch: Batch, *, wait_for_running: bool, actor: Person) -> None:
    """End the week early: no new prompts from now on.

    With ``wait_for_running`` the comparisons that are on annotators' screens may be finished within the
    batch's grace time; without, they are left out of the dataset.

    Raises:
        ConflictError: The batch is not open.

    """
    batch = queries.locked(session, batch.id)
    if batch.state is not BatchState.OPEN:
        msg = f"Batch {batch.number} is {batch.state.replace('_', ' ')}, not open."
        raise ConflictError(msg)
    batch.closes_at = max(now(), batch.opens_at + timedelta(seconds=1))
    if not wait_for_running:
        batch.grace_minutes = 0
    audit.record(
        session, "batch.close_requested", f"batch {batch.number}", actor=actor, wait_for_running=wait_for_running
    )


def settings_of(session: Session, batch: Batch) -> BatchSettings:
    """The settings of a batch, to be shown or copied."""
    return BatchSettings(
        targets=queries.targets(session, batch.id),
        variants=[
            VariantSettings(**{one.name: getattr(row, one.name) for one in fields(VariantSettings)})
            for row in queries.variants(session, batch.id)
        ],
        **{name: getattr(batch, name) for name in _COLUMNS},
    )


def pin_checkpoint(session: Session, batch: Batch, newest: Checkpoint) -> None:
    """Fix which checkpoints the variants of a batch sample from, where none is fixed yet."""
    for variant in queries.variants(session, batch.id):
        variant.checkpoint_id = variant.checkpoint_id or newest.id_of(variant.generation)


def check(settings: BatchSettings) -> None:
    """Refuse settings that contradict each other.

    Raises:
        InvalidInputError: They do.

    """
    for name, problem in problems(settings).items():
        msg = f"{name}: {problem}"
        raise InvalidInputError(msg)


def _apply(session: Session, batch: Batch, settings: BatchSettings) -> None:
    for name in _COLUMNS:
        setattr(batch, name, getattr(settings, name))
    newest = _pinned(session, batch)
    session.execute(delete(BatchTarget).where(BatchTarget.batch_id == batch.id))
    session.execute(delete(BatchVariant).where(BatchVariant.batch_id == batch.id))
    session.add_all(
        BatchTarget(batch_id=batch.id, objective=objective, target=target)
        for objective, target in settings.targets.items()
    )
    session.add_all(
        BatchVariant(
            batch_id=batch.id,
            position=position,
            checkpoint_id=newest.id_of(variant.generation) if newest is not None else None,
            **vars(variant),
        )
        for position, variant in enumerate(settings.variants)
    )
    session.flush()


def _pinned(session: Session, batch: Batch) -> Checkpoint | None:
    """The newest checkpoint that a batch is pinned to; none before it opens."""
    ids = (row.checkpoint_id for row in variants(session, batch) if row.generation is Generation.NEWEST)
    checkpoint_id = next(ids, None)
    return checkpoints.get(session, checkpoint_id) if checkpoint_id is not None else None
