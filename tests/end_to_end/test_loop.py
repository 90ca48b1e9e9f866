"""The whole loop, once, with real processes: prompts, pairs, judgements, a frozen dataset, a reward model.

Simulated annotators have a known preference with noise (app/simulation/preference.py). A worker is killed with
-9 in the middle of it and a second one goes on. At the end the reward model must have learned the preference.
"""

import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

import pytest
from sqlalchemy import func, select

from app.batches import service as batches
from app.models import (
    Annotation,
    AnnotationRevision,
    BatchState,
    Comparison,
    ComparisonState,
    Evaluation,
    PersonRole,
    PreferenceDataset,
    Response,
    SamplingJob,
    TrainingRun,
    Worker,
    WorkState,
)
from app.training import service as training
from app.training.service import RunRequest
from contract.dataset import Manifest
from contract.recipe import Recipe
from contract.training import EvaluationReport
from contract.vocabulary import LeftOut, Objective, Split
from model_worker.demo.tiny import make_tiny_checkpoint
from tests.end_to_end.installation import LEASE_S, Installation, installed, short_prompts, wait_for
from tests.factories import make_person

# One process runs all of them: they share the fixture, which is the whole loop.
pytestmark = pytest.mark.xdist_group("end_to_end")

COMPARISONS = 480
ANNOTATORS = 6
KILL_AFTER = 60
NOISE = 0.1
# The tiny checkpoint is small and random, so it needs more steps than the paper's recipe has.
RECIPE = Recipe(
    objective=Objective.HELPFULNESS, epochs=8, learning_rate=1e-3, pairs_per_step=16, pairs_per_minibatch=16
)


@dataclass(frozen=True)
class Loop:
    """What one turn of the loop left behind."""

    installation: Installation
    killed: str
    """The worker that was killed."""
    held_at_kill: frozenset[UUID]
    """The jobs that it held then."""
    simulation: str
    """What the simulator printed."""


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """Run the loop, from an empty database to a trained reward model."""
    folder = tmp_path_factory.mktemp("loop")
    checkpoint = make_tiny_checkpoint(folder / "tiny")
    targets = {Objective.HELPFULNESS: 456, Objective.SAFETY: 24}
    with installed(folder, checkpoint, targets) as installation:
        installation.start_app()
        first = installation.start_worker("first")
        prompts = short_prompts(folder / "prompts.jsonl", 2 * COMPARISONS)
        simulation = installation.start_command(
            *("simulate", "simulate", "--url", installation.url, "--prompts", str(prompts)),
            *("--annotators", str(ANNOTATORS), "--comparisons", str(COMPARISONS), "--turns", "2"),
            *("--noise", str(NOISE), "--safety-share", "0.05", "--patience-s", "40"),
        )
        log = installation.folder / "simulate.log"
        wait_for(lambda: count_annotations(installation) >= KILL_AFTER, "annotations", seconds=60, log=log)
        held = kill_while_sampling(installation, first)
        installation.start_worker("second")
        wait_for(lambda: simulation.poll() is not None, "the simulation", seconds=180, log=log)
        assert simulation.returncode == 0, installation.log("simulate")
        close_and_freeze(installation)
        train(installation)
        yield Loop(installation, "first", held, installation.log("simulate"))


def test_every_comparison_has_one_pair_and_one_annotation(loop: Loop) -> None:
    with loop.installation.database.read() as session:
        states = Counter(session.scalars(select(Comparison.state)))
        assert states[ComparisonState.ANNOTATED] == COMPARISONS
        assert not states.keys() - {ComparisonState.ANNOTATED, ComparisonState.EQUAL_RESPONSES}
        per_comparison = session.execute(select(func.count(Response.id)).group_by(Response.comparison_id)).scalars()
        assert set(per_comparison) == {2}
        for table in (Annotation, AnnotationRevision):
            assert session.scalar(select(func.count()).select_from(table)) == COMPARISONS


def test_a_killed_worker_loses_and_doubles_nothing(loop: Loop) -> None:
    """Its leased jobs expire and are drawn anew by the second worker; whole pairs come from one hand-out."""
    assert loop.held_at_kill
    with loop.installation.database.read() as session:
        workers = {worker.id: worker.name for worker in session.scalars(select(Worker))}
        assert set(workers.values()) == {"first", "second"}
        jobs = list(session.scalars(select(SamplingJob)))
        assert {job.state for job in jobs} == {WorkState.DONE}
        handed_on = [job for job in jobs if job.id in loop.held_at_kill]
        assert all(job.failures and job.attempt > 1 for job in handed_on)
        assert {workers[job.worker_id] for job in handed_on if job.worker_id} == {"second"}
        by_comparison: dict[object, set[object]] = {}
        for response in session.scalars(select(Response)):
            by_comparison.setdefault(response.comparison_id, set()).add((response.worker_id, response.attempt))
        assert {len(hand_outs) for hand_outs in by_comparison.values()} == {1}


