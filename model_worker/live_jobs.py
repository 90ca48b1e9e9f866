"""What the worker owes the app at any moment: live jobs, text not sent yet, and outcomes not delivered yet."""

import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from uuid import UUID

from contract.sampling import Lease, PairJob, SampledResponse, TokenEvent
from model_worker.backoff import Backoff, Patience
from model_worker.sampling.interface import lease_of


@dataclass(frozen=True)
class Failure:
    """Why a job could not be finished here."""

    reason: str
    is_retryable: bool


@dataclass(frozen=True)
class Returned:
    """There was no room for a job after all: it goes back to the queue, and no failure is counted."""

    reason: str


Outcome = tuple[SampledResponse, ...] | Failure | Returned


@dataclass
class Delivery:
    """An outcome on its way to the app."""

    lease: Lease
    outcome: Outcome
    backoff: Backoff = field(default_factory=Backoff)
    patience: Patience = field(default_factory=Patience)
    due_at: float = 0.0
    """When to try next, by ``time.monotonic``."""
    is_under_way: bool = False
    """Whether a thread is sending it."""


@dataclass
class _GrowingText:
    sent: int = 0
    unsent: str = ""


@dataclass
class _Live:
    job: PairJob
    texts: dict[int, _GrowingText] = field(default_factory=dict)


class LiveJobs:
    """The sink of the worker's sampler, and the source of its messages. Every method may be called from any thread.

    A job is live from its claim until its outcome is delivered or dropped; its lease is kept alive so long.
    """

    def __init__(self) -> None:
        self._live: dict[Lease, _Live] = {}
        self._deliveries: dict[Lease, Delivery] = {}
        # Notified when there is something to deliver or less to do; not for each of thousands of texts.
        self._changed = threading.Condition()

    def add(self, job: PairJob) -> list[Lease]:
        """Note a claimed job; returns the leases of older hand-outs of it, which are lost and must be cancelled."""
        with self._changed:
            older = [lease for lease in self._live if lease.job_id == job.job_id]
            for lease in older:
                self._forget(lease)
            self._live[lease_of(job)] = _Live(job)
            return older

    def text(self, lease: Lease, spec_index: int, text: str) -> None:
        """Note that a response grew."""
        with self._changed:
            if lease in self._live and lease not in self._deliveries:
                self._live[lease].texts.setdefault(spec_index, _GrowingText()).unsent += text

    def done(self, lease: Lease, responses: tuple[SampledResponse, ...]) -> None:
        """Note that a job is complete."""
        self._deliver(lease, responses)

    def failed(self, lease: Lease, reason: str, *, is_retryable: bool) -> None:
        """Note that a job failed."""
        self._deliver(lease, Failure(reason, is_retryable))

    def returned(self, lease: Lease, reason: str) -> None:
        """Note that the sampler has no room for a job after all."""
        self._deliver(lease, Returned(reason))

    def cancelled(self, lease: Lease) -> None:
        """Nothing to do: a job is forgotten when it is dropped, and released when the worker stops."""

    def leases(self) -> tuple[Lease, ...]:
        """The leases to keep alive."""
        with self._changed:
            return tuple(self._live)

    def sampling(self) -> int:
        """How many jobs have no outcome yet."""
        with self._changed:
            return len(self._live) - len(self._deliveries)

    def unsent_text(self) -> tuple[TokenEvent, ...]:
        """The text that responses grew by since what :meth:`text_was_sent` noted."""
        with self._changed:
            return tuple(
                TokenEvent(
                    job_id=lease.job_id,
                    attempt=lease.attempt,
                    response_id=live.job.specs[spec_index].response_id,
                    from_index=growing.sent,
                    text=growing.unsent,
                )
                for lease, live in self._live.items()
                for spec_index, growing in live.texts.items()
                if growing.unsent
            )

    def text_was_sent(self, events: Collection[TokenEvent]) -> None:
        """Note that the app has these events."""
        with self._changed:
            for event in events:
                live = self._live.get(Lease(job_id=event.job_id, attempt=event.attempt))
                for spec_index, growing in live.texts.items() if live else ():
                    is_it = live is not None and live.job.specs[spec_index].response_id == event.response_id
                    if is_it and growing.sent == event.from_index:
                        growing.sent += len(event.text)
                        growing.unsent = growing.unsent[len(event.text) :]

    def next_delivery(self, timeout_s: float) -> Delivery | None:
        """An outcome that is due and that no other thread is sending; waits for one for up to ``timeout_s`` seconds.

        The caller sends it, and then calls :meth:`put_off` or :meth:`drop`.
        """
        until = time.monotonic() + timeout_s
        with self._changed:
            while True:
                at = time.monotonic()
                waiting = [delivery for delivery in self._deliveries.values() if not delivery.is_under_way]
                delivery = min(waiting, key=lambda waiting: waiting.due_at, default=None)
                if delivery is not None and delivery.due_at <= at:
                    delivery.is_under_way = True
                    return delivery
                if at >= until:
                    return None
                self._changed.wait(min(until, delivery.due_at if delivery is not None else until) - at)

    def put_off(self, delivery: Delivery) -> float:
        """Note that a delivery did not get through; returns the seconds until it is tried again."""
        delay = delivery.backoff.next_delay()
        with self._changed:
            delivery.due_at = time.monotonic() + delay
            delivery.is_under_way = False
            self._changed.notify_all()
        return delay

    def drop(self, lease: Lease) -> None:
        """Forget a job: it is delivered, or no longer this worker's."""
        with self._changed:
            self._forget(lease)
            self._changed.notify_all()

    def drop_jobs(self, job_ids: Collection[UUID], asked: Collection[Lease]) -> list[Lease]:
        """Forget jobs that the app named, of the leases that it was asked about; returns those forgotten."""
        with self._changed:
            dropped = [lease for lease in asked if lease.job_id in job_ids and lease in self._live]
            for lease in dropped:
                self._forget(lease)
            self._changed.notify_all()
            return dropped

    def wait_until_empty(self, timeout_s: float) -> bool:
        """Wait until no job is live; ``False`` after ``timeout_s`` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._live, max(0.0, timeout_s))

    def _deliver(self, lease: Lease, outcome: Outcome) -> None:
        with self._changed:
            if lease in self._live:
                self._deliveries[lease] = Delivery(lease, outcome)
                self._changed.notify_all()

    def _forget(self, lease: Lease) -> None:
        self._live.pop(lease, None)
        self._deliveries.pop(lease, None)
