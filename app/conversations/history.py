"""Builds the messages that lead to a comparison: earlier prompts with the responses that were chosen."""

from collections import defaultdict
from collections.abc import Iterable
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.models import Annotation, Batch, Comparison, Response
from contract.conversation import Message
from contract.vocabulary import Role


def prompts_with_context(session: Session, comparisons: Iterable[Comparison]) -> dict[UUID, tuple[Message, ...]]:
    """For each comparison the whole prompt: system prompt, earlier turns, and the user's last message.

    The chosen response becomes the history (Bai et al. 2022; LLAMA2.md, C6). One query for all of them.
    """
    wanted = list(comparisons)
    system_prompts = _system_prompts(session, {comparison.batch_id for comparison in wanted})
    turns = _chosen_turns(session, {comparison.conversation_id for comparison in wanted})
    return {
        comparison.id: (
            *system_prompts[comparison.batch_id],
            *(
                message
                for turn, exchange in turns[comparison.conversation_id]
                if turn < comparison.turn
                for message in exchange
            ),
            Message(role=Role.USER, content=comparison.prompt),
        )
        for comparison in wanted
    }


def conversation_so_far(session: Session, comparison: Comparison) -> list[Message]:
    """What people see above a comparison's responses: the earlier turns and the prompt, without the system prompt."""
    earlier = _chosen_turns(session, {comparison.conversation_id}) if comparison.turn > 1 else {}
    messages = [
        message
        for turn, exchange in earlier.get(comparison.conversation_id, [])
        if turn < comparison.turn
        for message in exchange
    ]
    return [*messages, Message(role=Role.USER, content=comparison.prompt)]


def _system_prompts(session: Session, batch_ids: set[UUID]) -> dict[UUID, tuple[Message, ...]]:
    rows = session.execute(select(Batch.id, Batch.system_prompt).where(Batch.id.in_(batch_ids)))
    return {
        batch_id: (Message(role=Role.SYSTEM, content=system_prompt),) if system_prompt else ()
        for batch_id, system_prompt in rows
    }


def _chosen_turns(session: Session, conversation_ids: set[UUID]) -> dict[UUID, list[tuple[int, tuple[Message, ...]]]]:
    """The judged turns of some conversations, in order, each as the user's and the assistant's message."""
    rows = session.execute(
        select(Comparison.conversation_id, Comparison.turn, Comparison.prompt, Response.text)
        .join(Annotation, (Annotation.comparison_id == Comparison.id) & Annotation.is_primary)
        .join(Response, Response.id == Annotation.chosen_response_id)
        .where(Comparison.conversation_id.in_(conversation_ids))
        .order_by(Comparison.conversation_id, Comparison.turn)
    )
    turns: dict[UUID, list[tuple[int, tuple[Message, ...]]]] = defaultdict(list)
    for conversation_id, turn, prompt, text in rows:
        exchange = (Message(role=Role.USER, content=prompt), Message(role=Role.ASSISTANT, content=text))
        turns[conversation_id].append((turn, exchange))
    return turns
