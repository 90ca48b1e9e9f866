"""The hand-out: never beyond the overlap, never twice to one annotator, and back again when somebody is gone."""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Event

import pytest
from sqlalchemy import func, select

from app.annotation import desk, judging, service
from app.annotation.answers import Answer
from app.comparisons import handout
from app.database import Database
from app.models import (
    Annotation,
    Assignment,
    AssignmentState,
    Batch,
    Comparison,
    ComparisonState,
    Person,
    PersonRole,
    SkipPolicy,
    SkipReason,
    now,
)
from app.settings import Settings
from contract.vocabulary import Strength
from tests import factories
from tests.conftest import Browser

MINUTES = 30.0
PROCESSES = 3
ANNOTATORS = 4
COMPARISONS = 400
OVERLAP = 3


@pytest.fixture
def batch(database: Database) -> Batch:
    with database.write() as session:
        return factories.make_open_batch(session, pool_share=1.0, overlap_share=1.0, overlap_annotations=2)


def make_stock(database: Database, batch: Batch, count: int) -> None:
    with database.write() as session:
        for number in range(count):
            factories.make_pool_comparison(session, session.get_one(Batch, batch.id), f"What is tea {number}?")


def make_people(database: Database, *names: str) -> list[Person]:
    with database.write() as session:
        return [factories.make_person(session, name) for name in names]


def take(database: Database, person: Person) -> Comparison | None:
    """What is on an annotator's screen."""
    with database.write() as session:
        focus = desk.next_step(session, person, minutes=MINUTES).focus
        return session.get_one(Comparison, focus) if focus is not None else None


def judge(database: Database, person: Person, comparison: Comparison) -> Annotation:
    with database.write() as session:
        held = service.locked_held(session, person, comparison.id)
        answer = Answer(held.comparison.responses[0], Strength.BETTER)
        return judging.annotate(session, person, service.batch_of(session, held), held, answer, minutes=MINUTES)


def test_several_processes_never_hand_out_too_much(database: Database, settings: Settings) -> None:
    with database.write() as session:
        batch = factories.make_open_batch(
            session, pool_share=1.0, overlap_share=0.5, overlap_annotations=OVERLAP, skip_policy=SkipPolicy.HAND_ON
        )
    make_stock(database, batch, COMPARISONS)
    hand_outs = Counter(work_in_processes(settings.database_url, PROCESSES, ANNOTATORS))
    assert sum(hand_outs.values()) > COMPARISONS * 2
    assert {"judged", "skipped", "given_back", "expired"} <= hand_outs.keys()
    with database.read() as session:
        comparisons = session.scalars(select(Comparison)).all()
        done = Counter(session.scalars(select(Annotation.comparison_id)))
        primary = Counter(session.scalars(select(Annotation.comparison_id).where(Annotation.is_primary)))
        held = Counter(
            session.scalars(select(Assignment.comparison_id).where(Assignment.state == AssignmentState.HELD))
        )
        assert {row.annotations_wanted for row in comparisons} >= {1, OVERLAP}
        for row in comparisons:
            assert done[row.id] + held[row.id] + row.open_places == row.annotations_wanted
            assert primary[row.id] == min(done[row.id], 1)
        # Nothing was left behind while anybody could still take it: everybody is out of work.
        people = session.scalars(select(Person.id).where(Person.role == PersonRole.ANNOTATOR)).all()
        for row in comparisons:
            if row.open_places and row.state in {ComparisonState.READY, ComparisonState.ANNOTATED}:
                known = set(
                    session.scalars(
                        select(Assignment.annotator_id).where(
                            Assignment.comparison_id == row.id, Assignment.state != AssignmentState.GIVEN_BACK
                        )
                    )
                )
                assert known == set(people)


