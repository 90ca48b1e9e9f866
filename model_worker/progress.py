"""The line at the bottom of the terminal that shows how a worker does."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.text import Text

from contract.checkpoint_files import CheckpointFiles
from contract.sampling import WorkerStatus
from model_worker.metrics import JobEnd, Metrics

_PER_S: Final = 2.0


def progress_text(status: WorkerStatus, serving: tuple[CheckpointFiles, ...], metrics: Metrics) -> Text:
    """One line: pairs under way, speed, checkpoints, and what came of the jobs so far."""
    live = status.max_pairs - status.free_pairs
    names = ", ".join(files.name for files in serving) or "no checkpoint"
    counts = {end: metrics.jobs(end) for end in JobEnd}
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(f"{live}/{status.max_pairs} pairs", style="bold")
    text.append(f"  {status.tokens_per_s:.0f} tokens/s  ")
    text.append(names, style="cyan")
    if status.staging is not None:
        staging = next((files.name for files in status.available if files.digest == status.staging), "a checkpoint")
        text.append(f"  taking up {staging}", style="yellow")
    text.append(f"  {counts[JobEnd.DONE]} done", style="green")
    text.append(f"  {counts[JobEnd.FAILED]} failed", style="red" if counts[JobEnd.FAILED] else "")
    for end in (JobEnd.RETURNED, JobEnd.LATE):
        if counts[end]:
            text.append(f"  {counts[end]} {end.value}")
    if status.refused:
        text.append(f"  {len(status.refused)} checkpoints refused", style="yellow")
    return text


@contextmanager
def progress_shown(console: Console, line: Callable[[], Text]) -> Iterator[None]:
    """Keep the line up to date until the block ends; what is printed on the console meanwhile appears above it."""
    with Live(console=console, get_renderable=line, refresh_per_second=_PER_S, transient=True):
        yield
