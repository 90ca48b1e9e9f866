"""Model workers as they introduce themselves and report: what each serves, could serve and refuses."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from sqlalchemy.orm import Session

from app.accounts import audit
from app.checkpoints import service as checkpoints
from app.database import Database
from app.errors import NotFoundError
from app.models import Worker, now
from app.sampling import leases, queries
from app.sampling.stored_text import storable
from contract.checkpoint_files import CheckpointFiles
from contract.sampling import Register, WorkerStatus

_LOG = structlog.get_logger(__name__)
# A worker at work calls several times a second; nobody needs to know so exactly when it was last seen.
_SEEN_EVERY = timedelta(seconds=1)
_SHORT_DIGEST = 12


class UnknownWorkerError(NotFoundError):
    """No worker of this id is registered; it must introduce itself again."""

    code = "unknown_worker"


def register(session: Session, message: Register) -> Worker:
    """Note a worker, or a new start of one: what its predecessor held goes back to the queue.

    Its checkpoints are added to the registry. What the predecessor said of itself is forgotten, but for its last
    error, which may be why there is a new start.
    """
    worker = queries.worker_by_name(session, message.name)
    facts = message.model_dump(exclude={"checkpoints"})
    if worker is None:
        worker = Worker(**facts)
        session.add(worker)
    else:
        for field, value in facts.items():
            setattr(worker, field, value)
        worker.registered_at = worker.last_seen_at = now()
        for job in queries.leased_to(session, worker.id):
            leases.put_back(job)
    names = _register(session, message.checkpoints)
    worker.checkpoints = names
    worker.available = dict(names)
    worker.refused = {}
    worker.staging = None
    worker.free_pairs = message.max_pairs
    worker.tokens_per_s = 0.0
    worker.stopped_at = None
    session.flush()
    audit.record(session, "worker.registered", worker.name, engine=worker.engine, device=worker.device)
    _LOG.info("worker_registered", worker=worker.name, worker_id=str(worker.id), engine=worker.engine)
    return worker


def seen(session: Session, worker_id: UUID) -> Worker:
    """The worker that calls, which is noted, to the second.

    Raises:
        UnknownWorkerError: It is not registered.

    """
    worker = _known(session, worker_id)
    at = now()
    if _is_news(worker, at):
        worker.last_seen_at = at
        worker.stopped_at = None
    return worker


def note_seen(database: Database, worker_id: UUID) -> None:
    """Note that a worker called that has nothing to say; nearly always a look that takes no lock.

    Raises:
        UnknownWorkerError: It is not registered.

    """
    with database.read() as session:
        is_news = _is_news(_known(session, worker_id), now())
    if is_news:
        with database.write() as session:
            seen(session, worker_id)


def take_status(session: Session, worker: Worker, status: WorkerStatus) -> None:
    """Keep how a worker stands, for the admin's pages.

    Checkpoints that it has and nobody knew of are registered, so that an admin can promote them. A column whose value
    is what it was is not written.
    """
    if worker.available.keys() != {files.digest for files in status.available}:
        worker.available = _register(session, status.available)
    if worker.checkpoints.keys() != set(status.serving):
        worker.checkpoints = _names(session, status.serving, worker.available)
        _LOG.info("worker_serves", worker=worker.name, checkpoints=worker.checkpoints)
    refused = {one.checkpoint: storable(one.reason) for one in status.refused}
    for checkpoint in refused.keys() - worker.refused.keys():
        _LOG.warning("checkpoint_refused", worker=worker.name, checkpoint=checkpoint, reason=refused[checkpoint])
    worker.refused = refused
    worker.staging = status.staging
    worker.max_pairs = status.max_pairs
    worker.free_pairs = status.free_pairs
    worker.tokens_per_s = status.tokens_per_s
    error = storable(status.last_error) if status.last_error is not None else None
    if error is not None and error != worker.last_error:
        worker.last_error = error
        worker.last_error_at = now()


def stop(session: Session, worker_id: UUID) -> None:
    """Note that a worker has said its last word; one that calls again after that has not stopped."""
    worker = session.get(Worker, worker_id)
    if worker is None:
        return
    worker.stopped_at = now()
    worker.staging = None
    worker.free_pairs = worker.max_pairs
    worker.tokens_per_s = 0.0
    _LOG.info("worker_stopped", worker=worker.name, worker_id=str(worker.id))


def _known(session: Session, worker_id: UUID) -> Worker:
    worker = session.get(Worker, worker_id)
    if worker is None:
        msg = "This worker is not registered here; register again."
        raise UnknownWorkerError(msg)
    return worker


def _is_news(worker: Worker, at: datetime) -> bool:
    return worker.stopped_at is not None or at - worker.last_seen_at >= _SEEN_EVERY


def _register(session: Session, held: Iterable[CheckpointFiles]) -> dict[str, str]:
    """The registry's names of checkpoints that a worker holds, by digest."""
    return {files.digest: checkpoints.register(session, files).name for files in held}


def _names(session: Session, digests: Iterable[str], known: Mapping[str, str]) -> dict[str, str]:
    """The names of checkpoints by digest; a part of the digest where the registry does not have one."""
    digests = list(digests)
    missing = [digest for digest in digests if digest not in known]
    found = {**known, **queries.checkpoint_names(session, missing)} if missing else known
    return {digest: found.get(digest, digest[:_SHORT_DIGEST]) for digest in digests}