def work_in_processes(url: str, processes: int, annotators: int) -> list[str]:
    """Let several processes of several annotators each work until nothing is left; then one more takes the rest."""
    names = [[f"annotator {process}-{number}" for number in range(annotators)] for process in range(processes)]
    outputs = []
    for crowd in (names, [[name for people in names for name in people]]):
        running = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.app.handing_out", url, str(seed), *people],
                stdout=subprocess.PIPE,
                text=True,
            )
            for seed, people in enumerate(crowd)
        ]
        outputs += [process.communicate(timeout=240)[0] for process in running]
        assert [process.returncode for process in running] == [0] * len(running)
    return [line.rsplit("\t", 1)[1] for output in outputs for line in output.splitlines()]


def test_nobody_gets_a_comparison_twice_and_the_first_to_judge_is_primary(database: Database, batch: Batch) -> None:
    make_stock(database, batch, 1)
    ann, bo, cy = make_people(database, "Ann", "Bo", "Cy")
    first, second = take(database, ann), take(database, bo)
    assert first is not None
    assert second is not None
    assert first.id == second.id
    assert take(database, cy) is None
    assert take(database, ann) is not None
    assert judge(database, bo, first).is_primary
    assert not judge(database, ann, first).is_primary
    assert [take(database, person) for person in (ann, bo, cy)] == [None] * 3


def test_a_place_expires_after_inactivity_and_can_be_taken_again(database: Database, batch: Batch) -> None:
    make_stock(database, batch, 1)
    ann, bo, cy = make_people(database, "Ann", "Bo", "Cy")
    shown = take(database, ann)
    assert shown is not None
    assert handout.expire(database, now() + timedelta(minutes=MINUTES - 1)) == 0
    assert handout.expire(database, now() + timedelta(minutes=MINUTES + 1)) == 1
    # She was away, but her place is still free.
    assert judge(database, ann, shown).is_primary
    assert take(database, bo) is not None
    handout.expire(database, now() + timedelta(minutes=MINUTES + 1))
    assert take(database, cy) is not None
    with pytest.raises(service.MovedOnError, match="given to somebody else"):
        judge(database, bo, shown)


def test_who_signs_out_gives_back_and_finds_it_again(
    database: Database, batch: Batch, sign_in: Callable[..., Browser]
) -> None:
    make_stock(database, batch, 2)
    ann = sign_in(PersonRole.ANNOTATOR, "Ann")
    shown = take(database, ann.person)
    assert shown is not None
    assert ann.post("/sign-out").status_code == 303
    with database.read() as session:
        place = session.scalars(select(Assignment)).one()
        assert (place.state, place.held_until) == (AssignmentState.GIVEN_BACK, None)
        assert session.get_one(Comparison, shown.id).open_places == 2
    again = take(database, ann.person)
    assert again is not None
    assert again.id == shown.id


@pytest.mark.parametrize("policy", list(SkipPolicy))
@pytest.mark.parametrize("reason", [SkipReason.CANNOT_JUDGE, SkipReason.BOTH_BROKEN])
def test_a_skipped_comparison_is_handed_on_or_retired(
    database: Database, policy: SkipPolicy, reason: SkipReason
) -> None:
    with database.write() as session:
        batch = factories.make_open_batch(session, pool_share=1.0, skip_policy=policy)
    make_stock(database, batch, 1)
    ann, bo = make_people(database, "Ann", "Bo")
    shown = take(database, ann)
    assert shown is not None
    with database.write() as session:
        judging.skip(session, ann, shown.id, reason, minutes=MINUTES)
    is_handed_on = policy is SkipPolicy.HAND_ON and reason is SkipReason.CANNOT_JUDGE
    assert take(database, ann) is None
    assert (take(database, bo) is not None) is is_handed_on
    with database.read() as session:
        expected = ComparisonState.READY if is_handed_on else ComparisonState.SKIPPED
        assert session.get_one(Comparison, shown.id).state is expected