def test_the_dataset_has_every_comparison_or_its_reason(loop: Loop) -> None:
    with loop.installation.database.read() as session:
        dataset = session.scalars(select(PreferenceDataset)).one()
    manifest = Manifest.model_validate(dataset.manifest)
    assert manifest.rows + sum(manifest.left_out.values()) == manifest.comparisons >= COMPARISONS
    reasons = {reason for reason, count in manifest.left_out.items() if count}
    assert reasons <= {LeftOut.CHOSEN_UNSAFE_REJECTED_SAFE, LeftOut.EQUAL_RESPONSES}
    helpful = {row.split: row.rows for row in manifest.counts if row.objective is Objective.HELPFULNESS}
    assert helpful[Split.TEST] == pytest.approx(sum(helpful.values()) / 3, rel=0.1)


def test_the_reward_model_has_learned_the_preference(loop: Loop, capsys: pytest.CaptureFixture[str]) -> None:
    """Held-out accuracy is above chance by more than two standard errors.

    About 155 helpfulness comparisons are held out, so the standard error of a share near one half is 4 points: the
    accuracy must be above 58 %, which chance reaches once in 44 runs. Training on five random draws of 320 such
    comparisons gave 72.6 % on average (68.1 to 75.0 %): two and a half to four standard errors above the bound.
    The ceiling, the accuracy of the hidden preference itself at this noise, is 96 %.
    """
    with loop.installation.database.read() as session:
        stored = session.scalars(select(Evaluation).where(Evaluation.kind == "after_training")).one()
    report = EvaluationReport.model_validate(stored.report)
    with capsys.disabled():
        print(f"\n{loop.simulation.strip()}\nheld-out accuracy of the reward model (n, accuracy, 95 % interval):")  # noqa: T201 - part of the report
        for cell in (report.overall, *report.by_strength, report.longer_wins, report.a_wins):
            if cell.accuracy is not None:
                print(f"  {cell.name:30} {cell.n:4} {cell.accuracy:6.1%}  {cell.low:.1%} to {cell.high:.1%}")  # noqa: T201
    assert report.overall.n >= 140
    assert report.overall.accuracy is not None
    standard_error = (0.25 / report.overall.n) ** 0.5
    assert report.overall.accuracy > 0.5 + 2 * standard_error


def count_annotations(installation: Installation) -> int:
    with installation.database.read() as session:
        return session.scalar(select(func.count(Annotation.id))) or 0


def kill_while_sampling(installation: Installation, worker: subprocess.Popen[bytes]) -> frozenset[UUID]:
    """Kill a worker that holds work, and say which jobs it held.

    It is halted first: it could deliver its jobs between the look at them and the kill.
    """

    def held() -> frozenset[UUID]:
        with installation.database.read() as session:
            return frozenset(session.scalars(select(SamplingJob.id).where(SamplingJob.state == WorkState.LEASED)))

    def halts_with_work() -> bool:
        worker.send_signal(signal.SIGSTOP)
        # What it had sent before may still be arriving; nothing is handed on before a lease is over.
        time.sleep(LEASE_S / 6)
        if held():
            return True
        worker.send_signal(signal.SIGCONT)
        return False

    wait_for(halts_with_work, "work under way", seconds=30)
    jobs = held()
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    return jobs


def close_and_freeze(installation: Installation) -> None:
    with installation.database.write() as session:
        admin = make_person(session, "Ada", PersonRole.ADMIN)
        batches.close_now(session, batches.get(session, 1), wait_for_running=True, actor=admin)
    installation.reconcile()
    with installation.database.read() as session:
        assert batches.get(session, 1).state is BatchState.FROZEN


def train(installation: Installation) -> None:
    """Queue a run and wait until the worker has trained it."""
    with installation.database.write() as session:
        dataset = session.scalars(select(PreferenceDataset)).one()
        name = training.queue_run(session, RunRequest(recipe=RECIPE, dataset_ids=[dataset.id])).name

    def state() -> WorkState:
        with installation.database.read() as session:
            return session.scalars(select(TrainingRun.state).where(TrainingRun.name == name)).one()

    log = installation.folder / "second.log"
    wait_for(lambda: state() not in {WorkState.QUEUED, WorkState.LEASED}, "training", seconds=120, log=log)
    assert state() is WorkState.DONE, installation.log("second")[-3000:]
