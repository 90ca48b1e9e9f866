"""How the queue, the workers and the week stand at this moment, as Prometheus gauges read from the database."""

from collections.abc import Iterator
from datetime import datetime

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy.orm import Session

from app.metrics import queries
from app.sampling import overview


class Gauges(Collector):
    """A reading of all gauges."""

    def __init__(self, families: list[GaugeMetricFamily]) -> None:
        self._families = families

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """What was read."""
        yield from self._families


def read(session: Session, *, at: datetime, lease_s: float) -> Gauges:
    """Read everything in the session's one transaction."""
    return Gauges([*_queue(session, at), *_workers(session, at, lease_s), *_batches(session)])


def _queue(session: Session, at: datetime) -> Iterator[GaugeMetricFamily]:
    queue = overview.queue(session, at=at)
    jobs = GaugeMetricFamily("preferably_sampling_jobs", "Sampling jobs, by state.", labels=["state"])
    for state, count in queue.by_state.items():
        jobs.add_metric([state.value], count)
    yield jobs
    yield GaugeMetricFamily(
        "preferably_sampling_oldest_queued_seconds",
        "How long the oldest queued job has waited; 0 where none waits.",
        value=queue.oldest_waiting_s or 0.0,
    )


def _workers(session: Session, at: datetime, lease_s: float) -> Iterator[GaugeMetricFamily]:
    alive = overview.alive(overview.worker_views(session, at=at, lease_s=lease_s))
    yield GaugeMetricFamily("preferably_workers_alive", "Model workers that are alive.", value=len(alive))
    free = GaugeMetricFamily(
        "preferably_workers_pairs_free", "Pairs that a worker that is alive has room for.", labels=["worker"]
    )
    speed = GaugeMetricFamily(
        "preferably_workers_tokens_per_second", "Tokens that a worker that is alive draws a second.", labels=["worker"]
    )
    for view in alive:
        free.add_metric([view.worker.name], view.worker.free_pairs)
        speed.add_metric([view.worker.name], view.worker.tokens_per_s)
    yield free
    yield speed


def _batches(session: Session) -> Iterator[GaugeMetricFamily]:
    running = queries.running_batches(session)
    ready = GaugeMetricFamily(
        "preferably_comparisons_ready", "Comparisons that wait to be judged, by objective.", labels=["objective"]
    )
    for objective, count in queries.count_ready(session, running).items():
        ready.add_metric([objective.value], count)
    yield ready
    annotations = GaugeMetricFamily(
        "preferably_batch_annotations",
        "Annotations of the open batch, or of one that closes, by objective.",
        labels=["batch", "objective"],
    )
    for batch in running:
        for objective, count in queries.count_annotations(session, batch).items():
            annotations.add_metric([str(batch.number), objective.value], count)
    yield annotations
