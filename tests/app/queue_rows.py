"""Makes workers and failed jobs, for tests of what the admin sees of the sampling queue."""

from datetime import timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.models import Batch, Comparison, ComparisonState, Person, SamplingJob, Worker, WorkState, now
from app.sampling import leases
from tests import factories


def make_worker(session: Session, name: str = "gpu-1", **columns: Any) -> Worker:
    """A worker that is alive."""
    defaults = {
        "hostname": "h",
        "engine": "slot-engine/1",
        "device": "cuda:0",
        "dtype": "bfloat16",
        "can_sample": True,
        "can_train": False,
        "max_pairs": 8,
        "free_pairs": 8,
    }
    worker = Worker(name=name, **(defaults | columns))
    session.add(worker)
    session.flush()
    return worker


def make_waiting(session: Session, batch: Batch, annotator: Person) -> tuple[Comparison, SamplingJob]:
    """A pair that is to be sampled, with its responses loaded."""
    comparison = factories.make_comparison(session, factories.make_conversation(session, batch, annotator))
    session.refresh(comparison, ["responses"])
    return comparison, job_of(session, comparison)


def make_failed(
    session: Session, batch: Batch, annotator: Person, *, error: str | None = "It broke.", minutes_ago: float = 1
) -> tuple[Comparison, SamplingJob]:
    """A pair whose sampling failed; without an error one whose responses were the same."""
    comparison, job = make_waiting(session, batch, annotator)
    job.attempt = job.failures = 3
    at = now() - timedelta(minutes=minutes_ago)
    if error is None:
        leases.end(job, WorkState.DONE, at=at, error="The two responses came out the same.")
        comparison.state = ComparisonState.EQUAL_RESPONSES
    else:
        leases.end(job, WorkState.FAILED, at=at, error=error)
        comparison.state = ComparisonState.FAILED
    session.flush()
    return comparison, job


def job_of(session: Session, comparison: Comparison) -> SamplingJob:
    """The job of a comparison."""
    return session.scalars(select(SamplingJob).where(SamplingJob.comparison_id == comparison.id)).one()
