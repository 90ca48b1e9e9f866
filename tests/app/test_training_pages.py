"""The trainer's pages: a run in every state, the form and its mistakes, a reward model's report, roles."""

from collections.abc import Callable
from uuid import UUID

import pytest
from sqlalchemy import select

from app.database import Database
from app.models import PersonRole, TrainingRun, now
from app.training import chart, reports, service
from app.training.forms import RunForm
from app.training.service import RunRequest
from contract.recipe import Recipe
from contract.vocabulary import Objective
from tests.app.test_training import FakeWorker, expire, run_id, worker
from tests.conftest import Browser
from tests.factories import checkpoint_files, make_checkpoint
from tests.training_factories import evaluation_report, make_dataset

__all__ = ["run_id", "worker"]

PARTIAL = {"HX-Request": "true", "HX-Request-Type": "partial"}
RUN = "/training/runs/helpfulness-1"


@pytest.fixture
def trainer(sign_in: Callable[..., Browser]) -> Browser:
    return sign_in(PersonRole.TRAINER)


def page(browser: Browser, path: str) -> str:
    answer = browser.get(path)
    assert answer.status_code == 200, answer.text
    assert " style=" not in answer.text
    return answer.text


def test_an_empty_installation(trainer: Browser) -> None:
    text = page(trainer, "/training")
    assert "No reward model has been trained yet" in text
    assert "There is no frozen dataset yet" in text
    assert trainer.get(RUN).status_code == 404
    assert trainer.get("/training/reward-models/none").status_code == 404


def test_a_run_in_every_state(database: Database, run_id: UUID, worker: FakeWorker, trainer: Browser) -> None:
    text = page(trainer, RUN)
    assert "queued" in text
    assert "A model worker takes it as soon as it is free." in text
    assert "no step yet" in text
    assert 'hx-trigger="every 2s"' in text

    job = worker.claim()
    assert job is not None
    worker.events(job, 1, 2, 3, 4, 5, log="a line of the log\n")
    text = page(trainer, RUN)
    assert "running" in text
    assert "on gpu-1, attempt 1" in text
    assert "step 5 of 20" in text
    assert "a line of the log" in text
    assert "Loss: 0.690 at first, 0.650 at step 5." in text
    assert "Cancel the run" in text
    assert "5 of 20 steps" in page(trainer, "/training")

    expire(database, run_id)
    assert "has not been heard of" in page(trainer, RUN)
    assert "worker silent" in page(trainer, "/training")

    worker.fail(job, "the GPU fell off the bus", is_retryable=True)
    text = page(trainer, RUN)
    assert "came to nothing" in text
    assert "the GPU fell off the bus" in text
    job = worker.claim()
    assert job is not None
    worker.fail(job, "<b>no memory</b>", is_retryable=False)
    text = page(trainer, RUN)
    assert "The run failed." in text
    assert "&lt;b&gt;no memory&lt;/b&gt;" in text
    assert "hx-trigger" not in text

    assert trainer.post(f"{RUN}/retry").status_code == 303
    job = worker.claim()
    assert job is not None
    worker.events(job, *range(1, 21))
    assert worker.finish(job).status_code == 204
    text = page(trainer, RUN)
    assert 'href="/training/reward-models/helpfulness-1"' in text
    assert "step 20 of 20" in text
    text = page(trainer, "/training")
    assert "batch-1: 70.0 % (n = 100)" in text
    assert "hx-trigger" not in text


def test_a_cancelled_run(run_id: UUID, trainer: Browser) -> None:
    assert trainer.post(f"{RUN}/cancel").status_code == 303
    text = page(trainer, RUN)
    assert "cancelled" in text
    assert "Try again" in text
    assert "No model worker that can train has ever registered" not in text
    trainer.post(f"{RUN}/retry")
    assert "No model worker that can train has ever registered" in page(trainer, RUN)
    del run_id


def test_a_page_that_follows_a_run_gets_its_block_and_stops_when_it_ends(
    run_id: UUID, worker: FakeWorker, trainer: Browser
) -> None:
    job = worker.claim()
    assert job is not None
    answer = trainer.get(RUN, headers=PARTIAL)
    assert "<html" not in answer.text
    assert answer.text.strip().startswith('<section id="run"')
    assert "HX-Refresh" not in answer.headers
    listing = trainer.get("/training", headers=PARTIAL)
    assert listing.text.strip().startswith('<section id="runs"')
    worker.finish(job)
    assert trainer.get(RUN, headers=PARTIAL).headers["HX-Refresh"] == "true"
    assert trainer.get("/training", headers=PARTIAL).headers["HX-Refresh"] == "true"
    assert "HX-Refresh" not in trainer.get(RUN).headers
    del run_id


