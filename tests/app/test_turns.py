"""The share of conversations that may have more than one turn."""

from collections.abc import Callable

import pytest
from sqlalchemy import select

from app.batches import service
from app.comparisons.turns import drawn_turns
from app.database import Database
from app.models import Comparison, Conversation, ConversationState, PersonRole, PoolPrompt, new_id, now
from app.pool import service as pool
from app.pool import stock
from app.pool.reading import Tags
from contract.vocabulary import Objective
from tests import factories
from tests.app.annotating import judge, make_ready, rating
from tests.conftest import Browser
from tests.prompts import read_prompts


@pytest.mark.parametrize(("share", "longer"), [(0.0, range(1)), (0.3, range(220, 380)), (1.0, range(1000, 1001))])
def test_a_share_of_the_conversations_is_longer(share: float, longer: range) -> None:
    ids = [new_id() for _ in range(1000)]
    drawn = [drawn_turns(one, 6, share) for one in ids]
    assert set(drawn) <= {1, 6}
    assert drawn.count(6) in longer
    assert drawn == [drawn_turns(one, 6, share) for one in ids]
    # With a larger share no conversation becomes shorter.
    assert all(drawn_turns(one, 6, share + 0.1) >= turns for one, turns in zip(ids, drawn, strict=True))


@pytest.mark.parametrize("share", [0.0, 1.0], ids=str)
def test_a_written_conversation(sign_in: Callable[..., Browser], database: Database, share: float) -> None:
    with database.write() as session:
        factories.make_open_batch(session, turns_per_conversation=3, multi_turn_share=share)
    ann = sign_in(PersonRole.ANNOTATOR, "Ann")
    ann.post("/annotate/conversations", {"objective": "helpfulness", "prompt": "What is tea?"})
    comparison_id = make_ready(database, ("Left", "Right"))
    assert f"turn 1 of {3 if share else 1}" in ann.get("/annotate").text
    judge(ann, comparison_id, rating=rating(database, comparison_id))
    page = ann.get("/annotate").text
    assert ("data-conversation=" in page) is (share == 1.0)
    with database.read() as session:
        conversation = session.scalars(select(Conversation)).one()
    assert conversation.state is (ConversationState.ACTIVE if share else ConversationState.FINISHED)
    if not share:
        answer = ann.post(f"/annotate/conversations/{conversation.id}/prompts", {"prompt": "And then?"})
        assert answer.status_code == 409


@pytest.mark.parametrize(("share", "turns"), [(0.0, [1]), (1.0, [1, 2])], ids=str)
def test_a_script_of_the_pool(database: Database, share: float, turns: list[int]) -> None:
    with database.write() as session:
        batch = factories.make_open_batch(session, pool_share=1.0, multi_turn_share=share)
        prompts, _ = read_prompts("Tea?", Tags(Objective.HELPFULNESS), max_characters=100)
        pool.add(session, prompts, source="")
        prompt = session.scalars(select(PoolPrompt)).one()
        prompt.turns, prompt.used_at = ["Tea?", "Why?"], now()
        conversation = factories.make_conversation(session, batch, None)
        conversation.pool_prompt_id = prompt.id
        comparison = factories.make_comparison(session, conversation, "Tea?")
        factories.make_ready(session, comparison)
        factories.make_annotation(session, comparison, factories.make_person(session))
        followed = stock.follow_up(session, service.get(session, 1), conversation, comparison)
        assert (followed is not None) is (turns == [1, 2])
        assert session.scalars(select(Comparison.turn).order_by(Comparison.turn)).all() == turns
