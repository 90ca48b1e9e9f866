"""Knows the checkpoints within reach: those a worker was started with, and those that appear in its library."""

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from contract.checkpoint_files import CheckpointError, CheckpointFiles, inspect_checkpoint
from contract.sampling import Refusal
from model_worker.completeness import require_complete
from model_worker.metrics import Metrics
from model_worker.stopping import Stopping

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 3.0
_LONGEST_REASON: Final = 2000

# Name, size and both times in nanoseconds of each file: what changes while a folder is being copied.
Fingerprint = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True)
class AvailableCheckpoint:
    """A checkpoint that passed inspection."""

    folder: Path
    files: CheckpointFiles
    fingerprint: Fingerprint


class Library:
    """Watches folders. Reading gigabytes for a digest takes a while, so that :meth:`run` has a thread of its own."""

    def __init__(self, folder: Path | None, given: Mapping[Path, CheckpointFiles], metrics: Metrics) -> None:
        """``given`` are the folders that the settings name, already inspected."""
        self._folder = folder
        self._given = tuple(path.resolve() for path in given)
        self._metrics = metrics
        self._lock = threading.Lock()
        # What a folder looked like at the last look; it is inspected once it looks the same at the next.
        self._seen: dict[Path, Fingerprint] = {}
        self._found: dict[Path, AvailableCheckpoint] = {}
        self._refused: dict[Path, Refusal] = {}
        self._problem: str | None = None
        for path, files in given.items():
            fingerprint = fingerprint_of(path)
            self._seen[path.resolve()] = fingerprint
            self._found[path.resolve()] = AvailableCheckpoint(path, files, fingerprint)

    def available(self) -> dict[str, AvailableCheckpoint]:
        """The checkpoints that can be served, by digest."""
        with self._lock:
            # Of two copies of a checkpoint the first one counts: later entries would overwrite earlier ones.
            return {found.files.digest: found for found in reversed(self._found.values())}

    def refused(self) -> tuple[Refusal, ...]:
        """The folders that hold no checkpoint that can be served."""
        with self._lock:
            return tuple(self._refused.values())

    def run(self, stopping: Stopping) -> None:
        """Look every few seconds until the worker stops."""
        while not stopping.is_set():
            self.look(stopping)
            stopping.wait(LOOK_EVERY_S)

    def look(self, stopping: Stopping | None = None) -> None:
        """Inspect each folder that is new or has changed, once it has looked the same at two looks."""
        folders = self._folders()
        with self._lock:
            for gone in self._seen.keys() - set(folders):
                self._forget(gone)
        for folder in folders:
            if stopping is not None and stopping.is_set():
                return
            self._look_at(folder)

    def _folders(self) -> list[Path]:
        if self._folder is None:
            return [folder for folder in self._given if folder.is_dir()]
        try:
            inside = sorted(path.resolve() for path in self._folder.iterdir() if _is_candidate(path))
        except OSError as error:
            self._note_problem(f"The library {self._folder} cannot be read: {error.strerror or error}.")
            return list(self._seen)
        self._note_problem(None)
        return list(dict.fromkeys([*(folder for folder in self._given if folder.is_dir()), *inside]))

    def _look_at(self, folder: Path) -> None:
        fingerprint = fingerprint_of(folder)
        with self._lock:
            is_still = self._seen.get(folder) == fingerprint
            if not is_still:
                # What was known of it no longer holds, and it may still be being copied.
                self._forget(folder)
                self._seen[folder] = fingerprint
            is_known = folder in self._found or folder in self._refused
        if is_still and not is_known and fingerprint:
            self._inspect(folder, fingerprint)

    def _inspect(self, folder: Path, fingerprint: Fingerprint) -> None:
        try:
            require_complete(folder)
            files = inspect_checkpoint(folder)
        except (CheckpointError, OSError) as error:
            self._refuse(folder, str(error))
            return
        if fingerprint_of(folder) != fingerprint:
            # It changed while it was read: the next look sees that, too.
            return
        with self._lock:
            self._found[folder] = AvailableCheckpoint(folder, files, fingerprint)
        log.info("checkpoint available", extra={"checkpoint": files.name, "digest": files.digest})

    def _refuse(self, folder: Path, reason: str) -> None:
        refusal = Refusal(checkpoint=folder.name, reason=reason[:_LONGEST_REASON] or "It cannot be read.")
        with self._lock:
            self._refused[folder] = refusal
        self._metrics.refused(refusal.reason)
        log.warning("checkpoint refused", extra={"checkpoint": folder.name, "reason": refusal.reason})

    def _forget(self, folder: Path) -> None:
        self._seen.pop(folder, None)
        self._found.pop(folder, None)
        self._refused.pop(folder, None)

    def _note_problem(self, problem: str | None) -> None:
        if problem is not None and problem != self._problem:
            log.warning("library unreadable", extra={"reason": problem})
            self._metrics.note_error(problem)
        self._problem = problem


def fingerprint_of(folder: Path) -> Fingerprint:
    """What a folder looks like from outside; empty for one that is gone or holds no file."""
    try:
        stats = [(file.name, file.stat()) for file in folder.iterdir()]
    except OSError:
        return ()
    return tuple(sorted((name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for name, stat in stats))


def _is_candidate(path: Path) -> bool:
    # Names that begin with a dot are those of copies under way, and of version control.
    return path.is_dir() and not path.name.startswith(".")


def newest_checkpoint(library: Path) -> dict[Path, CheckpointFiles]:
    """The checkpoint of a library that was written last, with its folder: what a worker without another begins with.

    Raises:
        CheckpointError: There is none that can be served; the message has the reason for each folder.

    """
    reasons = []
    for folder in sorted(filter(_is_candidate, library.iterdir()), key=_written_at, reverse=True):
        try:
            require_complete(folder)
            return {folder: inspect_checkpoint(folder)}
        except (CheckpointError, OSError) as error:
            reasons.append(str(error))
    msg = " ".join([f"The library {library} holds no checkpoint that can be served.", *reasons])
    raise CheckpointError(msg)


def _written_at(folder: Path) -> int:
    return max((mtime for _, _, mtime, _ in fingerprint_of(folder)), default=0)
