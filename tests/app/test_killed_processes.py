"""The whole cycle of a scheduled week, by processes that are killed in every step of it: it ends the same."""

import signal
import subprocess
import sys
from collections import Counter
from datetime import datetime, time, timedelta

from sqlalchemy import func, select

from app.batches import schedule, service
from app.batches.schedule import Plan
from app.batches.service import BatchSettings
from app.batches.weeks import Rhythm, Week
from app.database import Database
from app.datasets.verify import verify_folder
from app.models import (
    Annotation,
    AuditEvent,
    Batch,
    BatchState,
    PersonRole,
    PreferenceDataset,
    Review,
    SplitPrompt,
    Verdict,
    now,
)
from app.settings import Settings
from tests import factories

WHEN = Rhythm(0, time(9), "Europe/Berlin")
PROCESSES = 2
ENOUGH = 15
LEASE = timedelta(minutes=2)
"""Rounds; each takes a step, and there are far fewer steps."""


def run_round(settings: Settings, at: datetime, *, commits: int) -> list[int]:
    """Let some processes at once move the week along, each until it is killed or nothing is due."""
    command = [sys.executable, "-m", "tests.app.mortal", settings.database_url, str(settings.data_dir)]
    started = [subprocess.Popen([*command, at.isoformat(), str(commits)]) for _ in range(PROCESSES)]
    return [process.wait(timeout=60) for process in started]


def run_through(settings: Settings, at: datetime) -> int:
    """Go on until nothing is due, and say how many processes died: one in each step, and more if they raced."""
    codes = run_round(settings, at, commits=0)
    for number in range(1, ENOUGH):
        # Each process gets one commit further than those before it, and dies in the next one. The lease of one that
        # died while it wrote a dataset must be over before the next goes on.
        last = run_round(settings, at + number * LEASE, commits=number)
        codes += last
        if not any(last):
            break
    assert set(codes) <= {0, -signal.SIGKILL}
    assert not any(last)
    return codes.count(-signal.SIGKILL)


def make_scheduled_week(database: Database) -> Week:
    """A schedule, and a first batch that waits to open at its time."""
    week = next(WHEN.weeks(now() + timedelta(days=7)))
    template = BatchSettings(week.opens_at, week.closes_at, WHEN.time_zone, grace_minutes=0, review_share=1.0)
    with database.write() as session:
        factories.make_checkpoint(session)
        ada = factories.make_person(session, "Ada", PersonRole.ADMIN)
        schedule.save(session, Plan(WHEN, follows=True, template=template), to_scheduled=False, actor=ada)
        service.create(session, template)
    return week


def judge(database: Database) -> None:
    with database.write() as session:
        batch = service.open_batch(session)
        assert batch is not None
        for number in range(3):
            ann = factories.make_person(session)
            factories.make_judged(session, batch, ann, f"What is tea number {number}?", "And why?")


def approve(database: Database) -> None:
    with database.write() as session:
        rita = factories.make_person(session, "Rita", PersonRole.REVIEWER)
        for annotation in session.scalars(select(Annotation)).all():
            review = Review(annotation_id=annotation.id, revision=1, reviewer_id=rita.id, verdict=Verdict.APPROVED)
            session.add(review)


def test_a_week_survives_a_kill_in_every_step(database: Database, settings: Settings) -> None:
    week = make_scheduled_week(database)
    soon = timedelta(seconds=1)
    assert run_through(settings, week.opens_at - soon) == 0
    deaths = run_through(settings, week.opens_at + soon)
    judge(database)
    deaths += run_through(settings, week.closes_at + soon)
    with database.read() as session:
        assert service.get(session, 1).state is BatchState.IN_REVIEW
    approve(database)
    deaths += run_through(settings, week.closes_at + soon)
    # It opens, stops taking prompts, closes and freezes, and the next one opens.
    assert deaths >= 5
    require_one_cycle(database, settings, week)


def require_one_cycle(database: Database, settings: Settings, week: Week) -> None:
    """Everything that a week leaves behind is there exactly once, and the next one is open at its time."""
    with database.read() as session:
        batches = session.scalars(select(Batch).order_by(Batch.number)).all()
        dataset = session.scalars(select(PreferenceDataset)).one()
        noted = select(AuditEvent.subject, AuditEvent.action).where(AuditEvent.action.like("batch.%"))
        taken = Counter((subject, action) for subject, action in session.execute(noted))
        settled = session.scalar(select(func.count()).select_from(SplitPrompt))
    assert [(batch.number, batch.state) for batch in batches] == [(1, BatchState.FROZEN), (2, BatchState.OPEN)]
    following = next(WHEN.weeks(week.closes_at))
    assert (batches[1].opens_at, batches[1].closes_at) == (following.opens_at, following.closes_at)
    once = ("batch.created", "batch.opened", "batch.closing", "batch.closed", "batch.settled", "batch.frozen")
    for action in once:
        assert taken["batch 1", action] == 1
    assert {action: number for (subject, action), number in taken.items() if subject == "batch 2"} == {
        "batch.created": 1,
        "batch.opened": 1,
    }
    assert (dataset.name, dataset.rows, settled) == ("batch-001", 6, 3)
    assert [path.name for path in settings.datasets_root.iterdir() if not path.name.startswith(".")] == ["batch-001"]
    assert verify_folder(settings.datasets_root / dataset.name, manifest_sha256=dataset.manifest_sha256) == []