def test_a_broken_comparison_is_handed_to_nobody_else_even_where_several_were_wanted(
    database: Database, batch: Batch
) -> None:
    make_stock(database, batch, 1)
    ann, bo, cy = make_people(database, "Ann", "Bo", "Cy")
    shown = take(database, ann)
    assert shown is not None
    assert take(database, bo) is not None
    for person, state in ((ann, ComparisonState.READY), (bo, ComparisonState.SKIPPED)):
        with database.write() as session:
            judging.skip(session, person, shown.id, SkipReason.BOTH_BROKEN, minutes=MINUTES)
        assert take(database, cy) is None
        with database.read() as session:
            # Who is looking at it may still judge it.
            assert session.get_one(Comparison, shown.id).state is state


def test_an_author_who_skips_leaves_nothing_open_for_others(database: Database) -> None:
    with database.write() as session:
        batch = factories.make_open_batch(session, overlap_share=1.0, overlap_annotations=3)
        ann = factories.make_person(session, "Ann")
        comparison = factories.make_comparison(session, factories.make_conversation(session, batch, ann))
        factories.make_ready(session, comparison)
        judging.skip(session, ann, comparison.id, SkipReason.PROMPT_MISTAKE, minutes=MINUTES)
    (bo,) = make_people(database, "Bo")
    assert take(database, bo) is None
    with database.read() as session:
        assert session.get_one(Comparison, comparison.id).state is ComparisonState.SKIPPED


def test_a_comparison_that_everybody_skips_is_retired(database: Database) -> None:
    with database.write() as session:
        batch = factories.make_open_batch(session, pool_share=1.0, skip_policy=SkipPolicy.HAND_ON)
    make_stock(database, batch, 1)
    for number, person in enumerate(make_people(database, "Ann", "Bo", "Cy", "Di")):
        shown = take(database, person)
        assert (shown is not None) is (number < 3)
        if shown is not None:
            with database.write() as session:
                judging.skip(session, person, shown.id, SkipReason.OTHER, minutes=MINUTES)
    with database.read() as session:
        assert session.scalars(select(Comparison)).one().state is ComparisonState.SKIPPED


def test_a_written_comparison_is_offered_to_others_only_when_its_author_has_judged_it(database: Database) -> None:
    with database.write() as session:
        batch = factories.make_open_batch(session, overlap_share=1.0, overlap_annotations=2)
        ann = factories.make_person(session, "Ann")
        comparison = factories.make_comparison(session, factories.make_conversation(session, batch, ann))
        factories.make_ready(session, comparison)
    (bo,) = make_people(database, "Bo")
    assert take(database, bo) is None
    assert judge(database, ann, comparison).is_primary
    offered = take(database, bo)
    assert offered is not None
    assert offered.id == comparison.id
    assert not judge(database, bo, comparison).is_primary
    with database.read() as session:
        assert session.scalar(select(func.count(Annotation.id))) == 2


def test_who_signs_out_gives_back_what_somebody_else_is_just_taking(database: Database, batch: Batch) -> None:
    """The other one's transaction is waited for: nobody would come back for a place that was passed over."""
    make_stock(database, batch, 1)
    ann, ben = make_people(database, "Ann", "Ben")
    shown = take(database, ann)
    assert shown is not None
    holds, signs_out = Event(), Event()

    def take_slowly() -> None:
        with database.write() as session:
            handout.hand_out(session, ben, session.get_one(Batch, batch.id), with_new=True, at=now(), minutes=MINUTES)
            session.flush()
            holds.set()
            signs_out.wait(10)
            # Long enough for the other transaction to come upon the lock.
            time.sleep(0.2)

    with ThreadPoolExecutor(1) as pool:
        taking = pool.submit(take_slowly)
        assert holds.wait(10)
        signs_out.set()
        with database.write() as session:
            assert handout.give_back(session, ann) == 1
        taking.result(10)
    with database.read() as session:
        states = dict(session.execute(select(Assignment.annotator_id, Assignment.state)).all())
    assert states == {ann.id: AssignmentState.GIVEN_BACK, ben.id: AssignmentState.HELD}
