"""Asks the model: a prompt becomes a comparison, whose two responses are sampled."""

import random
from uuid import UUID

from sqlalchemy.orm import Session

from app.batches import service as batches
from app.models import Batch, Comparison, Conversation, PromptSource, new_id
from app.sampling import service as sampling
from contract.vocabulary import AttackVector, RiskCategory


def ask(
    session: Session,
    batch: Batch,
    conversation: Conversation,
    *,
    turn: int,
    prompt: str,
    comparison_id: UUID | None = None,
    risk_category: RiskCategory | None = None,
    attack_vector: AttackVector | None = None,
) -> Comparison:
    """Add the comparison of a turn, and queue the sampling of its responses.

    Whether several annotators are to judge it is drawn here, by the comparison's id: asking again with the same id
    draws the same. Anybody may take a place at a comparison from the pool; a written one is its author's.
    """
    comparison_id = comparison_id or new_id()
    wanted = batch.overlap_annotations if is_overlapped(comparison_id, batch.overlap_share) else 1
    comparison = Comparison(
        id=comparison_id,
        conversation_id=conversation.id,
        batch_id=batch.id,
        objective=conversation.objective,
        turn=turn,
        prompt=prompt,
        risk_category=risk_category,
        attack_vector=attack_vector,
        annotations_wanted=wanted,
        open_places=wanted if conversation.source is PromptSource.POOL else 0,
    )
    session.add(comparison)
    session.flush()
    variants = batches.variants(session, batch)
    sampling.request_pair(session, comparison, variants, max_new_tokens=batch.max_new_tokens)
    return comparison


def is_overlapped(comparison_id: UUID, share: float) -> bool:
    """Whether a comparison is among the share that several annotators judge."""
    return random.Random(comparison_id.int).random() < share  # noqa: S311 - a fair draw, not a secret
