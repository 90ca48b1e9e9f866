"""Follows what the app wants served: takes checkpoints up one at a time, while sampling goes on, without a restart."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from contract.checkpoint_files import CheckpointError
from contract.sampling import Refusal
from model_worker.library import AvailableCheckpoint, Fingerprint, Library
from model_worker.metrics import Metrics
from model_worker.sampling.interface import NoRoomError, Sampler
from model_worker.stopping import Stopping

log = logging.getLogger(__name__)

# Memory that is short now may be free later, whatever took it: another program on the same GPU, or many live pairs.
NO_ROOM_RETRY_S: Final = 600.0
_POLL_S: Final = 1.0
_LONGEST_REASON: Final = 2000


@dataclass(frozen=True)
class _Attempt:
    """A swap that did not succeed, and what would have to change before it is tried again."""

    reason: str
    fingerprint: Fingerprint
    is_for_room: bool
    at: float
    wanted: tuple[str, ...]
    serving: tuple[str, ...]


class Promotion:
    """Brings what a sampler serves in line with ``Control.serve``, as far as folders and memory allow.

    The most wanted checkpoints that are at hand are served, at most ``max_checkpoints`` of them. One that is not
    wanted goes on being served until its place is needed. One that is wanted but not here is no refusal: another
    worker may have it.
    """

    def __init__(
        self,
        sampler: Sampler,
        library: Library,
        metrics: Metrics,
        *,
        max_checkpoints: int,
        on_change: Callable[[], None],
    ) -> None:
        """``on_change`` is called whenever the sampler serves other checkpoints than before."""
        self._sampler = sampler
        self._library = library
        self._metrics = metrics
        self._max_checkpoints = max_checkpoints
        self._on_change = on_change
        self._changed = threading.Condition()
        self._wanted: tuple[str, ...] = ()
        self._staging: str | None = None
        self._failed: dict[str, _Attempt] = {}

    def want(self, digests: tuple[str, ...]) -> None:
        """Note what the app wants, the most wanted first. Returns at once."""
        with self._changed:
            if digests != self._wanted:
                self._wanted = digests
                self._changed.notify_all()

    def staging(self) -> str | None:
        """Digest of the checkpoint that is being taken up."""
        with self._changed:
            return self._staging

    def refused(self) -> tuple[Refusal, ...]:
        """Checkpoints that are wanted, are here, and cannot be served."""
        with self._changed:
            return tuple(
                Refusal(checkpoint=digest, reason=self._failed[digest].reason)
                for digest in self._wanted
                if digest in self._failed
            )

    def run(self, stopping: Stopping) -> None:
        """Swap whenever something is to be swapped, until the worker stops."""
        while not stopping.is_set():
            if not self.step():
                with self._changed:
                    self._changed.wait(_POLL_S)

    def step(self) -> bool:
        """Try one swap, if one is due; whether one was."""
        available = self._library.available()
        serving = self._serving()
        with self._changed:
            wanted = self._wanted
        self._forgive(available, wanted, serving)
        target = [
            digest for digest in wanted if digest in serving or (digest in available and digest not in self._failed)
        ][: self._max_checkpoints]
        missing = next((digest for digest in target if digest not in serving), None)
        if missing is None:
            return False
        with self._changed:
            self._staging = missing
        try:
            self._take_up(available[missing], wanted, serving, target)
        finally:
            with self._changed:
                self._staging = None
        return True

    def _take_up(
        self, checkpoint: AvailableCheckpoint, wanted: tuple[str, ...], serving: tuple[str, ...], target: Sequence[str]
    ) -> None:
        digest = checkpoint.files.digest
        try:
            if len(serving) < self._max_checkpoints:
                try:
                    self._swap(checkpoint, None)
                except NoRoomError:
                    less_wanted = _least_wanted(serving, wanted, [*target[: target.index(digest)]])
                    if less_wanted is None:
                        raise
                    self._swap(checkpoint, less_wanted)
            else:
                self._swap(checkpoint, _least_wanted(serving, wanted, target))
        except CheckpointError as error:
            self._refuse(checkpoint, str(error), wanted, is_for_room=isinstance(error, NoRoomError))
        except Exception as error:
            # Whatever broke, the checkpoints that were served before still are.
            log.exception("swap broke", extra={"digest": digest})
            self._refuse(checkpoint, f"{type(error).__name__}: {error}", wanted, is_for_room=False)

    def _swap(self, checkpoint: AvailableCheckpoint, instead_of: str | None) -> None:
        files = checkpoint.files
        log.info("swap begins", extra={"checkpoint": files.name, "digest": files.digest, "instead_of": instead_of})
        began = time.monotonic()
        self._sampler.swap(checkpoint.folder, files, instead_of=instead_of)
        took_s = round(time.monotonic() - began, 2)
        log.info("swap done", extra={"checkpoint": files.name, "digest": files.digest, "took_s": took_s})
        self._metrics.swapped()
        self._on_change()

    def _refuse(
        self, checkpoint: AvailableCheckpoint, reason: str, wanted: tuple[str, ...], *, is_for_room: bool
    ) -> None:
        reason = reason[:_LONGEST_REASON] or "It cannot be served."
        log.warning("checkpoint refused", extra={"checkpoint": checkpoint.files.name, "reason": reason})
        attempt = _Attempt(reason, checkpoint.fingerprint, is_for_room, time.monotonic(), wanted, self._serving())
        with self._changed:
            self._failed[checkpoint.files.digest] = attempt
        self._metrics.refused(reason)

    def _forgive(
        self, available: dict[str, AvailableCheckpoint], wanted: tuple[str, ...], serving: tuple[str, ...]
    ) -> None:
        """Forget failures whose reason may be gone."""

        def may_succeed(digest: str, failed: _Attempt) -> bool:
            if digest not in available or available[digest].fingerprint != failed.fingerprint:
                return True
            is_same = (failed.wanted, failed.serving) == (wanted, serving)
            return failed.is_for_room and (not is_same or time.monotonic() - failed.at >= NO_ROOM_RETRY_S)

        with self._changed:
            self._failed = {
                digest: failed for digest, failed in self._failed.items() if not may_succeed(digest, failed)
            }

    def _serving(self) -> tuple[str, ...]:
        return tuple(files.digest for files in self._sampler.facts().checkpoints)


def _least_wanted(serving: Sequence[str], wanted: Sequence[str], kept: Sequence[str]) -> str | None:
    """Which served checkpoint to give up: one that nobody wants, else the last in the order; none that is kept."""
    candidates = [digest for digest in serving if digest not in kept]
    return max(candidates, key=lambda digest: wanted.index(digest) if digest in wanted else len(wanted), default=None)
