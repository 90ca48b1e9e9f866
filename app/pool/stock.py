"""Keeps comparisons from the prompt pool in stock: sampled ahead of the annotators who will judge them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from uuid import UUID

import structlog
from sqlalchemy.orm import Session

from app.batches import service as batches
from app.comparisons.asking import ask
from app.comparisons.turns import most_turns
from app.database import Database
from app.models import (
    Batch,
    BatchState,
    Comparison,
    Conversation,
    ConversationState,
    PoolPromptState,
    PromptSource,
    now,
)
from app.pool import queries
from app.sampling import service as sampling
from app.settings import Settings
from contract.vocabulary import Objective

_LOG = structlog.get_logger(__name__)
_ACTIVE = timedelta(minutes=15)
# Whoever comes first finds something too.
_LEAST_PEOPLE = 2
# In one transaction: annotators on SQLite wait for it.
_AT_ONCE = 8
# A pair that failed is drawn again, since nobody waits for it who would ask. For an hour it takes the place of a new
# one, so that a worker in trouble does not use the pool up.
_AGAIN_AFTER = timedelta(minutes=1)
_GIVEN_UP_AFTER = timedelta(hours=1)


@dataclass(frozen=True)
class Level:
    """How the stock of an objective stands."""

    remaining: int
    """How many more comparisons the target asks for, after all that are annotated or under way."""
    ahead: int
    """Comparisons that are sampled or ready and that nobody has begun to judge."""


def refill(database: Database, settings: Settings, at: datetime) -> int:
    """Ask for pairs from the pool until enough are in stock, and say for how many; any process may call this.

    The stock is in proportion to what the objectives still need, and never more than that.
    """
    with database.read() as session:
        batch = batches.open_batch(session)
        if batch is None or not _takes_from_pool(session, batch, at) or not _has_work(session, batch, settings, at):
            return 0
    made = 0
    while more := _refill_a_little(database, settings, batch, at):
        made += more
    if made:
        _LOG.info("stock_refilled", batch=batch.number, comparisons=made)
    return made


def follow_up(session: Session, batch: Batch, conversation: Conversation, comparison: Comparison) -> Comparison | None:
    """Ask for the pair of the next scripted turn, once a comparison from the pool has its primary annotation.

    Where the script or the batch allows no more, the conversation ends.
    """
    if conversation.pool_prompt_id is None:
        return None
    prompt = queries.scripted(session, conversation.pool_prompt_id)
    turns = min(len(prompt.turns), most_turns(batch, conversation.id))
    if comparison.turn >= turns or batch.state is not BatchState.OPEN:
        conversation.state = ConversationState.FINISHED
        conversation.finished_at = now()
        return None
    return ask(
        session,
        batch,
        conversation,
        turn=comparison.turn + 1,
        prompt=prompt.turns[comparison.turn],
        risk_category=prompt.risk_category,
        attack_vector=prompt.attack_vector,
    )


def shortfall(levels: Mapping[Objective, Level], wanted: int) -> dict[Objective, int]:
    """How many comparisons of each objective are missing in a stock of so many in all."""
    needs = {objective: level.remaining + level.ahead for objective, level in levels.items()}
    total = sum(needs.values())
    if not total:
        return {}
    missing = {
        objective: min(ceil(wanted * needs[objective] / total) - level.ahead, level.remaining)
        for objective, level in levels.items()
    }
    return {objective: count for objective, count in missing.items() if count > 0}


def _takes_from_pool(session: Session, batch: Batch, at: datetime) -> bool:
    """Whether a batch wants prompts of the pool now, and knows which checkpoint answers them."""
    is_wanted = batch.state is BatchState.OPEN and batch.pool_share > 0 and at < batch.closes_at
    return is_wanted and all(variant.checkpoint_id for variant in batches.variants(session, batch))


def _has_work(session: Session, batch: Batch, settings: Settings, at: datetime) -> bool:
    """A look without a lock, which is all there is to do nearly always."""
    return bool(_missing(session, batch, settings, at) or _due_again(session, batch, at))


def _missing(session: Session, batch: Batch, settings: Settings, at: datetime) -> dict[Objective, int]:
    people = max(_LEAST_PEOPLE, queries.count_active(session, at - _ACTIVE))
    waiting = queries.waiting_objectives(session)
    levels = {objective: level for objective, level in _levels(session, batch, at).items() if objective in waiting}
    return shortfall(levels, settings.stock_per_annotator * people)


def _levels(session: Session, batch: Batch, at: datetime) -> dict[Objective, Level]:
    under_way = dict.fromkeys(Objective, 0)
    ahead = dict.fromkeys(Objective, 0)
    for objective, is_untouched, count in queries.unjudged(session, batch.id):
        under_way[objective] += count
        ahead[objective] += count if is_untouched else 0
    for _, objective, _ in queries.failed_since(session, batch.id, at - _GIVEN_UP_AFTER):
        under_way[objective] += 1
        ahead[objective] += 1
    targets = queries.remaining_targets(session, batch.id)
    return {
        objective: Level(remaining=max(0, remaining - under_way[objective]), ahead=ahead[objective])
        for objective, remaining in targets.items()
    }


def _refill_a_little(database: Database, settings: Settings, batch: Batch, at: datetime) -> int:
    """Lock the batch, look again, and ask for some pairs."""
    with database.write() as session:
        held = queries.batch_held(session, batch.id)
        if not _takes_from_pool(session, held, at):
            return 0
        again = _ask_again(session, held, at)
        made = 0
        for objective, count in _missing(session, held, settings, at).items():
            for _ in range(min(count, _AT_ONCE - made)):
                made += _take_from_pool(session, held, objective, at)
        return again + made


def _take_from_pool(session: Session, batch: Batch, objective: Objective, at: datetime) -> bool:
    """Make the oldest waiting prompt of an objective a comparison, if there is one."""
    prompt = queries.next_waiting(session, objective)
    if prompt is None:
        return False
    prompt.state = PoolPromptState.USED
    prompt.used_at = at
    conversation = Conversation(
        batch_id=batch.id,
        objective=objective,
        annotator_id=None,
        pool_prompt_id=prompt.id,
        source=PromptSource.POOL,
    )
    session.add(conversation)
    session.flush()
    ask(
        session,
        batch,
        conversation,
        turn=1,
        prompt=prompt.turns[0],
        risk_category=prompt.risk_category,
        attack_vector=prompt.attack_vector,
    )
    return True


def _due_again(session: Session, batch: Batch, at: datetime) -> list[UUID]:
    failed = queries.failed_since(session, batch.id, at - _GIVEN_UP_AFTER)
    return [key for key, _, failed_at in failed if failed_at is not None and failed_at <= at - _AGAIN_AFTER]


def _ask_again(session: Session, batch: Batch, at: datetime) -> int:
    due = queries.failed_with_responses(session, _due_again(session, batch, at)[:_AT_ONCE])
    for comparison in due:
        sampling.retry(session, comparison)
    return len(due)
