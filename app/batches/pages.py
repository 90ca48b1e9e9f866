"""What the admin's batch pages show, gathered from queries and services."""

from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from sqlalchemy.orm import Session

from app.batches import guidelines, history, queries, schedule, service
from app.batches.forms import BatchForm, GuidelineForm, VariantText
from app.batches.history import Happening
from app.batches.local_time import time_zones
from app.batches.queries import Progress
from app.batches.service import BatchSettings
from app.batches.variant_rows import VariantRows, variant_rows
from app.insights import service as insights
from app.insights.service import BatchInsights
from app.models import Batch, BatchState, Freeze, Guideline, PreferenceDataset, now
from app.sampling import overview
from app.sampling.overview import QueueView, WorkerView
from app.web.templating import Page
from contract.vocabulary import Generation, Objective

SPARE_VARIANT = VariantText(generation=Generation.NEWEST.value, temperature="", top_p="", top_k="", weight="")
_STATE_WORDS = {
    BatchState.SCHEDULED: "scheduled",
    BatchState.OPEN: "open",
    BatchState.CLOSING: "closing: comparisons that are running may be finished",
    BatchState.IN_REVIEW: "in review",
    BatchState.FROZEN: "frozen",
}


@dataclass(frozen=True)
class BatchRow:
    """A batch in a list."""

    batch: Batch
    state: str
    progress: list[Progress]
    dataset: str
    """The name of its newest dataset, or nothing."""


@dataclass(frozen=True, kw_only=True)
class WeekPage(Page):
    """How collecting goes right now."""

    title: str = "This week"
    batch: Batch | None
    state: str
    is_open: bool
    progress: list[Progress]
    comparisons: list[tuple[str, int]]
    pool: list[tuple[Objective, int]]
    """The prompts that wait in the pool, where the batch uses it."""
    dry: list[Objective]
    """The objectives that the batch collects and the pool has no prompt for."""
    variants: VariantRows
    others: list[BatchRow]
    queue: QueueView
    queue_counts: list[tuple[str, int]]
    oldest_waiting: str
    workers: list[WorkerView]
    today: list[tuple[str, int]]


@dataclass(frozen=True, kw_only=True)
class BatchPage(Page):
    """Everything about one batch, with its settings as a form while they can be changed."""

    batch: Batch
    state: str
    settings: BatchSettings
    can_change: bool
    is_open: bool
    progress: list[Progress]
    comparisons: list[tuple[str, int]]
    variants: VariantRows
    form: BatchForm
    rows: list[VariantText]
    """The rows of the form's table of variants, with a spare one."""
    problems: dict[str, str]
    time_zones: tuple[str, ...]
    dates: list[tuple[str, datetime]]
    datasets: list[PreferenceDataset]
    writing: Freeze | None
    """The dataset that is on its way."""
    history: list[Happening]


@dataclass(frozen=True, kw_only=True)
class StatisticsPage(Page):
    """The statistics of one batch: counted on their own, since a batch may hold 250,000 comparisons."""

    batch: Batch
    insights: BatchInsights


@dataclass(frozen=True, kw_only=True)
class ClosePage(Page):
    """Asks before the week is closed."""

    batch: Batch
    running: int
    next_opens: datetime | None
    """When the batch after it opens, where one follows by itself."""


@dataclass(frozen=True)
class GuidelineView:
    """The guideline of an objective: its versions, and what the form holds."""

    objective: Objective
    versions: list[Guideline]
    current_text: str
    typed: str


@dataclass(frozen=True, kw_only=True)
class GuidelinesPage(Page):
    """The guidelines with their history."""

    title: str = "Guidelines"
    guidelines: list[GuidelineView]
    problems: dict[str, str]


def week_page(session: Session, *, lease_s: float) -> WeekPage:
    """How collecting goes right now."""
    at = now()
    unfinished = queries.in_states(session, [state for state in BatchState if state is not BatchState.FROZEN])
    batch = next((one for one in unfinished if one.state is BatchState.OPEN), None) or next(
        (one for one in unfinished if one.state is BatchState.SCHEDULED), None
    )
    queue = overview.queue(session, at=at)
    pool = _pool(session, batch) if batch is not None and batch.pool_share else []
    return WeekPage(
        batch=batch,
        state=state_words(batch, at) if batch is not None else "",
        is_open=batch is not None and batch.state is BatchState.OPEN and batch.closes_at > at,
        progress=queries.progress(session, batch.id) if batch is not None else [],
        comparisons=_comparisons(session, batch) if batch is not None else [],
        pool=pool,
        dry=[objective for objective, count in pool if not count],
        variants=variant_rows(session, batch) if batch is not None else VariantRows([]),
        others=batch_rows(session, [one for one in unfinished if one is not batch], at),
        queue=queue,
        queue_counts=[(state.value, count) for state, count in queue.by_state.items()],
        oldest_waiting=_duration(queue.oldest_waiting_s) if queue.oldest_waiting_s is not None else "",
        workers=overview.worker_views(session, at=at, lease_s=lease_s),
        today=insights.counts_since(session, _midnight(at, batch.time_zone if batch is not None else "UTC")),
    )


