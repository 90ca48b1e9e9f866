"""The worker API's sampling half: register, claim, events, finish, fail, release. Workers only ever call in."""

import time
from http import HTTPStatus

import anyio
from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool

from app.accounts import audit
from app.checkpoints import service as checkpoints
from app.database import Database, SessionDep
from app.sampling import service
from app.sampling.protocol import MAX_BODY_BYTES, WORKER_API, LeaseTermsDep, require_protocol
from app.training import service as training
from app.web.access import WorkerTokenDep
from contract.sampling import (
    Claim,
    Claimed,
    Control,
    Events,
    Fail,
    Finish,
    PairJob,
    Register,
    Registered,
    Release,
)

_POLL_S = 0.2

router = APIRouter(
    prefix=WORKER_API, tags=["worker"], dependencies=[Depends(require_protocol)], max_body_size=MAX_BODY_BYTES
)


@router.post("/register")
def register(message: Register, session: SessionDep, terms: LeaseTermsDep, _token: WorkerTokenDep) -> Registered:
    """Introduce a worker, and the checkpoints that it holds."""
    worker = service.register(session, message)
    training.put_back_runs(session, worker)
    registered = [checkpoints.register(session, files) for files in message.checkpoints]
    worker.checkpoints = {checkpoint.digest: checkpoint.name for checkpoint in registered}
    audit.record(session, "worker.registered", worker.name, engine=worker.engine, device=worker.device)
    return Registered(worker_id=worker.id, lease_s=terms.lease_s)


@router.post("/claim")
async def claim(message: Claim, request: Request, terms: LeaseTermsDep, _token: WorkerTokenDep) -> Claimed:
    """Hand out pairs; when there are none, wait for some as long as the worker allows."""
    database: Database = request.state.database
    await run_in_threadpool(_note, database, message)
    deadline = time.monotonic() + message.wait_s
    while True:
        jobs = await run_in_threadpool(_claim_once, database, message, terms)
        # A claim for a worker that has gone away would only be found out when its lease expires.
        if jobs or time.monotonic() >= deadline or await request.is_disconnected():
            return Claimed(jobs=tuple(jobs))
        await anyio.sleep(_POLL_S)


def _note(database: Database, message: Claim) -> None:
    """Note that the worker called: one that only waits for work is not lost."""
    with database.write() as session:
        service.seen(session, message.worker_id)


def _claim_once(database: Database, message: Claim, terms: service.LeaseTerms) -> list[PairJob]:
    with database.read() as session:
        if not service.has_due_jobs(session, message.digests):
            return []
    with database.write() as session:
        return service.claim(session, message, terms)


@router.post("/events")
def events(message: Events, session: SessionDep, terms: LeaseTermsDep, _token: WorkerTokenDep) -> Control:
    """Take the text that live responses grew by, keep their leases alive, and say which jobs to drop."""
    return service.take_events(session, message, terms)


@router.post("/finish", status_code=HTTPStatus.NO_CONTENT)
def finish(message: Finish, session: SessionDep, _token: WorkerTokenDep) -> None:
    """Take both responses of a job."""
    service.finish(session, message)


@router.post("/fail", status_code=HTTPStatus.NO_CONTENT)
def fail(message: Fail, session: SessionDep, terms: LeaseTermsDep, _token: WorkerTokenDep) -> None:
    """Take a job back that the worker could not do."""
    service.fail(session, message, terms)


@router.post("/release", status_code=HTTPStatus.NO_CONTENT)
def release(message: Release, session: SessionDep, _token: WorkerTokenDep) -> None:
    """Take the jobs of a stopping worker back."""
    service.release(session, message)
