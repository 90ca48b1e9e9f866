"""Training as a child process: a crash or a full GPU ends the run and nothing else."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from contract.base import Contract
from contract.recipe import Recipe
from contract.training import EvaluationReport, TrainingPoint

log = logging.getLogger(__name__)

TRAIN_COMMAND: Final = (sys.executable, "-m", "model_worker.cli", "train")
_GRACE_S: Final = 10.0
_TAIL_BYTES: Final = 4000


class TrainingResult(Contract):
    """What the child writes when it ends well."""

    digest: str
    evaluations: tuple[EvaluationReport, ...]


@dataclass(frozen=True)
class RunPaths:
    """Where one hand-out of a training run keeps its files."""

    folder: Path
    """Of the run."""
    output: Path
    """The reward model."""
    attempt: int

    @property
    def recipe(self) -> Path:
        """The recipe that the child reads."""
        return self.folder / "recipe.json"

    @property
    def progress(self) -> Path:
        """One training point a line; each attempt starts its own."""
        return self.folder / f"progress-{self.attempt}.jsonl"

    @property
    def log(self) -> Path:
        """The child's standard error."""
        return self.folder / f"train-{self.attempt}.log"

    @property
    def result(self) -> Path:
        """The child's result; if it is there the run is done, whichever attempt did it."""
        return self.folder / "result.json"


class Tail:
    """Reads whole lines of a file that another process appends to."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._offset = 0

    def new_lines(self, *, is_last: bool = False) -> list[str]:
        """The lines since the last call; a line under way is left for the next, unless there will be none."""
        if not self._file.is_file():
            return []
        with self._file.open("rb") as stream:
            stream.seek(self._offset)
            content = stream.read()
        if not is_last:
            content = content[: content.rfind(b"\n") + 1]
        self._offset += len(content)
        return content.decode("utf-8", errors="replace").splitlines()


class TrainingChild:
    """A running ``preferably-worker train``."""

    def __init__(
        self,
        paths: RunPaths,
        *,
        checkpoint: Path,
        datasets: Sequence[Path],
        recipe: Recipe,
        previous: Path | None = None,
        command: Sequence[str] = TRAIN_COMMAND,
    ) -> None:
        """Start the child.

        Its standard input is a pipe that nobody writes to: it ends when this process does, even by kill -9,
        and the child takes that as the order to stop.
        """
        paths.folder.mkdir(parents=True, exist_ok=True)
        paths.output.parent.mkdir(parents=True, exist_ok=True)
        paths.recipe.write_text(recipe.model_dump_json(indent=2), encoding="utf-8")
        paths.progress.unlink(missing_ok=True)
        self._paths = paths
        self._points = Tail(paths.progress)
        self._log = Tail(paths.log)
        arguments = ["--checkpoint", str(checkpoint)]
        for dataset in datasets:
            arguments += ["--dataset", str(dataset)]
        if previous is not None:
            arguments += ["--previous", str(previous)]
        arguments += ["--recipe", str(paths.recipe), "--output", str(paths.output)]
        arguments += ["--progress", str(paths.progress), "--result", str(paths.result), "--watch-stdin"]
        with paths.log.open("wb") as errors:
            self._process = subprocess.Popen(  # noqa: S603 - our own program, arguments as a list
                [*command, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,  # so that its own children can be ended with it
            )
        log.info("training started", extra={"pid": self._process.pid, "folder": str(paths.folder)})

    @property
    def exit_code(self) -> int | None:
        """``None`` while it runs; negative for a signal."""
        return self._process.poll()

    def new_points(self) -> list[TrainingPoint]:
        """The steps made since the last call."""
        points = []
        for line in self._points.new_lines():
            try:
                points.append(TrainingPoint.model_validate_json(line))
            except ValidationError as error:
                log.warning("a line of the progress file is no training point", extra={"reason": str(error)})
        return points

    def new_log(self) -> str:
        """The log lines since the last call, each with its line break."""
        return "".join(f"{line}\n" for line in self._log.new_lines(is_last=self.exit_code is not None))

    def reason(self) -> str:
        """Why the child ended badly: its last line of standard error, and the signal if one ended it."""
        last_line = self._last_line()
        code = self.exit_code
        if code is not None and code < 0:
            return f"Training was ended by {signal.Signals(-code).name}. {last_line}".strip()
        return last_line or f"Training ended with exit code {code}."

    def stop(self) -> None:
        """End the child and whatever it has started: politely first, then by force."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                log.warning("training does not stop; killing it", extra={"pid": self._process.pid})
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _last_line(self) -> str:
        with self._paths.log.open("rb") as stream:
            stream.seek(max(0, self._paths.log.stat().st_size - _TAIL_BYTES))
            lines = stream.read().decode("utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


def read_result(paths: RunPaths) -> TrainingResult | None:
    """The result of a run, if the child, or that of an earlier attempt, has written a whole one."""
    try:
        return TrainingResult.model_validate_json(paths.result.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        log.warning("the result file cannot be read", extra={"file": str(paths.result), "reason": str(error)})
        return None
