"""Puts a worker together from its settings, and runs its parts until one ends."""

import logging
import pkgutil
import platform
import socket
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Final

from rich.console import Console

from contract.checkpoint_files import CheckpointFiles, inspect_checkpoint
from contract.sampling import Register, Release
from model_worker.client import AppClient, AppError
from model_worker.library import Library, newest_checkpoint
from model_worker.metrics import Metrics, metrics_served
from model_worker.pace import Pace
from model_worker.progress import progress_shown, progress_text
from model_worker.registration import Registration
from model_worker.sampling.interface import Sampler, SamplerFacts
from model_worker.settings import WorkerSettings
from model_worker.stopping import Stopping
from model_worker.training_runs import TrainingPace, TrainingPlace, TrainingRuns
from model_worker.worker import Worker

log = logging.getLogger(__name__)

# Resolved by name when a worker starts, so that a worker without a model needs no torch.
ENGINES: Final = {
    "slots": "model_worker.sampling.slots.sampler:SlotSampler.from_settings",
    "openai": "model_worker.sampling.openai_compat.sampler:OpenAICompatSampler.from_settings",
    "lorem": "model_worker.sampling.lorem:LoremSampler.from_settings",
}
# The child gets ten seconds; a request that hangs is not waited for, and a child ends with this process.
_TRAINING_STOP_S: Final = 12.0
_TRAINING_ONLY: Final = SamplerFacts(
    engine="none", versions={}, device="none", dtype="none", max_pairs=0, checkpoints=()
)


def run_worker(settings: WorkerSettings, event: threading.Event, console: Console) -> None:
    """Work until ``event`` is set. The console is where a progress line is shown, if the settings want one.

    Raises:
        ContractError: The worker cannot start or go on; the message is for a person.

    """
    stopping = Stopping(event)
    files = _first_checkpoints(settings)
    sampler = _sampler(settings, files) if settings.can_sample else None
    metrics = Metrics()
    try:
        with (
            metrics_served(metrics, host=settings.metrics_host, port=settings.metrics_port),
            AppClient(str(settings.url), settings.read_token()) as client,
        ):
            registration = Registration(client, lambda: _identity(settings, sampler, files))
            if registration.wait_until_registered(event):
                training = _start_training(settings, client, registration, files, event, stopping)
                try:
                    if sampler is None:
                        stopping.wait_for_ever()
                    else:
                        _sample(settings, client, registration, sampler, files, metrics, stopping, console)
                finally:
                    event.set()
                    if training is not None:
                        training.join(_TRAINING_STOP_S)
                if sampler is None and stopping.error is None:
                    _say_farewell(client, registration)
    finally:
        if sampler is not None:
            sampler.close(0.0)
    if stopping.error is not None:
        raise stopping.error
    log.info("stopped")


def _sample(
    settings: WorkerSettings,
    client: AppClient,
    registration: Registration,
    sampler: Sampler,
    files: Mapping[Path, CheckpointFiles],
    metrics: Metrics,
    stopping: Stopping,
    console: Console,
) -> None:
    pace = Pace(claim_wait_s=settings.claim_wait_s, drain_s=settings.drain_s)
    library = Library(settings.library, files, metrics)
    worker = Worker(
        client, registration, sampler, library, metrics, max_checkpoints=settings.max_checkpoints, pace=pace
    )
    with ExitStack() as stack:
        if console.is_terminal if settings.progress is None else settings.progress:
            stack.enter_context(
                progress_shown(console, lambda: progress_text(worker.board.now(), sampler.facts().checkpoints, metrics))
            )
        worker.run(stopping)


def _start_training(
    settings: WorkerSettings,
    client: AppClient,
    registration: Registration,
    files: Mapping[Path, CheckpointFiles],
    event: threading.Event,
    stopping: Stopping,
) -> threading.Thread | None:
    if not settings.can_train:
        return None
    place = TrainingPlace(
        checkpoints={inspected.digest: folder.resolve() for folder, inspected in files.items()},
        output_dir=settings.output_dir.resolve(),
    )
    runs = TrainingRuns(client, registration, place, TrainingPace())
    return stopping.start_thread(lambda: runs.run(event), "training")


def _say_farewell(client: AppClient, registration: Registration) -> None:
    """The last word of a worker that only trains; one that samples says its own."""
    try:
        registration.ask(
            lambda registered: client.release(
                Release(worker_id=registered.worker_id, leases=(), is_stopping=True), read_s=Pace().farewell_s
            )
        )
    except AppError as error:
        log.warning("release failed", extra={"reason": str(error)})


def worker_version() -> str:
    """The version of the installed distribution."""
    return metadata.version("preferably")


def _first_checkpoints(settings: WorkerSettings) -> dict[Path, CheckpointFiles]:
    """The folders that the settings name, or else the newest checkpoint of the library."""
    if settings.checkpoints or settings.library is None or settings.engine == "lorem":
        return {folder: inspect_checkpoint(folder) for folder in settings.checkpoints}
    return newest_checkpoint(settings.library)


def _sampler(settings: WorkerSettings, files: Mapping[Path, CheckpointFiles]) -> Sampler:
    """The sampler, with as many of the checkpoints as it may hold; the others can be promoted."""
    held = dict(list(files.items())[: settings.max_checkpoints])
    sampler: Sampler = pkgutil.resolve_name(ENGINES[settings.engine])(settings, held)
    return sampler


def _identity(settings: WorkerSettings, sampler: Sampler | None, files: Mapping[Path, CheckpointFiles]) -> Register:
    """What the worker is at this moment: a later registration may find it with other checkpoints."""
    facts = sampler.facts() if sampler is not None else _TRAINING_ONLY
    return Register(
        name=settings.name,
        hostname=socket.gethostname(),
        engine=facts.engine,
        versions={
            "preferably": worker_version(),
            "python": platform.python_version(),
            **facts.versions,
        },
        device=facts.device,
        dtype=facts.dtype,
        max_pairs=facts.max_pairs,
        can_sample=settings.can_sample,
        can_train=settings.can_train,
        # A worker that only trains samples from none, and names those that it can train from.
        checkpoints=facts.checkpoints if sampler is not None else tuple(files.values()),
    )
