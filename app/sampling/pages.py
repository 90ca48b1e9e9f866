"""What the admin's page of model workers shows: the queue, every worker, and what has failed."""

import math
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlencode

from sqlalchemy.orm import Session

from app.models import BatchState, ComparisonState, ConversationState, now
from app.sampling import overview, queries
from app.sampling.overview import QueueView, Unserved, WorkerView
from app.sampling.queries import FailedJob
from app.web.templating import Page

_FAILED_A_PAGE = 25
_GONE_AFTER_S = 7 * 24 * 3600
# Workers at work are noted once a second.
_NOW_S = 2
_UNITS = ((24 * 3600, "d"), (3600, "h"), (60, "min"), (1, "s"))
_NO_REASON = "No reason was given."
_EQUAL = "The two responses came out the same."


@dataclass(frozen=True)
class WorkerRow:
    """A worker in the table."""

    view: WorkerView
    serves: list[str]
    """Names of checkpoints."""
    staging: str
    seen: str


@dataclass(frozen=True)
class Trouble:
    """A worker's refusal of a checkpoint, or its last error."""

    worker: str
    what: str
    checkpoint: str = ""
    """The name of the one that is refused."""
    at: datetime | None = None


@dataclass(frozen=True)
class UnservedRow:
    """Pairs that wait in vain."""

    unserved: Unserved
    waited: str


@dataclass(frozen=True)
class FailedRow:
    """A job that failed."""

    failed: FailedJob
    error: str
    checkpoints: list[str]
    can_be_retried: bool
    remark: str
    """Why it cannot be tried again."""


@dataclass(frozen=True, kw_only=True)
class WorkersPage(Page):
    """The sampling queue, the workers, and what has failed."""

    title: str = "Workers"
    at: datetime
    queue_counts: list[tuple[str, int]]
    oldest_waiting: str
    unserved: list[UnservedRow]
    alive: int
    workers: list[WorkerRow]
    troubles: list[Trouble]
    gone: int
    """Workers that have not been seen for long and are left out."""
    failed: list[FailedRow]
    failures: int
    retryable: int
    page: int
    pages: int
    address: str
    """Where this page asks for itself again."""
    newer: str
    """Where the page before and the page after are; empty where there is none."""
    older: str
    all_workers: str
    """Where those that are left out are shown too."""
    retried: int | None
    """How many pairs an admin has just asked for again."""


def workers_page(
    session: Session, *, lease_s: float, page: int = 1, with_gone: bool = False, retried: int | None = None
) -> WorkersPage:
    """The queue and the workers as they stand now."""
    at = now()
    views = overview.worker_views(session, at=at, lease_s=lease_s)
    queue: QueueView = overview.queue(session, at=at)
    shown = sorted((view for view in views if with_gone or view.silent_s < _GONE_AFTER_S), key=_order)
    names = queries.checkpoint_names(session, {digest for view in shown for digest in _named(view)})
    failures, retryable = queries.count_failed(session)
    pages = max(1, math.ceil(failures / _FAILED_A_PAGE))
    page = min(page, pages)
    return WorkersPage(
        at=at,
        queue_counts=[(state.value, count) for state, count in queue.by_state.items()],
        oldest_waiting=duration(queue.oldest_waiting_s) if queue.oldest_waiting_s is not None else "",
        unserved=[UnservedRow(one, duration(one.waited_s)) for one in overview.unserved(session, views, at=at)],
        alive=len(overview.alive(views)),
        workers=[_worker_row(view, names) for view in shown],
        troubles=[trouble for view in shown for trouble in _troubles(view, names)],
        gone=len(views) - len(shown),
        failed=_failed_rows(session, page),
        failures=failures,
        retryable=retryable,
        page=page,
        pages=pages,
        address=address(page, with_gone=with_gone),
        newer=address(page - 1, with_gone=with_gone) if page > 1 else "",
        older=address(page + 1, with_gone=with_gone) if page < pages else "",
        all_workers=address(page, with_gone=True),
        retried=retried,
    )


def address(page: int = 1, *, with_gone: bool = False, retried: int | None = None) -> str:
    """Where a page of failed jobs is."""
    query = {"page": page if page > 1 else None, "gone": "true" if with_gone else None, "retried": retried}
    given = {name: value for name, value in query.items() if value is not None}
    return f"/admin/workers?{urlencode(given)}" if given else "/admin/workers"


def duration(seconds: float) -> str:
    """A time in words: its largest unit, and the one below it."""
    rest = round(seconds)
    counts = []
    for length, unit in _UNITS:
        count, rest = divmod(rest, length)
        counts.append((count, unit))
    largest = next((place for place, (count, _) in enumerate(counts) if count), len(counts) - 1)
    shown = counts[largest : largest + 2]
    return " ".join(f"{count} {unit}" for count, unit in shown if count) or "0 s"


def _order(view: WorkerView) -> tuple[bool, str]:
    """The living first, in an order that does not change from look to look."""
    return view.is_stale, "" if view.is_stale else view.worker.name


def _named(view: WorkerView) -> set[str]:
    """What is shown of a worker by its name in the registry."""
    return {*view.worker.refused, *([view.worker.staging] if view.worker.staging is not None else [])}


def _worker_row(view: WorkerView, names: dict[str, str]) -> WorkerRow:
    worker = view.worker
    return WorkerRow(
        view=view,
        serves=sorted(worker.checkpoints.values()),
        staging=names.get(worker.staging, overview.short(worker.staging)) if worker.staging is not None else "",
        seen=f"{duration(view.silent_s)} ago" if view.silent_s >= _NOW_S else "now",
    )


def _troubles(view: WorkerView, names: dict[str, str]) -> list[Trouble]:
    """What a worker that is alive refuses, and its last error, which it may be gone by."""
    worker = view.worker
    refused = {} if view.is_stale else worker.refused
    troubles = [
        Trouble(worker.name, reason, checkpoint=names.get(checkpoint, checkpoint))
        for checkpoint, reason in sorted(refused.items())
    ]
    if worker.last_error is not None and worker.last_error not in refused.values():
        troubles.append(Trouble(worker.name, worker.last_error, at=worker.last_error_at))
    return troubles


def _failed_rows(session: Session, page: int) -> list[FailedRow]:
    jobs = queries.failed(session, limit=_FAILED_A_PAGE, offset=(page - 1) * _FAILED_A_PAGE)
    checkpoints = queries.checkpoints_of(session, [failed.job.comparison_id for failed in jobs])
    return [_failed_row(failed, checkpoints.get(failed.job.comparison_id, [])) for failed in jobs]


def _failed_row(failed: FailedJob, checkpoints: list[str]) -> FailedRow:
    remark = ""
    if failed.batch.state is not BatchState.OPEN:
        remark = "its batch has closed"
    elif failed.conversation is ConversationState.FINISHED:
        remark = "its conversation is finished"
    is_equal = failed.comparison is ComparisonState.EQUAL_RESPONSES
    return FailedRow(
        failed=failed,
        error=failed.job.error or (_EQUAL if is_equal else _NO_REASON),
        checkpoints=checkpoints,
        can_be_retried=not remark,
        remark=remark,
    )
