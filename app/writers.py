"""Writers of an SQLite database queue for their turn, where SQLite alone would have them sleep and try again.

SQLite's own locks remain what keeps the data safe; this queue only spares its writers the sleeping, of up to a tenth
of a second at a time. Threads wait on a lock of this process, and the first of them on a lock of the system, on a file
beside the database. The system takes that lock back when a process ends, however it ends.
"""

import os
import sqlite3
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: processes take turns as SQLite lets them, threads still queue.
    fcntl = None  # type: ignore[assignment]

_PRIVATE = 0o600


class WritersQueue:
    """One transaction at a time may write: among the threads of this process, and among all processes."""

    def __init__(self, file: Path, *, wait_s: float) -> None:
        """Queue on a file, which is made when it is first needed; nobody waits longer than so many seconds."""
        self._file = file
        self._wait_s = wait_s
        self._turn = threading.Lock()
        self._descriptor: int | None = None

    def enter(self) -> None:
        """Wait for the turn and take it.

        Raises:
            sqlite3.OperationalError: It did not come in time.

        """
        deadline = time.monotonic() + self._wait_s
        if not self._turn.acquire(timeout=self._wait_s):
            raise self._too_late()
        try:
            self._descriptor = self._among_processes(deadline)
        except TimeoutError:
            self._turn.release()
            raise self._too_late() from None
        except BaseException:
            self._turn.release()
            raise

    def _too_late(self) -> sqlite3.OperationalError:
        return sqlite3.OperationalError(
            f"database is locked: another transaction has been writing for {self._wait_s:g} s"
        )

    def leave(self) -> None:
        """Let the next writer go on."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
        self._turn.release()

    def _among_processes(self, deadline: float) -> int | None:
        if fcntl is None:
            return None
        descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _PRIVATE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _wait_for(descriptor, deadline)
        except OSError:
            # A file system without such locks: processes take turns as SQLite lets them.
            os.close(descriptor)
            return None
        return descriptor


def _wait_for(descriptor: int, deadline: float) -> None:
    """Wait for the lock in a thread of its own, since the system's call knows no time-out."""
    granted: Future[None] = Future()

    def wait() -> None:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        granted.set_result(None)

    threading.Thread(target=wait, name="writers-queue", daemon=True).start()
    try:
        granted.result(max(deadline - time.monotonic(), 0))
    except BaseException:
        # Nobody wants the lock any more; whenever it comes, it is given back.
        granted.add_done_callback(lambda _: os.close(descriptor))
        raise


class QueueingConnection(sqlite3.Connection):
    """A connection whose turn to write ends with its transaction, or with itself."""

    queue: WritersQueue | None = None
    """Given by the engine to each new connection."""
    _has_turn = False

    def take_turn(self) -> None:
        """Wait until this connection may begin to write."""
        if self.queue is not None and not self._has_turn:
            self.queue.enter()
            self._has_turn = True

    def commit(self) -> None:
        """Commit. When that fails the transaction is still open, and so the turn goes on."""
        super().commit()
        self._end_turn()

    def rollback(self) -> None:
        """Roll back."""
        try:
            super().rollback()
        finally:
            self._end_turn()

    def close(self) -> None:
        """Close the connection, and with it what it had begun."""
        try:
            super().close()
        finally:
            self._end_turn()

    def _end_turn(self) -> None:
        if self.queue is not None and self._has_turn:
            self._has_turn = False
            self.queue.leave()