def batch_page(
    session: Session, batch: Batch, form: BatchForm | None = None, problems: dict[str, str] | None = None
) -> BatchPage:
    """Everything about one batch; with a form that was refused, that form again."""
    at = now()
    settings = service.settings_of(session, batch)
    form = form or BatchForm.of(settings)
    moments = {
        "opens": batch.opens_at,
        "closes": batch.closes_at,
        "opened": batch.opened_at,
        "stopped taking prompts": batch.closing_at,
        "closed": batch.closed_at,
        "frozen": batch.frozen_at,
    }
    return BatchPage(
        title=f"Batch {batch.number}",
        batch=batch,
        state=state_words(batch, at),
        settings=settings,
        can_change=batch.state in {BatchState.SCHEDULED, BatchState.OPEN},
        is_open=batch.state is BatchState.OPEN and batch.closes_at > at,
        progress=queries.progress(session, batch.id),
        comparisons=_comparisons(session, batch),
        variants=variant_rows(session, batch),
        form=form,
        rows=[*form.rows(), SPARE_VARIANT],
        problems=problems or {},
        time_zones=time_zones(),
        dates=[(words, moment) for words, moment in moments.items() if moment is not None],
        datasets=queries.datasets(session, batch.id),
        writing=queries.freeze_of(session, batch.id),
        history=history.of_batch(session, batch),
    )


def statistics_page(session: Session, batch: Batch) -> StatisticsPage:
    """The statistics of one batch."""
    return StatisticsPage(
        title=f"Statistics of batch {batch.number}", batch=batch, insights=insights.batch_insights(session, batch)
    )


def close_page(session: Session, batch: Batch) -> ClosePage:
    """Asks before the week is closed."""
    running = queries.count_held_places(session, batch.id)
    return ClosePage(
        title=f"Close batch {batch.number}",
        batch=batch,
        running=running,
        next_opens=schedule.next_opens_at(session, batch, at=now()),
    )


def guidelines_page(
    session: Session, form: GuidelineForm | None = None, problems: dict[str, str] | None = None
) -> GuidelinesPage:
    """The guidelines with their history; with a form that was refused, that form again."""
    views = []
    for objective in Objective:
        versions = guidelines.versions(session, objective)
        text = versions[0].text if versions else ""
        typed = form.text if form is not None and form.objective is objective else text
        views.append(GuidelineView(objective=objective, versions=versions, current_text=text, typed=typed))
    return GuidelinesPage(guidelines=views, problems=problems or {})


def batch_rows(session: Session, batches: list[Batch], at: datetime) -> list[BatchRow]:
    """Some batches, each with its progress and its newest dataset."""
    datasets = queries.dataset_names(session)
    progress = queries.progress_by_batch(session)
    return [
        BatchRow(
            batch=batch,
            state=state_words(batch, at),
            progress=progress.get(batch.id, []),
            dataset=datasets.get(batch.id, ""),
        )
        for batch in batches
    ]


def state_words(batch: Batch, at: datetime) -> str:
    """A batch's state for people, who need not know that a step is a moment late."""
    if batch.state is BatchState.OPEN and batch.closes_at <= at:
        return "closing now"
    if batch.state is BatchState.SCHEDULED and batch.opens_at <= at:
        return "waits to open"
    return _STATE_WORDS[batch.state]


def _comparisons(session: Session, batch: Batch) -> list[tuple[str, int]]:
    return [(state.value, count) for state, count in queries.count_by_state(session, batch.id).items()]


def _pool(session: Session, batch: Batch) -> list[tuple[Objective, int]]:
    """How many prompts wait for each objective that a batch collects."""
    waiting = queries.count_waiting_pool_prompts(session)
    return [
        (objective, waiting[objective]) for objective, target in queries.targets(session, batch.id).items() if target
    ]


def _midnight(at: datetime, time_zone: str) -> datetime:
    """When today began in a time zone."""
    return at.astimezone(ZoneInfo(time_zone)).replace(hour=0, minute=0, second=0, microsecond=0).astimezone(UTC)


def _duration(seconds: float) -> str:
    """A waiting time in words."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
