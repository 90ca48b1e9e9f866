"""The weekly cycle: every step happens once, whoever takes it, and whatever breaks in the middle."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from threading import Barrier, Event
from typing import Any

import pytest
from sqlalchemy import event, func, select

from app import logs
from app.annotation import judging
from app.annotation import service as annotation
from app.annotation.answers import Answer
from app.background import look_after, reconciling
from app.batches import service as batches
from app.batches.reconciler import reconcile
from app.database import Database
from app.datasets.verify import verify_folder
from app.models import (
    Annotation,
    Assignment,
    AssignmentState,
    AuditEvent,
    Batch,
    BatchState,
    Comparison,
    ComparisonState,
    Conversation,
    Person,
    PersonRole,
    PoolPrompt,
    PoolPromptState,
    PreferenceDataset,
    Review,
    SamplingJob,
    Skip,
    SkipReason,
    SplitPrompt,
    Verdict,
    Worker,
    WorkState,
    now,
)
from app.pool import service as pool
from app.pool.reading import Tags
from app.sampling import handing_out, leases
from app.settings import Settings
from contract.sampling import Events, Lease
from contract.vocabulary import Objective, Side, Strength
from tests import factories
from tests.conftest import Browser
from tests.prompts import read_prompts

STEPS = 5
COMMITS = 10
# After it, the lease of a process that was killed while it wrote a dataset is over.
LEASE = timedelta(minutes=2)
"""Of a week that is over: stop taking prompts, close, freeze, and open the next one."""


class Killed(Exception):  # noqa: N818 - it stands for kill -9, not for an error
    """The process ends here."""


def make_due_week(database: Database, **settings: Any) -> datetime:
    """A batch whose time is over, with judged, waiting and unsampled comparisons; gives a moment when all is due."""
    with database.write() as session:
        batch = factories.make_open_batch(session, grace_minutes=0, **settings)
        ann = factories.make_person(session)
        for number in range(3):
            factories.make_judged(session, batch, ann, f"What is tea number {number}?", "And why?")
        factories.make_comparison(session, factories.make_conversation(session, batch, ann), "Still being sampled?")
        waiting = factories.make_comparison(session, factories.make_conversation(session, batch, ann), "Ready?")
        factories.make_ready(session, waiting)
        batch.closes_at = now()
    return now() + timedelta(seconds=1)


def run_through(database: Database, settings: Settings, at: datetime) -> int:
    taken = 0
    while steps := reconcile(database, settings, at):
        taken += steps
    return taken


def require_one_cycle(database: Database, settings: Settings) -> None:
    """Everything that a finished week leaves behind is there exactly once."""
    with database.read() as session:
        states = {batch.number: batch.state for batch in session.scalars(select(Batch))}
        dataset = session.scalars(select(PreferenceDataset)).one()
        events = Counter(session.scalars(select(AuditEvent.action).where(AuditEvent.action.like("batch.%"))))
        comparisons = Counter(session.scalars(select(Comparison.state)))
        jobs = Counter(session.scalars(select(SamplingJob.state)))
        settled = session.scalar(select(func.count()).select_from(SplitPrompt))
    assert states == {1: BatchState.FROZEN, 2: BatchState.OPEN}
    once = ("batch.closing", "batch.closed", "batch.settled", "batch.frozen", "batch.opened")
    assert events == Counter({"batch.created": 2} | dict.fromkeys(once, 1))
    assert comparisons == {ComparisonState.ANNOTATED: 6, ComparisonState.ABANDONED: 2}
    assert jobs == {WorkState.DONE: 7, WorkState.CANCELLED: 1}
    assert (dataset.name, dataset.rows, settled) == ("batch-001", 6, 3)
    assert [path.name for path in settings.datasets_root.iterdir()] == ["batch-001"]
    assert verify_folder(settings.datasets_root / dataset.name, manifest_sha256=dataset.manifest_sha256) == []


@contextmanager
def killed_at_commit(database: Database, number: int) -> Iterator[None]:
    """The process dies when it would commit for the n-th time: everything is written, nothing is kept."""
    commits = iter(range(number))

    def die(_connection: object) -> None:
        if next(commits, None) is None:
            raise Killed

    event.listen(database.writing, "commit", die)
    try:
        yield
    finally:
        event.remove(database.writing, "commit", die)


@pytest.mark.parametrize("commit", range(COMMITS))
def test_a_crash_in_any_step_is_mended_by_the_next_call(database: Database, settings: Settings, commit: int) -> None:
    at = make_due_week(database)
    with killed_at_commit(database, commit), pytest.raises(Killed):
        run_through(database, settings, at)
    run_through(database, settings, at + LEASE)
    require_one_cycle(database, settings)
    assert run_through(database, settings, at + LEASE) == 0


def test_no_commit_of_the_cycle_was_forgotten(database: Database, settings: Settings) -> None:
    at = make_due_week(database)
    with killed_at_commit(database, COMMITS):
        assert run_through(database, settings, at) == STEPS
    require_one_cycle(database, settings)


def test_processes_at_once_take_each_step_once(database: Database, settings: Settings) -> None:
    at = make_due_week(database)
    together = Barrier(4)

    def one_process() -> int:
        together.wait()
        return run_through(database, settings, at)

    with ThreadPoolExecutor(4) as pool:
        taken = [pool.submit(one_process) for _ in range(4)]
        assert sum(one.result() for one in taken) == STEPS
    require_one_cycle(database, settings)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_real_processes_take_each_step_once(database: Database, settings: Settings) -> None:
    make_due_week(database)
    environment = os.environ | {
        "PREFERABLY_DATABASE_URL": settings.database_url,
        "PREFERABLY_DATA_DIR": str(settings.data_dir),
    }
    command = [sys.executable, "-c", "from app.cli import main; main()", "reconcile"]
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sum(int(output.split()[0]) for output in outputs) == STEPS
    require_one_cycle(database, settings)


def test_a_late_annotation_is_in_the_dataset_or_refused(database: Database, settings: Settings) -> None:
    """Annotators and workers are busy while the week closes: nothing is half done, and nobody waits for ever."""
    with database.write() as session:
        batch = factories.make_open_batch(session, grace_minutes=0)
        people = [factories.make_person(session, f"Ann {number}") for number in range(8)]
        pairs = [
            (
                ann,
                factories.make_comparison(
                    session, factories.make_conversation(session, batch, ann), f"Tea {ann.name}?"
                ),
            )
            for ann in people
        ]
        for _, pair in pairs:
            factories.make_ready(session, pair)
        worker = Worker(
            name="w", hostname="h", engine="e", device="cpu", dtype="float32", can_sample=True, can_train=False
        )
        session.add(worker)
        session.flush()
        drawn = []
        for ann in people:
            conversation = factories.make_conversation(session, batch, ann)
            factories.make_comparison(session, conversation, "Being sampled")
        for job in session.scalars(select(SamplingJob).where(SamplingJob.state == WorkState.QUEUED)):
            leases.hand_out(job, worker.id, at=now(), lease_s=30)
            drawn.append(Lease(job_id=job.id, attempt=1))
        batch.closes_at = now()
    at = now() + timedelta(seconds=1)
    together = Barrier(len(pairs) + 2)

    def judge(ann: Person, pair: Comparison) -> bool:
        together.wait()
        try:
            with database.write() as session:
                person = session.get_one(Person, ann.id)
                held = annotation.locked_held(session, person, pair.id)
                answer = Answer(held.comparison.response(Side.A), Strength.BETTER)
                judging.annotate(session, person, annotation.batch_of(session, held), held, answer, minutes=30)
        except annotation.BatchClosedError:
            return False
        return True

    def report() -> None:
        together.wait()
        terms = leases.LeaseTerms(lease_s=30, max_attempts=3)
        for _ in range(20):
            with database.write() as session:
                handing_out.take_events(session, Events(worker_id=worker.id, leases=tuple(drawn), tokens=()), terms)

    def close() -> int:
        together.wait()
        return run_through(database, settings, at)

    with ThreadPoolExecutor(len(pairs) + 2) as pool:
        reporting, closing = pool.submit(report), pool.submit(close)
        judged = [pool.submit(judge, *pair) for pair in pairs]
        recorded = [one.result() for one in judged]
        reporting.result()
        closing.result()
    with database.read() as session:
        annotated = set(session.scalars(select(Annotation.comparison_id)))
        states = dict(session.execute(select(Comparison.id, Comparison.state)).all())
        rows = session.scalars(select(PreferenceDataset.rows)).one()
    assert annotated == {pair.id for (_, pair), was in zip(pairs, recorded, strict=True) if was}
    assert {key for key, state in states.items() if state is ComparisonState.ANNOTATED} == annotated
    assert set(states.values()) <= {ComparisonState.ANNOTATED, ComparisonState.ABANDONED}
    assert rows == len(annotated)


def close_states(database: Database) -> tuple[BatchState, dict[str, ComparisonState]]:
    with database.read() as session:
        state = session.scalars(select(Batch.state).where(Batch.number == 1)).one()
        return state, dict(session.execute(select(Comparison.prompt, Comparison.state)).all())


def place_of(database: Database, annotator: Person) -> tuple[AssignmentState, datetime | None]:
    with database.read() as session:
        place = session.scalars(select(Assignment).where(Assignment.annotator_id == annotator.id)).one()
        return place.state, place.held_until


def test_stock_that_nobody_holds_keeps_no_batch_open(database: Database, settings: Settings) -> None:
    with database.write() as session:
        batch = factories.make_open_batch(session, grace_minutes=60)
        factories.make_pool_comparison(session, batch, "In stock?")
        factories.make_comparison(session, factories.make_conversation(session, batch, None), "Being sampled?")
        batch.closes_at = now()
    assert run_through(database, settings, now() + timedelta(seconds=1)) == STEPS
    assert close_states(database) == (
        BatchState.FROZEN,
        dict.fromkeys(["In stock?", "Being sampled?"], ComparisonState.ABANDONED),
    )
    with database.read() as session:
        assert set(session.scalars(select(Comparison.open_places))) == {0}
        assert Counter(session.scalars(select(SamplingJob.state))) == {WorkState.DONE: 1, WorkState.CANCELLED: 1}


@pytest.mark.parametrize("is_second_opinion", [False, True], ids=["first", "second"])
def test_what_an_annotator_holds_may_be_finished_within_the_grace_time(
    database: Database, settings: Settings, *, is_second_opinion: bool
) -> None:
    with database.write() as session:
        batch = factories.make_open_batch(session, grace_minutes=60, overlap_share=1.0, overlap_annotations=3)
        ann, bo = factories.make_person(session), factories.make_person(session, "Bo")
        comparison = factories.make_pool_comparison(session, batch, "Held?")
        if is_second_opinion:
            factories.make_annotation(session, comparison, ann)
        comparison.open_places = 1
        until = now() + timedelta(minutes=30)
        session.add(Assignment(comparison_id=comparison.id, annotator_id=bo.id, held_until=until))
        batch.closes_at = now()
    assert run_through(database, settings, now() + timedelta(seconds=1)) == 2
    assert close_states(database)[0] is BatchState.CLOSING
    assert place_of(database, bo) == (AssignmentState.HELD, until)
    assert run_through(database, settings, now() + timedelta(minutes=61)) == 3
    wanted = ComparisonState.ANNOTATED if is_second_opinion else ComparisonState.ABANDONED
    assert close_states(database) == (BatchState.FROZEN, {"Held?": wanted})
    assert place_of(database, bo) == (AssignmentState.GIVEN_BACK, None)
    with database.read() as session:
        assert session.scalars(select(Comparison.open_places)).all() == [0]


def test_prompts_that_nobody_saw_go_back_to_the_pool(database: Database, settings: Settings) -> None:
    texts = ("In stock?", "Sampling failed?", "Skipped?", "Judged?", "Second turn?", "Untouched?")
    with database.write() as session:
        batch = factories.make_open_batch(session, pool_share=1.0, grace_minutes=0)
        ann = factories.make_person(session)
        prompts, _ = read_prompts("\n".join(texts), Tags(Objective.HELPFULNESS), max_characters=100)
        pool.add(session, prompts, source="")
        used = {prompt.turns[0]: prompt for prompt in session.scalars(select(PoolPrompt))}
        made = {}
        for text in texts[:-1]:
            used[text].state, used[text].used_at = PoolPromptState.USED, now()
            conversation = factories.make_conversation(session, batch, None)
            conversation.pool_prompt_id = used[text].id
            made[text] = factories.make_comparison(session, conversation, text)
        made["Sampling failed?"].state = ComparisonState.FAILED
        session.add(Skip(comparison_id=made["Skipped?"].id, annotator_id=ann.id, reason=SkipReason.OTHER))
        for text in ("Judged?", "Second turn?"):
            factories.make_ready(session, made[text])
            factories.make_annotation(session, made[text], ann)
        conversation = session.get_one(Conversation, made["Second turn?"].conversation_id)
        factories.make_comparison(session, conversation, "And then?", turn=2)
        batch.closes_at = now()
    run_through(database, settings, now() + timedelta(seconds=1))
    with database.read() as session:
        states = {prompt.turns[0]: prompt.state for prompt in session.scalars(select(PoolPrompt))}
        event_ = session.scalars(select(AuditEvent).where(AuditEvent.action == "batch.closed")).one()
    waiting = dict.fromkeys(["In stock?", "Sampling failed?", "Untouched?"], PoolPromptState.WAITING)
    assert states == waiting | dict.fromkeys(["Skipped?", "Judged?", "Second turn?"], PoolPromptState.USED)
    assert event_.detail["back_to_the_pool"] == 2


def test_second_opinions_wait_for_no_review(database: Database, settings: Settings) -> None:
    at = make_due_week(database, review_share=1.0)
    with database.write() as session:
        bo = factories.make_person(session, "Bo", PersonRole.REVIEWER)
        cy = factories.make_person(session, "Cy")
        for annotation_ in session.scalars(select(Annotation)).all():
            comparison = session.get_one(Comparison, annotation_.comparison_id)
            factories.make_annotation(session, comparison, cy, is_primary=False)
            session.add(Review(annotation_id=annotation_.id, revision=1, reviewer_id=bo.id, verdict=Verdict.APPROVED))
    assert run_through(database, settings, at) == STEPS
    with database.read() as session:
        assert session.scalars(select(PreferenceDataset.rows)).one() == 6


def test_a_failing_step_does_not_stop_the_others(database: Database, settings: Settings) -> None:
    """The cycle cannot go on, and still places are taken back and the stock is filled."""
    # As the app logs: the tracebacks of a development log read rows whose transaction is over.
    logs.configure()
    at = make_due_week(database)
    settings.datasets_root.parent.mkdir(exist_ok=True)
    settings.datasets_root.write_text("a file is in the way")
    with pytest.raises(NotADirectoryError):
        run_through(database, settings, at)
    with database.write() as session:
        batch = session.scalars(select(Batch).where(Batch.number == 2)).one()
        batch.pool_share = 1.0
        comparison = factories.make_pool_comparison(session, batch)
        comparison.open_places = 0
        place = Assignment(comparison_id=comparison.id, annotator_id=factories.make_person(session, "Bo").id)
        place.held_until = at - timedelta(minutes=1)
        session.add(place)
        prompts, _ = read_prompts("Stock?", Tags(Objective.HELPFULNESS), max_characters=100)
        pool.add(session, prompts, source="")
    look_after(database, settings, at, Event())
    with database.read() as session:
        assert session.scalars(select(PoolPrompt.state)).all() == [PoolPromptState.USED]
        assert session.get_one(Comparison, comparison.id).open_places == 1


def test_a_batch_in_trouble_does_not_keep_the_next_one_back(database: Database, settings: Settings) -> None:
    at = make_due_week(database)
    settings.datasets_root.parent.mkdir(exist_ok=True)
    settings.datasets_root.write_text("a file is in the way")
    for minutes in range(3):
        with pytest.raises(NotADirectoryError):
            run_through(database, settings, at + timedelta(minutes=minutes))
    with database.read() as session:
        states = {batch.number: batch.state for batch in session.scalars(select(Batch))}
    assert states == {1: BatchState.IN_REVIEW, 2: BatchState.OPEN}
    settings.datasets_root.unlink()
    run_through(database, settings, at + timedelta(minutes=10))
    require_one_cycle(database, settings)


@pytest.mark.parametrize("review_share", [0.0, 0.5, 1.0])
def test_a_week_without_annotations_ends_in_an_empty_dataset(
    database: Database, settings: Settings, sign_in: Callable[..., Browser], review_share: float
) -> None:
    with database.write() as session:
        factories.make_open_batch(session, grace_minutes=0, review_share=review_share).closes_at = now()
    assert run_through(database, settings, now() + timedelta(seconds=1)) == STEPS
    page = sign_in(PersonRole.TRAINER).get("/datasets/batch-001").text
    assert "Rows: 0 of 0 comparisons" in page
    assert "There are no rows" in page


def test_the_share_to_review_is_counted_without_rounding_errors(database: Database, settings: Settings) -> None:
    at = make_due_week(database, review_share=0.55)
    with database.write() as session:
        batch = session.scalars(select(Batch)).one()
        ann, bo = factories.make_person(session), factories.make_person(session, "Bo", PersonRole.REVIEWER)
        for number in range(7):
            factories.make_judged(session, batch, ann, f"What is coffee number {number}?", "And how?")
        # 0.55 of 20 is 11, but 11.000000000000002 in floating point.
        judged = session.scalars(select(Annotation).limit(11)).all()
        session.add_all(
            Review(annotation_id=one.id, revision=1, reviewer_id=bo.id, verdict=Verdict.APPROVED) for one in judged[:10]
        )
        last = judged[10].id
    assert run_through(database, settings, at) == STEPS - 2
    with database.write() as session:
        session.add(Review(annotation_id=last, revision=1, reviewer_id=bo.id, verdict=Verdict.APPROVED))
    assert run_through(database, settings, at) == 2


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("late", "closes_at"),
    [
        # The clocks go forward on 28 March 2027: nine o'clock in Berlin is an hour earlier then.
        (timedelta(seconds=2), datetime(2027, 3, 29, 7, 0, tzinfo=UTC)),
        (timedelta(days=3), datetime(2027, 3, 29, 7, 0, tzinfo=UTC)),
        (timedelta(days=30), datetime(2027, 4, 26, 7, 0, tzinfo=UTC)),
    ],
    ids=str,
)
def test_the_next_week_keeps_the_local_times_and_settings(
    database: Database, settings: Settings, late: timedelta, closes_at: datetime
) -> None:
    first_closes_at = datetime(2027, 3, 22, 8, 0, tzinfo=UTC)
    with database.write() as session:
        factories.make_open_batch(
            session,
            opens_at=first_closes_at - timedelta(days=7),
            closes_at=first_closes_at,
            time_zone="Europe/Berlin",
            grace_minutes=45,
            curriculum="Cooking",
        )
    reconcile(database, settings, first_closes_at + late)
    with database.read() as session:
        following = batches.settings_of(session, batches.get(session, 2))
    assert (following.opens_at, following.closes_at) == (first_closes_at + late, closes_at)
    assert (following.grace_minutes, following.curriculum) == (45, "Cooking")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_an_app_without_batches_makes_the_first_and_goes_on(database: Database, settings: Settings) -> None:
    settings = settings.model_copy(update={"reconcile_every_s": 0.01})
    deadline = now() + timedelta(seconds=20)
    with reconciling(database, settings):
        while now() < deadline:
            with database.read() as session:
                if batches.open_batch(session) is not None:
                    break
    with database.read() as session:
        assert [batch.state for batch in session.scalars(select(Batch))] == [BatchState.OPEN]


def test_nothing_is_locked_while_nothing_is_due(database: Database, settings: Settings) -> None:
    with database.write() as session:
        factories.make_open_batch(session)
    writes: list[object] = []
    note = writes.append
    event.listen(database.writing, "commit", note)
    assert reconcile(database, settings, now()) == 0
    event.remove(database.writing, "commit", note)
    assert writes == []
