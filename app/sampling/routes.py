"""The worker API's sampling half: register, claim, events, finish, fail, release. Workers only ever call in."""

import time
from datetime import timedelta
from http import HTTPStatus

import anyio
from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool

from app.database import Database, DatabaseDep, SessionDep
from app.metrics.counting import CountsDep
from app.models import now
from app.sampling import handing_out, wanted, workers
from app.sampling.leases import LeaseTerms
from app.sampling.protocol import MAX_BODY_BYTES, WORKER_API, LeaseTermsDep, require_protocol
from app.sampling.waiting import LOOK_EVERY_S, Lookout
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

router = APIRouter(
    prefix=WORKER_API, tags=["worker"], dependencies=[Depends(require_protocol)], max_body_size=MAX_BODY_BYTES
)


@router.post("/register")
def register(message: Register, session: SessionDep, terms: LeaseTermsDep, _token: WorkerTokenDep) -> Registered:
    """Introduce a worker, and the checkpoints that it holds."""
    worker = workers.register(session, message)
    training.put_back_runs(session, worker)
    return Registered(worker_id=worker.id, lease_s=terms.lease_s)


@router.post("/claim")
async def claim(
    message: Claim, request: Request, database: DatabaseDep, terms: LeaseTermsDep, _token: WorkerTokenDep
) -> Claimed:
    """Hand out pairs; when there are none, wait for some as long as the worker allows.

    A worker that waits takes no thread and makes no queries of its own.
    """
    lookout: Lookout = request.state.lookout
    # One that only waits for work is not lost.
    await run_in_threadpool(workers.note_seen, database, message.worker_id)
    deadline = time.monotonic() + message.wait_s
    jobs = await run_in_threadpool(_claim, database, message, terms)
    while not jobs and (left_s := deadline - time.monotonic()) > 0:
        await anyio.sleep(min(LOOK_EVERY_S, left_s))
        sees_job = await lookout.sees_job(message.digests)
        # A claim for a worker that has gone away would only be found out when its lease expires.
        if await request.is_disconnected():
            break
        if sees_job:
            jobs = await run_in_threadpool(_claim, database, message, terms)
    return Claimed(jobs=tuple(jobs))


def _claim(database: Database, message: Claim, terms: LeaseTerms) -> list[PairJob]:
    """Claim, after a look that spares the writing transaction where there is nothing."""
    with database.read() as session:
        if not handing_out.count_due(session, message.digests, limit=1):
            return []
    with database.write() as session:
        return handing_out.claim(session, message, terms)


@router.post("/events")
def events(message: Events, database: DatabaseDep, terms: LeaseTermsDep, _token: WorkerTokenDep) -> Control:
    """Take what live responses grew by, keep their leases alive, and say what to drop and what to serve.

    An idle worker's heartbeat hardly ever needs a transaction that writes.
    """
    if message.leases or message.status is not None:
        with database.write() as session:
            control = handing_out.take_events(session, message, terms)
    else:
        workers.note_seen(database, message.worker_id)
        control = Control(drop=(), lease_until=now() + timedelta(seconds=terms.lease_s))
    with database.read() as session:
        return control.model_copy(update={"serve": wanted.digests(session)})


@router.post("/finish", status_code=HTTPStatus.NO_CONTENT)
def finish(
    message: Finish, session: SessionDep, terms: LeaseTermsDep, counts: CountsDep, _token: WorkerTokenDep
) -> None:
    """Take both responses of a job."""
    if handing_out.finish(session, message, terms):
        counts.responses_sampled(session, message.responses)


@router.post("/fail", status_code=HTTPStatus.NO_CONTENT)
def fail(message: Fail, session: SessionDep, terms: LeaseTermsDep, _token: WorkerTokenDep) -> None:
    """Take a job back that the worker could not do."""
    handing_out.fail(session, message, terms)


@router.post("/release", status_code=HTTPStatus.NO_CONTENT)
def release(message: Release, session: SessionDep, _token: WorkerTokenDep) -> None:
    """Take back the jobs of a worker that stops, or has no room for them."""
    handing_out.release(session, message)