def test_the_form_queues_a_run(database: Database, trainer: Browser) -> None:
    with database.write() as session:
        checkpoint = make_checkpoint(session)
        first = make_dataset(session, rows=3000)
        second = make_dataset(session, rows=100)
    text = page(trainer, "/training")
    assert "3000 helpfulness" in text
    assert text.count("checked") == 2
    form = {
        "name": "rm-v1",
        "objective": "helpfulness",
        "datasets": [str(first.id), str(second.id)],
        "checkpoint": str(checkpoint.id),
        "margin_scheme": "large",
        "safety_loss_weight": "0.5",
        "learning_rate": "5e-6",
        "epochs": "2",
        "pairs_per_step": "64",
        "pairs_per_minibatch": "4",
        "seed": "7",
    }
    answer = trainer.post("/training/runs", form)
    assert (answer.status_code, answer.headers["location"]) == (303, "/training/runs/rm-v1")
    with database.read() as session:
        run = session.scalars(select(TrainingRun)).one()
    assert run.created_by == trainer.person.id
    assert Recipe.model_validate(run.recipe) == Recipe.model_validate(
        {
            "objective": "helpfulness",
            "margin_scheme": "large",
            "safety_loss_weight": 0.5,
            "learning_rate": 5e-6,
            "epochs": 2,
            "pairs_per_step": 64,
            "pairs_per_minibatch": 4,
            "seed": 7,
        }
    )
    again = trainer.post("/training/runs", form)
    assert again.status_code == 422
    assert "there is a training run called rm-v1 already" in again.text


def test_the_shortest_form_takes_the_paper_as_far_as_the_data_goes(database: Database, trainer: Browser) -> None:
    with database.write() as session:
        make_checkpoint(session)
        dataset = make_dataset(session, rows=200)
    form = {"objective": "helpfulness", "datasets": [str(dataset.id)]}
    for number in (1, 2):
        answer = trainer.post("/training/runs", form)
        assert answer.headers["location"] == f"/training/runs/helpfulness-{number}"
    text = page(trainer, RUN)
    assert "10 per step make 20 optimiser steps; the paper&#39;s 512 would make 1." in text


