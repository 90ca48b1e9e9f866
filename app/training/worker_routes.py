"""The worker API's training half: claim a run, send events, finish, fail. Workers only ever call in."""

from http import HTTPStatus

from fastapi import APIRouter, Depends

from app.database import SessionDep
from app.sampling.protocol import MAX_BODY_BYTES, WORKER_API, LeaseTermsDep, require_protocol
from app.training import work
from app.web.access import WorkerTokenDep
from contract.training import ClaimedRun, ClaimRun, FailRun, FinishRun, RunControl, RunEvents

router = APIRouter(
    prefix=f"{WORKER_API}/runs", tags=["worker"], dependencies=[Depends(require_protocol)], max_body_size=MAX_BODY_BYTES
)


@router.post("/claim")
def claim(message: ClaimRun, session: SessionDep, terms: LeaseTermsDep, _token: WorkerTokenDep) -> ClaimedRun:
    """Hand out a training run, if there is one for this worker."""
    return work.claim_run(session, message, terms)


@router.post("/events")
def events(message: RunEvents, session: SessionDep, terms: LeaseTermsDep, _token: WorkerTokenDep) -> RunControl:
    """Take a run's figures and log, keep its lease alive, and say whether it was cancelled."""
    return work.take_events(session, message, terms)


@router.post("/finish", status_code=HTTPStatus.NO_CONTENT)
def finish(message: FinishRun, session: SessionDep, _token: WorkerTokenDep) -> None:
    """Take the reward model that a run has made, with its evaluations."""
    work.finish_run(session, message)


@router.post("/fail", status_code=HTTPStatus.NO_CONTENT)
def fail(message: FailRun, session: SessionDep, terms: LeaseTermsDep, _token: WorkerTokenDep) -> None:
    """Take a run back that the worker could not do."""
    work.fail_run(session, message, terms)
