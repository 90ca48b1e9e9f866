"""What the trainer's pages show, gathered from queries and put into words."""

import shlex
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from app.checkpoints import service as checkpoints
from app.models import (
    Evaluation,
    PreferenceDataset,
    RewardModel,
    TrainingPoint,
    TrainingRun,
    WorkState,
    now,
)
from app.sampling import overview
from app.training import plan, queries, reports, service
from app.training.chart import Chart, line_chart
from app.training.forms import RunForm
from app.training.reports import AccuracyRow
from app.web.templating import Page
from contract.recipe import Recipe
from contract.training import EvaluationReport
from contract.vocabulary import MARGINS, MarginScheme, Objective

_CURVE_POINTS = 300
_LOG_LINES = 60
_MINUTE_S = 60
_HOUR_S = 3600


@dataclass(frozen=True)
class RunRow:
    """A run in the list."""

    run: TrainingRun
    step: int
    total_steps: int
    is_lost: bool


@dataclass(frozen=True)
class ModelRow:
    """A reward model in the list, with its accuracy on each held-out split."""

    reward_model: RewardModel
    accuracies: list[tuple[str, AccuracyRow]]


@dataclass(frozen=True)
class DatasetChoice:
    """A dataset that can be ticked."""

    dataset: PreferenceDataset
    pairs: dict[str, int]
    """Training comparisons by objective."""
    is_newest: bool
    """Whether no later version corrects it."""
    is_ticked: bool


@dataclass(frozen=True, kw_only=True)
class TrainingPage(Page):
    """All runs and reward models, and the form that queues a run."""

    title: str = "Training"
    runs: list[RunRow]
    models: list[ModelRow]
    choices: list[DatasetChoice]
    form: RunForm
    problems: dict[str, str]
    objective_options: list[tuple[str, str]]
    checkpoint_options: list[tuple[str, str]]
    scheme_options: list[tuple[str, str]]
    is_form_open: bool
    is_active: bool
    """Whether a run is queued or running, so that the page keeps itself fresh."""


@dataclass(frozen=True, kw_only=True)
class RunPage(Page):
    """One run, as it goes."""

    run: TrainingRun
    recipe: Recipe
    worker: str
    state: str
    pairs: int
    note: str
    latest: TrainingPoint | None
    progress: float
    time_left: str
    charts: list[Chart]
    log: str
    waits_for: str
    reward_model: RewardModel | None
    is_active: bool
    can_retry: bool


@dataclass(frozen=True)
class ReportView:
    """One evaluation report as tables."""

    report: EvaluationReport
    rows: list[AccuracyRow]
    verdict: str


@dataclass(frozen=True, kw_only=True)
class RewardModelPage(Page):
    """One reward model: what it gets right, what made it, how to use it."""

    reward_model: RewardModel
    run: TrainingRun
    recipe: dict[str, Any]
    reports: list[ReportView]
    commands: list[str]


def training_page(
    session: Session, form: RunForm | None = None, problems: dict[str, str] | None = None
) -> TrainingPage:
    """All runs and reward models; with a form that was refused, that form again."""
    runs = queries.runs(session)
    progress = queries.progress(session)
    reward_models = queries.reward_models(session)
    evaluations = queries.evaluations(session, [reward_model.id for reward_model in reward_models])
    at = now()
    return TrainingPage(
        runs=[RunRow(run, *progress.get(run.id, (0, 0)), is_lost=_is_lost(run, at)) for run in runs],
        models=[ModelRow(reward_model, _accuracies(reward_model.id, evaluations)) for reward_model in reward_models],
        choices=_choices(session, form),
        form=form or RunForm(),
        problems=problems or {},
        objective_options=[(objective.value, objective.value) for objective in Objective],
        checkpoint_options=_checkpoint_options(session),
        scheme_options=[(scheme.value, _scheme_words(scheme)) for scheme in MarginScheme],
        is_form_open=bool(problems) or not runs,
        is_active=any(_is_active(run) for run in runs),
    )


