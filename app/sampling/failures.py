"""What has failed in the queue, and an admin's other try at it."""

from datetime import datetime
from uuid import UUID

import structlog
from sqlalchemy.orm import Session

from app.accounts import audit
from app.database import Database
from app.errors import ConflictError, NotFoundError
from app.models import Batch, BatchState, Comparison, ComparisonState, ConversationState, Person, now
from app.sampling import queries, service

_LOG = structlog.get_logger(__name__)
# Writers on SQLite wait for each other, so that no transaction may be long.
_AT_ONCE = 200


class NotFailedError(ConflictError):
    """The pair is not one that failed, or not any more."""

    code = "not_failed"


class NobodyWaitsError(ConflictError):
    """Nobody would ever judge the pair."""

    code = "nobody_waits"


def retry(session: Session, job_id: UUID, *, actor: Person) -> bool:
    """Let a failed or equal pair be drawn once more; whether that is news, or was asked before.

    Raises:
        NotFoundError: There is no such job.
        NobodyWaitsError: Its batch has closed, or its conversation is finished.
        NotFailedError: It has been sampled, judged or given up meanwhile.

    """
    known = queries.comparison_of(session, job_id)
    if known is None:
        msg = "There is no such sampling job."
        raise NotFoundError(msg)
    # The batch before the comparison, as a batch that closes locks them.
    batch = queries.held_batch(session, known.batch_id)
    comparison, conversation = queries.locked_comparison(session, known.id)
    if comparison.state is ComparisonState.SAMPLING:
        return False
    _require_retryable(comparison, conversation, batch)
    _retry(session, [(job_id, comparison)], batch, actor)
    return True


def retry_all(database: Database, *, actor: Person) -> int:
    """Let every failed or equal pair of an open batch be drawn once more, and say how many there are.

    What fails again meanwhile is left alone, so that this comes to an end.
    """
    began = now()
    with database.read() as session:
        batch_ids = queries.batches_with_failures(session, before=began)
    tried = 0
    for batch_id in batch_ids:
        while more := _retry_some(database, batch_id, before=began, actor=actor):
            tried += more
    return tried


def _retry_some(database: Database, batch_id: UUID, *, before: datetime, actor: Person) -> int:
    with database.write() as session:
        batch = queries.held_batch(session, batch_id)
        if batch.state is not BatchState.OPEN:
            return 0
        failed = queries.failed_of(session, batch_id, before=before, limit=_AT_ONCE)
        if failed:
            _retry(session, failed, batch, actor)
        return len(failed)


def _retry(session: Session, failed: list[tuple[UUID, Comparison]], batch: Batch, actor: Person) -> None:
    for job_id, comparison in failed:
        service.retry(session, comparison)
        _LOG.info("job_retried", job_id=str(job_id), comparison_id=str(comparison.id))
    detail = {"job": str(failed[0][0])} if len(failed) == 1 else {}
    audit.record(session, "sampling.retried", f"batch {batch.number}", actor=actor, pairs=len(failed), **detail)


def _require_retryable(comparison: Comparison, conversation: ConversationState, batch: Batch) -> None:
    if batch.state is not BatchState.OPEN:
        msg = f"Batch {batch.number} has closed: nobody would judge this pair, so it is not sampled again."
        raise NobodyWaitsError(msg)
    if comparison.state not in {ComparisonState.FAILED, ComparisonState.EQUAL_RESPONSES}:
        msg = f"This pair is {comparison.state} now. Only one whose sampling failed can be sampled again."
        raise NotFailedError(msg)
    if conversation is ConversationState.FINISHED:
        msg = "The conversation of this pair is finished: nobody would judge it, so it is not sampled again."
        raise NobodyWaitsError(msg)
