"""The app's answers as named errors."""

import socket
from collections.abc import Iterator
from uuid import uuid4

import pytest

from contract.sampling import Claim, Fail, Lease
from model_worker.client import (
    AppClient,
    AppFailedError,
    AppUnavailableError,
    LeaseLostError,
    ProtocolMismatchError,
    RequestRefusedError,
    UnauthorizedError,
    UnknownWorkerError,
)
from tests.model_worker.app_server import TOKEN, AppServer


@pytest.fixture
def client(app_server: AppServer) -> Iterator[AppClient]:
    with AppClient(app_server.url, TOKEN) as client:
        yield client


def claim(app: AppServer) -> Claim:
    return Claim(worker_id=app.worker_id, want=1, digests=(), wait_s=0)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, "unauthorized", UnauthorizedError),
        (403, "forbidden", UnauthorizedError),
        (404, "unknown_worker", UnknownWorkerError),
        (404, "not_found", RequestRefusedError),
        (409, "lease_lost", LeaseLostError),
        (409, "conflict", RequestRefusedError),
        (422, "invalid_input", RequestRefusedError),
        (426, "protocol_mismatch", ProtocolMismatchError),
        (429, "slow_down", AppUnavailableError),
        (500, "internal", AppFailedError),
        (502, "", AppUnavailableError),
        (503, "away", AppUnavailableError),
    ],
)
def test_each_refusal_is_an_error_of_its_own(
    app_server: AppServer, client: AppClient, status: int, code: str, kind: type[Exception]
) -> None:
    app_server.failures["claim"] = [(status, code, "This is why.")]
    with pytest.raises(kind, match=r"This is why\.") as caught:
        client.claim(claim(app_server))
    assert type(caught.value) is kind


def test_answers_are_the_contracts_models(app_server: AppServer, client: AppClient) -> None:
    assert client.claim(claim(app_server)).jobs == ()
    lease = Lease(job_id=uuid4(), attempt=1)
    fail = Fail(worker_id=app_server.worker_id, lease=lease, reason="x", is_retryable=True)
    client.fail(fail)
    assert app_server.sent(Fail) == [fail]


def test_nobody_at_the_address_is_unavailable() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with AppClient(f"http://127.0.0.1:{port}", TOKEN) as client, pytest.raises(AppUnavailableError, match="reached"):
        client.claim(claim(AppServer()))


def test_a_page_that_is_not_the_protocol_is_unavailable(app_server: AppServer, client: AppClient) -> None:
    app_server.files["/api/v1/datasets/x"] = b"<html>"
    assert client.manifest("x") == b"<html>"
    with pytest.raises(RequestRefusedError, match="There is no /api/v1/datasets/nothing"):
        client.manifest("nothing")


def test_a_wrong_token_is_unauthorized(app_server: AppServer) -> None:
    with AppClient(app_server.url, "wrong") as client, pytest.raises(UnauthorizedError, match="unknown"):
        client.claim(claim(app_server))