def run_page(session: Session, run: TrainingRun) -> RunPage:
    """One run as it stands."""
    recipe = Recipe.model_validate(run.recipe)
    pairs = plan.training_pairs(service.manifests_of(run.datasets), run.objective)
    latest = queries.latest_point(session, run)
    total = latest.total_steps if latest is not None else plan.count_steps(pairs, recipe)
    curve = queries.curve(session, run, stride=max(1, total // _CURVE_POINTS))
    worker = queries.worker_of(session, run)
    return RunPage(
        title=run.name,
        run=run,
        recipe=recipe,
        worker=worker.name if worker is not None else "",
        state="lost" if _is_lost(run, now()) else run.state,
        pairs=pairs,
        note=plan.step_note(pairs, recipe),
        latest=latest,
        progress=latest.step / latest.total_steps if latest is not None else 0.0,
        time_left=_time_left(latest) if run.state is WorkState.LEASED else "",
        charts=[
            line_chart("Loss", [(point.step, point.loss) for point in curve], total_steps=total),
            line_chart(
                "Accuracy", [(point.step, point.accuracy) for point in curve], total_steps=total, bounds=(0.0, 1.0)
            ),
        ],
        log="\n".join(run.log.splitlines()[-_LOG_LINES:]),
        waits_for=_waits_for(session, run),
        reward_model=queries.reward_model_by_name(session, run.name) if run.state is WorkState.DONE else None,
        is_active=_is_active(run),
        can_retry=run.state in {WorkState.FAILED, WorkState.CANCELLED},
    )


def reward_model_page(session: Session, reward_model: RewardModel) -> RewardModelPage:
    """One reward model with its reports."""
    evaluations = queries.evaluations(session, [reward_model.id])
    views = [EvaluationReport.model_validate(evaluation.report) for evaluation in evaluations]
    run = queries.run_by_id(session, reward_model.run_id)
    return RewardModelPage(
        title=reward_model.name,
        reward_model=reward_model,
        run=run,
        recipe=Recipe.model_validate(run.recipe).model_dump(mode="json"),
        reports=[ReportView(report, reports.table(report), reports.length_verdict(report)) for report in views],
        commands=[
            f"preferably-worker score {shlex.quote(reward_model.path)} --file responses.jsonl",
            f'preferably-worker score {shlex.quote(reward_model.path)} --prompt "..." --response "..."',
        ],
    )


def _checkpoint_options(session: Session) -> list[tuple[str, str]]:
    current = checkpoints.current(session)
    named = [(str(checkpoint.id), checkpoint.name) for checkpoint in checkpoints.all_checkpoints(session)]
    return [("", f"the current one: {current.name}" if current is not None else "none is promoted yet"), *named]


def _scheme_words(scheme: MarginScheme) -> str:
    """A margin scheme with its margins, the strongest preference's first."""
    return f"{scheme}: {', '.join(f'{margin:.3g}' for margin in MARGINS[scheme].values())}"


def _is_active(run: TrainingRun) -> bool:
    return run.state in {WorkState.QUEUED, WorkState.LEASED}


def _is_lost(run: TrainingRun, at: datetime) -> bool:
    return run.state is WorkState.LEASED and run.lease_until is not None and run.lease_until < at


def _accuracies(reward_model_id: UUID, evaluations: list[Evaluation]) -> list[tuple[str, AccuracyRow]]:
    """Accuracy on each held-out split, of the trained model and not of its predecessor."""
    reports_ = [
        EvaluationReport.model_validate(evaluation.report)
        for evaluation in evaluations
        if evaluation.reward_model_id == reward_model_id and evaluation.kind != "before_training"
    ]
    return [(report.dataset, reports.accuracy_row(report.overall)) for report in reports_]


def _choices(session: Session, form: RunForm | None) -> list[DatasetChoice]:
    datasets = queries.datasets(session)
    corrected = {dataset.parent_id for dataset in datasets}
    choices = []
    for dataset, manifest in zip(datasets, service.manifests_of(datasets), strict=True):
        is_newest = dataset.id not in corrected
        choices.append(
            DatasetChoice(
                dataset=dataset,
                pairs={objective.value: plan.training_pairs([manifest], objective) for objective in Objective},
                is_newest=is_newest,
                is_ticked=is_newest if form is None else str(dataset.id) in form.datasets,
            )
        )
    return choices


def _waits_for(session: Session, run: TrainingRun) -> str:
    """Why a queued run is not running yet."""
    if run.state is not WorkState.QUEUED:
        return ""
    trainers = [worker for worker in overview.workers(session) if worker.can_train]
    if not trainers:
        return "No model worker that can train has ever registered. Start one: preferably-worker run --train."
    if not any(run.checkpoint.digest in worker.checkpoints for worker in trainers):
        return f"No model worker that can train holds the checkpoint {run.checkpoint.name}."
    return "A model worker takes it as soon as it is free."


def _time_left(latest: TrainingPoint | None) -> str:
    """How long a run may still take, roughly."""
    if latest is None or not latest.step or not latest.elapsed_s:
        return ""
    seconds = latest.elapsed_s / latest.step * (latest.total_steps - latest.step)
    if seconds < _MINUTE_S:
        return "less than a minute left"
    if seconds < _HOUR_S:
        return f"about {round(seconds / _MINUTE_S)} min left"
    return f"about {seconds / _HOUR_S:.1f} h left"
