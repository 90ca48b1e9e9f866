"""What other parts ask of the queue: sampling a pair, another try, an end to it."""

from collections.abc import Iterable, Sequence

from sqlalchemy.orm import Session

from app.errors import InvalidInputError
from app.models import BatchVariant, Comparison, ComparisonState, SamplingJob, WorkState, now
from app.sampling import leases, queries
from app.sampling.variants import draw_again, draw_pair


def request_pair(
    session: Session, comparison: Comparison, variants: Sequence[BatchVariant], *, max_new_tokens: int
) -> SamplingJob:
    """Queue the sampling of a comparison's two responses, drawn from two different variants."""
    responses = draw_pair(comparison, variants, max_new_tokens=max_new_tokens)
    job = SamplingJob(comparison_id=comparison.id)
    session.add_all([*responses, job])
    return job


def retry(session: Session, comparison: Comparison) -> None:
    """Draw a failed or equal pair once more, with new seeds. The responses must be loaded.

    Raises:
        InvalidInputError: Its sampling has not failed.

    """
    job = queries.job_of(session, comparison.id)
    if job is None or comparison.state not in {ComparisonState.FAILED, ComparisonState.EQUAL_RESPONSES}:
        msg = "Only a comparison whose sampling failed can be sampled again."
        raise InvalidInputError(msg)
    draw_again(comparison.responses)
    comparison.state = ComparisonState.SAMPLING
    comparison.ready_at = None
    job.failures = 0
    job.error = None
    job.finished_at = None
    leases.put_back(job)


def cancel(session: Session, comparisons: Iterable[Comparison]) -> None:
    """Stop the sampling of comparisons that nobody waits for any more."""
    for job in queries.jobs_of(session, [comparison.id for comparison in comparisons]):
        if job.state in {WorkState.QUEUED, WorkState.LEASED}:
            leases.end(job, WorkState.CANCELLED, at=now())
