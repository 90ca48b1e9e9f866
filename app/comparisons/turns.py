"""How long a conversation may become."""

import random
from uuid import UUID

from app.models import Batch


def most_turns(batch: Batch, conversation_id: UUID) -> int:
    """The most turns that a conversation of a batch may have."""
    return drawn_turns(conversation_id, batch.turns_per_conversation, batch.multi_turn_share)


def drawn_turns(conversation_id: UUID, turns: int, share: float) -> int:
    """So many turns for a share of the conversations, and one for the others.

    It is drawn by the conversation's id: whoever asks gets the same answer, and nothing has to be kept.
    """
    is_longer = random.Random(conversation_id.int).random() < share  # noqa: S311 - a fair draw, not a secret
    return turns if is_longer else 1
