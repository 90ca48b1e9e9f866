"""How the queue and its workers stand, for the admin's and the trainer's pages and for the metrics."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.models import SamplingJob, Worker, WorkState
from app.sampling import queries

_SHORT_DIGEST = 12


@dataclass(frozen=True)
class QueueView:
    """The sampling queue."""

    by_state: dict[WorkState, int]
    oldest_waiting_s: float | None
    """How long the oldest job has waited to be handed out; ``None`` when none waits."""


class WorkerState(StrEnum):
    """Whether a worker can be counted on."""

    ALIVE = "alive"
    SILENT = "silent"
    """Not heard of for longer than a lease, so that its work goes to others."""
    STOPPED = "stopped"
    """It said that it stops."""


@dataclass(frozen=True)
class WorkerView:
    """A worker, and whether it can be counted on."""

    worker: Worker
    silent_s: float
    state: WorkerState

    @property
    def is_stale(self) -> bool:
        """Whether nothing can be expected of it now."""
        return self.state is not WorkerState.ALIVE

    @property
    def could_serve(self) -> set[str]:
        """Digests of the checkpoints that it samples from, or would when they are wanted."""
        if not self.worker.can_sample:
            return set()
        return {*self.worker.checkpoints, *(self.worker.available.keys() - self.worker.refused.keys())}


class Standing(StrEnum):
    """What a worker has to do with a checkpoint."""

    SERVING = "serving"
    STAGING = "staging"
    """It is about to serve it."""
    REFUSED = "refused"
    AVAILABLE = "available"
    """It could serve it, and does not."""


@dataclass(frozen=True)
class Holding:
    """A worker that is alive, and what it has to do with one checkpoint."""

    worker: str
    standing: Standing
    reason: str = ""
    """Why the checkpoint is refused."""


@dataclass(frozen=True)
class RefusedFolder:
    """A folder in a worker's library that is none of the registry's checkpoints."""

    worker: str
    folder: str
    reason: str


@dataclass(frozen=True)
class Unserved:
    """Pairs that wait for checkpoints which no worker that is alive serves."""

    checkpoints: list[str]
    """Their names: one, or two where the variants differ in the checkpoint."""
    pairs: int
    waited_s: float
    """How long the oldest of them has waited."""
    could: list[str]
    """The workers that could serve all of these checkpoints."""
    refusals: list[tuple[str, Holding]]
    """Which checkpoint is refused, by whom and why."""


def queue(session: Session, *, at: datetime) -> QueueView:
    """Sampling jobs by state, and the age of the oldest waiting one."""
    oldest = session.scalar(select(func.min(SamplingJob.queued_at)).where(SamplingJob.state == WorkState.QUEUED))
    return QueueView(
        by_state=queries.count_by_state(session),
        oldest_waiting_s=max(0.0, (at - oldest).total_seconds()) if oldest is not None else None,
    )


def workers(session: Session) -> list[Worker]:
    """All workers, the most recently seen first."""
    return queries.workers(session)


def worker_views(session: Session, *, at: datetime, lease_s: float) -> list[WorkerView]:
    """All workers with their silence, the most recently seen first."""
    return [
        WorkerView(
            worker=worker,
            silent_s=max(0.0, (at - worker.last_seen_at).total_seconds()),
            state=_state(worker, silent_since=at - timedelta(seconds=lease_s)),
        )
        for worker in workers(session)
    ]


def alive(views: Sequence[WorkerView]) -> list[WorkerView]:
    """The workers that can be counted on."""
    return [view for view in views if view.state is WorkerState.ALIVE]


def holdings(views: Sequence[WorkerView]) -> dict[str, list[Holding]]:
    """What the workers that are alive have to do with each checkpoint, by digest; who serves it comes first."""
    found: dict[str, list[Holding]] = {}
    for view in alive(views):
        for digest, holding in _holdings_of(view.worker).items():
            found.setdefault(digest, []).append(holding)
    order = list(Standing)
    return {
        digest: sorted(held, key=lambda holding: (order.index(holding.standing), holding.worker))
        for digest, held in found.items()
    }


def refused_folders(views: Sequence[WorkerView], registered: Collection[str]) -> list[RefusedFolder]:
    """What workers that are alive refuse and the registry does not know; ``registered`` are its digests."""
    return [
        RefusedFolder(view.worker.name, checkpoint, reason)
        for view in alive(views)
        for checkpoint, reason in sorted(view.worker.refused.items())
        if checkpoint not in registered
    ]


def unserved(session: Session, views: Sequence[WorkerView], *, at: datetime) -> list[Unserved]:
    """The pairs that wait for what no worker that is alive serves, the longest waiting first."""
    living = [view for view in alive(views) if view.worker.can_sample]
    waiting = [
        group
        for group in queries.waiting_pairs(session)
        if not any(group.digests <= view.worker.checkpoints.keys() for view in living)
    ]
    if not waiting:
        return []
    names = queries.checkpoint_names(session, {digest for group in waiting for digest in group.digests})
    held = holdings(living)
    return [
        Unserved(
            checkpoints=sorted(names[digest] for digest in group.digests),
            pairs=group.pairs,
            waited_s=max(0.0, (at - group.oldest).total_seconds()),
            could=sorted(view.worker.name for view in living if group.digests <= view.could_serve),
            refusals=[
                (names[digest], holding)
                for digest in sorted(group.digests)
                for holding in held.get(digest, [])
                if holding.standing is Standing.REFUSED
            ],
        )
        for group in waiting
    ]


def short(digest: str) -> str:
    """As much of a digest as people compare."""
    return digest[:_SHORT_DIGEST]


def _state(worker: Worker, *, silent_since: datetime) -> WorkerState:
    if worker.stopped_at is not None:
        return WorkerState.STOPPED
    return WorkerState.SILENT if worker.last_seen_at < silent_since else WorkerState.ALIVE


def _holdings_of(worker: Worker) -> dict[str, Holding]:
    """What a worker has to do with each checkpoint; of two things the one that matters more."""
    if not worker.can_sample:
        return {}
    found = {digest: Holding(worker.name, Standing.AVAILABLE) for digest in worker.available}
    found |= {digest: Holding(worker.name, Standing.REFUSED, reason) for digest, reason in worker.refused.items()}
    if worker.staging is not None:
        found[worker.staging] = Holding(worker.name, Standing.STAGING)
    return found | {digest: Holding(worker.name, Standing.SERVING) for digest in worker.checkpoints}
