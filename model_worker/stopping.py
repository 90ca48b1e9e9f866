"""Stops all threads of a worker, and keeps the error that nothing mends."""

import logging
import threading
from collections.abc import Callable

from contract.errors import ContractError

log = logging.getLogger(__name__)


class WorkerStoppedError(ContractError):
    """The worker cannot go on; the message says what to do."""


class Stopping:
    """Shared by a worker's threads; the first error that one of them gives stops the others and is kept."""

    def __init__(self, event: threading.Event) -> None:
        self._event = event
        self._lock = threading.Lock()
        self._error: ContractError | None = None

    @property
    def error(self) -> ContractError | None:
        """Why the worker stops, unless it was asked to."""
        with self._lock:
            return self._error

    def is_set(self) -> bool:
        """Whether the worker is to stop."""
        return self._event.is_set()

    def wait(self, timeout_s: float) -> bool:
        """Sleep, but not past the moment when the worker is to stop; whether it is."""
        return self._event.wait(timeout_s)

    def wait_for_ever(self) -> None:
        """Sleep until the worker is to stop."""
        self._event.wait()

    def because_of(self, error: ContractError) -> None:
        """Stop the worker with an error, unless another came first."""
        with self._lock:
            self._error = self._error or error
        self._event.set()

    def start_thread(self, target: Callable[[], None], name: str) -> threading.Thread:
        """Start a thread that stops the whole worker if it breaks: one that only looks alive serves nobody."""
        thread = threading.Thread(target=self._guard, args=(target, name), name=name, daemon=True)
        thread.start()
        return thread

    def _guard(self, target: Callable[[], None], name: str) -> None:
        try:
            target()
        except ContractError as error:
            self.because_of(error)
        except Exception as error:
            log.exception("a thread broke", extra={"thread_name": name})
            self.because_of(WorkerStoppedError(f"the {name} thread broke: {type(error).__name__}: {error}"))
