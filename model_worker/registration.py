"""Introduces the worker to the app, again where the app has forgotten it, and waits for an app that is away."""

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from contract.sampling import Register, Registered
from model_worker.backoff import Backoff
from model_worker.client import AppClient, AppUnavailableError, UnknownWorkerError

log = logging.getLogger(__name__)

AnswerT = TypeVar("AnswerT")


class Registration:
    """The app's name for this worker, shared by the worker's threads."""

    def __init__(self, client: AppClient, identity: Callable[[], Register]) -> None:
        """``identity`` is asked at every registration: what a worker serves changes while it runs."""
        self._client = client
        self._identity = identity
        self._lock = threading.Lock()
        self._registered: Registered | None = None

    def wait_until_registered(self, stopping: threading.Event) -> bool:
        """Register, as often as it takes; ``False`` if the worker was asked to stop meanwhile.

        Raises:
            AppError: The app is there and refuses: token, protocol or address are wrong.

        """
        backoff = Backoff()
        while not stopping.is_set():
            try:
                self.current()
            except AppUnavailableError as error:
                delay = backoff.next_delay()
                log.warning("app unavailable", extra={"reason": str(error), "retry_s": round(delay, 2)})
                stopping.wait(delay)
            else:
                return True
        return False

    def current(self) -> Registered:
        """The registration in force; registers on the first call."""
        with self._lock:
            if self._registered is None:
                self._registered = self._client.register(self._identity())
                log.info("registered", extra={"worker_id": str(self._registered.worker_id)})
            return self._registered

    def ask(self, request: Callable[[Registered], AnswerT]) -> AnswerT:
        """Make a request as this worker; if the app does not know it (any more), register and ask once more."""
        registered = self.current()
        try:
            return request(registered)
        except UnknownWorkerError:
            log.warning("the app does not know this worker any more; registering again")
            self._forget(registered)
            return request(self.current())

    def _forget(self, stale: Registered) -> None:
        """Drop a registration, unless another thread has renewed it already."""
        with self._lock:
            if self._registered is stale:
                self._registered = None
