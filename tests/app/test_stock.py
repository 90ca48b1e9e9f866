"""The stock of comparisons from the prompt pool: enough ahead, never too many, whoever refills it."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from threading import Barrier
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event, select
from sqlalchemy.orm import Session

from app.annotation import judging, service
from app.annotation.answers import Answer
from app.comparisons import handout
from app.database import Database
from app.models import (
    Batch,
    BatchState,
    BatchVariant,
    Comparison,
    ComparisonState,
    Conversation,
    ConversationState,
    PersonRole,
    PoolPrompt,
    PoolPromptState,
    PromptSource,
    SamplingJob,
    WorkDay,
    WorkState,
    now,
)
from app.pool import service as pool
from app.pool.reading import Tags
from app.pool.stock import Level, follow_up, refill, shortfall
from app.sampling import leases
from app.settings import Settings
from contract.vocabulary import AttackVector, Objective, RiskCategory, Strength
from tests import factories
from tests.prompts import read_prompts

H, S = Objective.HELPFULNESS, Objective.SAFETY
MANY = {H: 1000, S: 0}
TWO_PEOPLE = 6
"""Of three comparisons for each of at least two people."""


def fill_pool(session: Session, count: int, objective: Objective = H, turns: int = 1) -> None:
    lines = "\n".join(
        str({"turns": [f"{objective} {n}, {t}?" for t in range(turns)]}).replace("'", '"') for n in range(count)
    )
    tags = Tags(objective, RiskCategory.UNQUALIFIED_ADVICE, AttackVector.LOGIC) if objective is S else Tags(objective)
    prompts, _ = read_prompts(lines, tags, max_characters=100)
    pool.add(session, prompts, source="test")


def open_batch(database: Database, prompts: int = 100, *, turns: int = 1, **settings: Any) -> Batch:
    with database.write() as session:
        batch = factories.make_open_batch(session, **({"targets": MANY, "pool_share": 1.0} | settings))
        fill_pool(session, prompts, turns=turns)
        return batch


def stock(database: Database) -> Counter[Objective]:
    with database.read() as session:
        return Counter(
            session.scalars(
                select(Comparison.objective).where(
                    Comparison.state.in_([ComparisonState.SAMPLING, ComparisonState.READY]),
                    Comparison.open_places == Comparison.annotations_wanted,
                )
            )
        )


def waiting(database: Database) -> Counter[Objective]:
    with database.read() as session:
        return Counter(session.scalars(select(PoolPrompt.objective).where(PoolPrompt.state == PoolPromptState.WAITING)))


def make_all_ready(database: Database) -> None:
    with database.write() as session:
        for comparison in session.scalars(select(Comparison).where(Comparison.state == ComparisonState.SAMPLING)).all():
            factories.make_ready(session, comparison, (f"A {comparison.id}", f"B {comparison.id}"))


def judge_next(database: Database, name: str = "Ann") -> Comparison | None:
    """What an annotator does with what is handed out next."""
    with database.write() as session:
        ann = factories.make_person(session, name)
        batch = session.scalars(select(Batch).where(Batch.state == BatchState.OPEN)).one()
        comparison = handout.hand_out(session, ann, batch, with_new=True, at=now(), minutes=30)
        if comparison is None:
            return None
        session.flush()
        held = service.locked_held(session, ann, comparison.id)
        answer = Answer(held.comparison.responses[0], Strength.BETTER)
        judging.annotate(session, ann, service.batch_of(session, held), held, answer, minutes=30)
        return held.comparison


def test_the_first_annotator_finds_something(database: Database, settings: Settings) -> None:
    open_batch(database)
    assert refill(database, settings, now()) == TWO_PEOPLE
    assert refill(database, settings, now()) == 0
    assert stock(database) == {H: TWO_PEOPLE}
    with database.read() as session:
        conversations = session.scalars(select(Conversation)).all()
        comparisons = session.scalars(select(Comparison)).all()
        prompts = {prompt.id: prompt for prompt in session.scalars(select(PoolPrompt))}
        jobs = session.scalars(select(SamplingJob)).all()
    assert {(row.source, row.annotator_id) for row in conversations} == {(PromptSource.POOL, None)}
    assert {prompts[row.pool_prompt_id].turns[0] for row in conversations if row.pool_prompt_id} == {
        comparison.prompt for comparison in comparisons
    }
    assert Counter(prompt.state for prompt in prompts.values()) == {
        PoolPromptState.USED: TWO_PEOPLE,
        PoolPromptState.WAITING: 100 - TWO_PEOPLE,
    }
    # The oldest first.
    assert {key for key, prompt in prompts.items() if prompt.used_at} == set(sorted(prompts)[:TWO_PEOPLE])
    assert [job.state for job in jobs] == [WorkState.QUEUED] * TWO_PEOPLE


def test_there_is_more_for_more_people_who_are_here(database: Database, settings: Settings) -> None:
    open_batch(database)
    at = now()
    with database.write() as session:
        for number in range(7):
            ann = factories.make_person(session, f"Ann {number}")
            ann.last_seen_at = at - timedelta(minutes=14 if number < 5 else 16)
            ann.is_active = number > 0
    refill(database, settings, at)
    assert stock(database) == {H: 4 * settings.stock_per_annotator}
    refill(database, settings.model_copy(update={"stock_per_annotator": 10}), at)
    assert stock(database) == {H: 40}


def test_what_is_judged_or_held_is_replaced(database: Database, settings: Settings) -> None:
    open_batch(database)
    refill(database, settings, now())
    make_all_ready(database)
    for _ in range(4):
        assert judge_next(database) is not None
    with database.write() as session:
        batch = session.scalars(select(Batch)).one()
        held = handout.hand_out(
            session, factories.make_person(session, "Bo"), batch, with_new=True, at=now(), minutes=9
        )
        assert held is not None
    assert stock(database) == {H: 1}
    assert refill(database, settings, now()) == 5
    assert stock(database) == {H: TWO_PEOPLE}


def test_never_more_than_the_target_asks_for(database: Database, settings: Settings) -> None:
    open_batch(database, targets={H: 10, S: 0})
    judged = 0
    for _ in range(30):
        refill(database, settings, now())
        assert stock(database).total() <= min(TWO_PEOPLE, 10 - judged)
        make_all_ready(database)
        judged += judge_next(database) is not None
    assert judged == 10
    assert waiting(database) == {H: 90}


def test_the_stock_follows_what_the_objectives_need(database: Database, settings: Settings) -> None:
    batch = open_batch(database, targets={H: 300, S: 100})
    with database.write() as session:
        fill_pool(session, 50, S)
        ann = factories.make_person(session)
        day = now().date()
        session.add(
            WorkDay(annotator_id=ann.id, batch_id=batch.id, objective=H, day=day, comparisons=200, annotations=250)
        )
    refill(database, settings, now())
    # Each still needs a hundred.
    assert stock(database) == {H: 3, S: 3}
    with database.read() as session:
        tags = set(session.execute(select(Comparison.objective, Comparison.risk_category, Comparison.attack_vector)))
    assert tags == {(H, None, None), (S, RiskCategory.UNQUALIFIED_ADVICE, AttackVector.LOGIC)}


def test_a_dry_objective_leaves_its_room_to_the_other(database: Database, settings: Settings) -> None:
    open_batch(database, prompts=100, targets={H: 10, S: 1000})
    refill(database, settings, now())
    assert stock(database) == {H: TWO_PEOPLE}
    with database.write() as session:
        session.execute(PoolPrompt.__table__.update().values(state=PoolPromptState.RETIRED))
    make_all_ready(database)
    judge_next(database)
    assert refill(database, settings, now()) == 0


@given(
    levels=st.dictionaries(
        st.sampled_from(Objective), st.builds(Level, remaining=st.integers(0, 500), ahead=st.integers(0, 60))
    ),
    wanted=st.integers(0, 60),
)
def test_the_shortfall_fills_the_stock_and_nothing_more(levels: dict[Objective, Level], wanted: int) -> None:
    missing = shortfall(levels, wanted)
    assert all(0 < count <= levels[objective].remaining for objective, count in missing.items())
    ahead = sum(level.ahead for level in levels.values()) + sum(missing.values())
    if missing:
        # Each objective's part is rounded up.
        assert all(levels[objective].ahead + count <= wanted for objective, count in missing.items())
    after = {
        objective: Level(level.remaining - missing.get(objective, 0), level.ahead + missing.get(objective, 0))
        for objective, level in levels.items()
    }
    assert shortfall(after, wanted) == {}
    assert ahead >= min(wanted, sum(level.remaining + level.ahead for level in levels.values()))


@pytest.mark.parametrize("change", ["no share", "scheduled", "closing", "over", "no checkpoint", "no prompts"])
def test_nothing_is_made_and_nothing_locked(database: Database, settings: Settings, change: str) -> None:
    batch = open_batch(database, prompts=0 if change == "no prompts" else 10)
    at = now()
    with database.write() as session:
        batch = session.get_one(Batch, batch.id)
        if change == "no share":
            batch.pool_share = 0.0
        elif change == "over":
            batch.closes_at = at
        elif change == "no checkpoint":
            for variant in session.scalars(select(BatchVariant)):
                variant.checkpoint_id = None
        elif change != "no prompts":
            batch.state = BatchState(change)
    writes: list[object] = []
    note = writes.append
    event.listen(database.writing, "commit", note)
    assert refill(database, settings, at) == 0
    event.remove(database.writing, "commit", note)
    assert writes == []
    assert stock(database) == {}


def test_processes_at_once_fill_the_stock_once(database: Database, settings: Settings) -> None:
    open_batch(database, prompts=200)
    with database.write() as session:
        for number in range(20):
            factories.make_person(session, f"Ann {number}").last_seen_at = now()
    together = Barrier(4)

    def one_process() -> int:
        together.wait()
        return sum(refill(database, settings, now()) for _ in range(3))

    with ThreadPoolExecutor(4) as threads:
        made = [threads.submit(one_process) for _ in range(4)]
        assert sum(future.result() for future in made) == 60
    assert stock(database) == {H: 60}
    assert waiting(database) == {H: 140}


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_annotators_need_not_wait_for_the_refill(database: Database, settings: Settings) -> None:
    """On PostgreSQL; SQLite has one writer at a time."""
    open_batch(database)
    refill(database, settings, now())
    make_all_ready(database)
    with database.write() as refilling:
        refilling.scalars(select(Batch).with_for_update(key_share=True)).one()
        with ThreadPoolExecutor(1) as threads:
            assert threads.submit(judge_next, database).result(timeout=10) is not None


def test_a_script_goes_on_with_the_chosen_response(database: Database, settings: Settings) -> None:
    open_batch(database, prompts=1, turns=3, turns_per_conversation=2, overlap_share=0.0)
    refill(database, settings, now())
    make_all_ready(database)
    first = judge_next(database)
    assert first is not None
    with database.read() as session:
        second = session.scalars(select(Comparison).where(Comparison.turn == 2)).one()
        assert (second.prompt, second.open_places, second.state) == ("helpfulness 0, 1?", 1, ComparisonState.SAMPLING)
        assert second.conversation_id == first.conversation_id
    make_all_ready(database)
    # Anybody may judge the next turn.
    assert judge_next(database, "Bo") is not None
    with database.read() as session:
        conversation = session.scalars(select(Conversation)).one()
        # The script has a third turn, and the batch allows two.
        assert session.scalars(select(Comparison.turn).order_by(Comparison.turn)).all() == [1, 2]
    assert conversation.state is ConversationState.FINISHED
    assert conversation.finished_at is not None


def test_a_script_ends_when_the_batch_takes_no_prompts(database: Database, settings: Settings) -> None:
    batch = open_batch(database, prompts=1, turns=2)
    refill(database, settings, now())
    make_all_ready(database)
    with database.write() as session:
        batch = session.get_one(Batch, batch.id)
        batch.state = BatchState.CLOSING
        comparison = session.scalars(select(Comparison)).one()
        conversation = session.scalars(select(Conversation)).one()
        assert follow_up(session, batch, conversation, comparison) is None
        assert conversation.state is ConversationState.FINISHED


def fail_all(database: Database, at: datetime) -> None:
    with database.write() as session:
        for job in session.scalars(select(SamplingJob).where(SamplingJob.state == WorkState.QUEUED)).all():
            leases.end(job, WorkState.FAILED, at=at, error="no GPU")
            session.get_one(Comparison, job.comparison_id).state = ComparisonState.FAILED


def test_a_worker_in_trouble_does_not_use_the_pool_up(database: Database, settings: Settings) -> None:
    open_batch(database)
    at = now()
    made = [refill(database, settings, at)]
    for minute in range(1, 31):
        fail_all(database, at + timedelta(minutes=minute))
        made.append(refill(database, settings, at + timedelta(minutes=minute, seconds=30)))
        made.append(refill(database, settings, at + timedelta(minutes=minute + 1)))
    # Nothing within a minute of the failure; after it the same pairs again, and nothing new.
    assert made == [TWO_PEOPLE, *[0, TWO_PEOPLE] * 30]
    assert waiting(database) == {H: 100 - TWO_PEOPLE}
    assert stock(database) == {H: TWO_PEOPLE}
    # What fails for an hour is given up, so that a prompt that cannot be sampled does not block the stock.
    fail_all(database, at + timedelta(minutes=32))
    assert refill(database, settings, at + timedelta(minutes=61)) == TWO_PEOPLE
    assert waiting(database) == {H: 100 - 2 * TWO_PEOPLE}


def test_only_annotators_ask_for_stock(database: Database, settings: Settings) -> None:
    open_batch(database)
    with database.write() as session:
        for number in range(5):
            factories.make_person(session, f"Ada {number}", PersonRole.ADMIN).last_seen_at = now()
    refill(database, settings, now())
    assert stock(database) == {H: TWO_PEOPLE}