@pytest.mark.parametrize(
    ("field", "typed", "message"),
    [
        ("datasets", ["nonsense"], "must be a valid UUID"),
        ("objective", "wit", "must be 'helpfulness' or 'safety'."),
        ("learning_rate", "fast", "must be a valid number."),
        ("learning_rate", "-1", "must be greater than 0."),
        ("learning_rate", "nan", "must be a finite number."),
        ("epochs", "0", "must be greater than or equal to 1."),
        ("epochs", "1.5", "must be a valid integer."),
        ("pairs_per_step", "0", "must be greater than or equal to 1."),
        ("pairs_per_minibatch", "x", "must be a valid integer."),
        ("safety_loss_weight", "inf", "must be a finite number."),
        ("margin_scheme", "huge", "must be 'none', 'small' or 'large'."),
        ("seed", "-3", "must be greater than or equal to 0."),
        ("checkpoint", "newest", "must be a valid UUID"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_mistake_is_named(field: str, typed: str | list[str], message: str) -> None:
    request, problems = RunForm().model_copy(update={field: typed}).read()
    assert request is None
    assert problems.keys() == {field}
    assert message in problems[field]


def test_mistakes_are_shown_with_what_was_typed(database: Database, trainer: Browser) -> None:
    with database.write() as session:
        make_checkpoint(session)
        make_dataset(session)
    wrong = {"learning_rate": "fast", "epochs": "0", "seed": "&"}
    answer = trainer.post("/training/runs", {"name": "my-model", "objective": "helpfulness"} | wrong)
    assert answer.status_code == 422
    assert "Nothing was saved" in answer.text
    assert answer.text.count('aria-invalid="true"') == 3
    for typed in ('value="my-model"', 'value="fast"', 'value="0"', 'value="&amp;"'):
        assert typed in answer.text
    named = trainer.post("/training/runs", {"name": "../etc/passwd", "objective": "safety"})
    assert named.status_code == 422
    assert "letters, digits, dots, dashes" in named.text
    assert "choose at least one frozen dataset" in named.text
    with database.read() as session:
        assert session.scalars(select(TrainingRun)).all() == []


def test_a_dataset_without_the_objective_is_refused(database: Database, trainer: Browser) -> None:
    with database.write() as session:
        make_checkpoint(session)
        dataset = make_dataset(session)
    answer = trainer.post("/training/runs", {"objective": "safety", "datasets": [str(dataset.id)]})
    assert answer.status_code == 422
    assert "none of these holds training comparisons for safety" in answer.text
    assert "checked" in answer.text


def test_two_versions_of_one_batch_and_a_missing_checkpoint_are_refused(database: Database, trainer: Browser) -> None:
    with database.write() as session:
        dataset = make_dataset(session)
        corrected = make_dataset(session, parent=dataset)
    assert page(trainer, "/training").count("checked") == 1
    form = {"objective": "helpfulness", "datasets": [str(dataset.id), str(corrected.id)]}
    answer = trainer.post("/training/runs", form)
    assert "batch-1 and batch-1-v2 are versions of the same batch" in answer.text
    assert "no chat checkpoint is promoted yet" in answer.text


def test_a_reward_model_says_what_it_got_right(run_id: UUID, worker: FakeWorker, trainer: Browser) -> None:
    job = worker.claim()
    assert job is not None
    evaluations = (evaluation_report("batch-1", correct=52, longer=60, safety=True), evaluation_report("batch-2"))
    assert worker.finish(job, evaluations=evaluations, path="/models/my models/rm").status_code == 204
    text = page(trainer, "/training/reward-models/helpfulness-1")
    assert "no better than always preferring the longer response (52.0 % against 60.0 %, n = 100)" in text
    assert "significantly better" in text
    assert "42.0 to 62.0 %" in text
    assert "both unsafe" in text
    assert "baseline: the one shown as A wins" in text
    assert "preferably-worker score &#39;/models/my models/rm&#39; --file responses.jsonl" in text
    assert "d" * 64 in text
    assert checkpoint_files().digest in text
    assert "Learning rate" in text
    del run_id


def test_the_length_verdict() -> None:
    def verdict(correct: int, longer: int) -> str:
        return reports.length_verdict(evaluation_report("batch-1", correct=correct, longer=longer))

    assert "no better than" in verdict(60, 60)
    assert "cannot be told apart" in verdict(65, 60)
    assert verdict(75, 60) == ""


def test_a_chart_stays_inside_its_frame() -> None:
    empty = chart.line_chart("Loss", [], total_steps=0)
    assert (empty.points, empty.last, empty.summary) == ("", None, "Loss: no step yet.")
    flat = chart.line_chart("Loss", [(1, 0.5)], total_steps=1)
    assert flat.last is not None
    curve = chart.line_chart("Loss", [(step, 9.0 / step) for step in range(1, 101)], total_steps=100)
    places = [tuple(map(float, place.split(","))) for place in curve.points.split()]
    assert all(curve.left <= x <= curve.right and 0 <= y <= curve.bottom for x, y in places)
    assert places == sorted(places)
    assert [tick.label for tick in curve.columns] == ["0", "50", "100"]
    assert 3 <= len(curve.rows) <= 6
    capped = chart.line_chart("Accuracy", [(1, 7.0)], total_steps=2, bounds=(0, 1))
    assert capped.last == (capped.left + (capped.right - capped.left) / 2, 10)


def test_a_long_run_is_averaged_into_a_few_points(database: Database, run_id: UUID, worker: FakeWorker) -> None:
    job = worker.claim()
    assert job is not None
    worker.events(job, *range(1, 21))
    with database.read() as session:
        run = session.get_one(TrainingRun, run_id)
        points = service.queries.curve(session, run, stride=5)
    assert [point.step for point in points] == [3, 8, 13, 18]
    assert points[0].loss == pytest.approx(0.7 - 0.03)


@pytest.mark.parametrize("role", [PersonRole.ANNOTATOR, PersonRole.REVIEWER], ids=str)
def test_others_may_not_look(sign_in: Callable[..., Browser], role: PersonRole) -> None:
    browser = sign_in(role)
    for path in ("/training", RUN, "/training/reward-models/x"):
        assert browser.get(path).status_code == 403
    for path in ("/training/runs", f"{RUN}/cancel", f"{RUN}/retry"):
        assert browser.post(path).status_code == 403


def test_an_admin_may(sign_in: Callable[..., Browser], database: Database) -> None:
    with database.write() as session:
        make_checkpoint(session)
        dataset = make_dataset(session)
        service.queue_run(session, RunRequest(recipe=Recipe(objective=Objective.HELPFULNESS), dataset_ids=[dataset.id]))
    text = page(sign_in(PersonRole.ADMIN), RUN)
    assert "make only 1 optimiser step, 1 of them warm-up" in text
    assert now().strftime("%Y") in text
