"""The worker's view of the web app: typed requests over one kept-alive connection pool, and named errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from contract.errors import ContractError
from contract.sampling import (
    PROTOCOL_HEADER,
    PROTOCOL_VERSION,
    Claim,
    Claimed,
    Control,
    ErrorBody,
    Events,
    Fail,
    Finish,
    Register,
    Registered,
    Release,
)
from contract.training import ClaimedRun, ClaimRun, FailRun, FinishRun, RunControl, RunEvents
from model_worker.held_requests import HeldRequests

WORKER_PATH: Final = "/api/worker/v1"
DATASETS_PATH: Final = "/api/v1/datasets"
_CONNECT_S: Final = 10.0
_READ_S: Final = 30.0
# What is worth another try although it is not a server error: time-out, too early, too many requests.
_TRANSIENT: Final = frozenset({408, 425, 429})

AnswerT = TypeVar("AnswerT", bound=BaseModel)


class AppError(ContractError):
    """A request to the app that did not succeed."""


class AppUnavailableError(AppError):
    """The app cannot be reached or has failed; the same request may succeed later."""


class AppFailedError(AppUnavailableError):
    """The app took the request and failed on it (500): it may be the app's trouble, or this very request."""


class RequestRefusedError(AppError):
    """The app understood the request and refuses it; repeating it does not help."""


class UnauthorizedError(AppError):
    """The token is unknown, revoked, or not a worker's (401, 403)."""


class ProtocolMismatchError(AppError):
    """App and worker are of versions that do not understand each other (426)."""


class LeaseLostError(AppError):
    """The job was cancelled or handed to another worker (409 ``lease_lost``)."""


class UnknownWorkerError(AppError):
    """The app does not know this worker (``unknown_worker``): its database is another one. Register again."""


# What no waiting mends: the process ends with the message, and a person mends it.
FATAL_ERRORS: Final = (UnauthorizedError, ProtocolMismatchError)


class AppClient:
    """Methods may be called from any thread. All of them raise the errors above."""

    def __init__(self, url: str, token: str, *, read_s: float = _READ_S) -> None:
        self._url = url.rstrip("/")
        self._read_s = read_s
        headers = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            PROTOCOL_HEADER: str(PROTOCOL_VERSION),
        }
        timeout = self._timeout(read_s)
        self._http = httpx.Client(base_url=self._url, headers=headers, timeout=timeout)
        self._claims = HeldRequests(lambda: httpx.AsyncClient(base_url=self._url, headers=headers, timeout=timeout))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections; a claim under way is interrupted."""
        self._claims.close()
        self._http.close()

    def register(self, message: Register) -> Registered:
        """Introduce this worker."""
        return self._ask("register", message, Registered)

    def claim(self, message: Claim) -> Claimed:
        """Ask for pairs; takes up to ``message.wait_s`` seconds. One thread claims.

        Raises:
            RequestInterruptedError: :meth:`interrupt_claim` was called.

        """
        with self._naming_errors():
            answer = self._claims.post(
                f"{WORKER_PATH}/claim",
                content=message.model_dump_json(),
                timeout=self._timeout(message.wait_s + self._read_s),
            )
            _raise_for(answer)
        return self._read(answer, Claimed)

    def interrupt_claim(self) -> None:
        """End the claim under way, or else the next one, as soon as it is made."""
        self._claims.interrupt()

    def events(self, message: Events, *, read_s: float | None = None) -> Control:
        """Send heartbeat and new text."""
        return self._ask("events", message, Control, read_s=read_s)

    def finish(self, message: Finish) -> None:
        """Deliver a pair. Delivering it twice is harmless."""
        self._post("finish", message)

    def fail(self, message: Fail) -> None:
        """Give a job back with a reason."""
        self._post("fail", message)

    def release(self, message: Release, *, read_s: float | None = None) -> None:
        """Give jobs back without one."""
        self._post("release", message, read_s=read_s)

    def claim_run(self, message: ClaimRun) -> ClaimedRun:
        """Ask for a training run."""
        return self._ask("runs/claim", message, ClaimedRun)

    def run_events(self, message: RunEvents) -> RunControl:
        """Send a training run's heartbeat and progress."""
        return self._ask("runs/events", message, RunControl)

    def finish_run(self, message: FinishRun) -> None:
        """Deliver a reward model's evaluations. Delivering them twice is harmless."""
        self._post("runs/finish", message)

    def fail_run(self, message: FailRun) -> None:
        """Give a training run back with a reason."""
        self._post("runs/fail", message)

    def manifest(self, dataset: str) -> bytes:
        """The manifest of a frozen dataset, byte for byte."""
        with self._naming_errors():
            answer = self._http.get(f"{DATASETS_PATH}/{quote(dataset, safe='')}")
            _raise_for(answer)
            return answer.content

    @contextmanager
    def dataset_file(self, dataset: str, path: str) -> Iterator[Iterator[bytes]]:
        """The chunks of one file of a frozen dataset."""
        address = f"{DATASETS_PATH}/{quote(dataset, safe='')}/files/{quote(path)}"
        with self._naming_errors(), self._http.stream("GET", address) as answer:
            if not answer.is_success:
                answer.read()
            _raise_for(answer)
            yield answer.iter_bytes()

    def _ask(self, path: str, message: BaseModel, kind: type[AnswerT], *, read_s: float | None = None) -> AnswerT:
        return self._read(self._post(path, message, read_s=read_s), kind)

    def _read(self, answer: httpx.Response, kind: type[AnswerT]) -> AnswerT:
        try:
            return kind.model_validate_json(answer.content)
        except ValidationError as error:
            msg = f"{answer.url} answered with something that is not the worker protocol: {error}"
            raise AppUnavailableError(msg) from error

    def _post(self, path: str, message: BaseModel, *, read_s: float | None = None) -> httpx.Response:
        with self._naming_errors():
            answer = self._http.post(
                f"{WORKER_PATH}/{path}",
                content=message.model_dump_json(),
                timeout=self._timeout(read_s or self._read_s),
            )
            _raise_for(answer)
            return answer

    @staticmethod
    def _timeout(read_s: float) -> httpx.Timeout:
        return httpx.Timeout(read_s, connect=_CONNECT_S)

    @contextmanager
    def _naming_errors(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            msg = f"{self._url} cannot be reached: {error or type(error).__name__}"
            raise AppUnavailableError(msg) from error


def _raise_for(answer: httpx.Response) -> None:
    if answer.is_success:
        return
    code, message = _error_of(answer)
    kind: type[AppError] = RequestRefusedError
    if answer.status_code == httpx.codes.INTERNAL_SERVER_ERROR:
        kind = AppFailedError
    elif answer.is_server_error or answer.status_code in _TRANSIENT:
        kind = AppUnavailableError
    elif answer.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
        kind = UnauthorizedError
    elif answer.status_code == httpx.codes.UPGRADE_REQUIRED:
        kind = ProtocolMismatchError
    elif code == "unknown_worker":
        kind = UnknownWorkerError
    elif code == "lease_lost":
        kind = LeaseLostError
    raise kind(message)


def _error_of(answer: httpx.Response) -> tuple[str, str]:
    """Code and message of an error; a proxy's page has none of the app's, so that its status must do."""
    if answer.is_redirect:
        return "redirect", f"{answer.url} redirects to {answer.headers.get('location')}: give that address instead."
    try:
        body = ErrorBody.model_validate(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return "", f"{answer.request.method} {answer.url} was answered {answer.status_code} {answer.reason_phrase}."
    return body.code, body.message
