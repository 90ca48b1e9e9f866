"""Puts a worker together from its settings, and runs its parts until one ends."""

import logging
import pkgutil
import platform
import socket
import threading
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Final

from contract.checkpoint_files import CheckpointFiles, inspect_checkpoint
from contract.errors import ContractError
from contract.sampling import Register
from model_worker.client import AppClient
from model_worker.registration import Registration
from model_worker.sampling.interface import Sampler, SamplerFacts
from model_worker.settings import WorkerSettings
from model_worker.training_runs import TrainingPace, TrainingPlace, TrainingRuns
from model_worker.worker import Pace, Worker, WorkerStoppedError

log = logging.getLogger(__name__)

# Resolved by name when a worker starts, so that a worker without a model needs no torch.
ENGINES: Final = {
    "pair": "model_worker.sampling.pair_engine:PairEngine.from_settings",
    "lorem": "model_worker.sampling.lorem:LoremSampler.from_settings",
}
# The child gets ten seconds; a request that hangs is not waited for, and a child ends with this process.
_TRAINING_STOP_S: Final = 12.0
_TRAINING_ONLY: Final = SamplerFacts(engine="none", versions={}, device="none", dtype="none", checkpoints=())


def run_worker(settings: WorkerSettings, stopping: threading.Event) -> None:
    """Work until ``stopping`` is set.

    Raises:
        ContractError: The worker cannot start or go on; the message is for a person.

    """
    files = {folder: inspect_checkpoint(folder) for folder in settings.checkpoints}
    sampler = _sampler(settings, files) if settings.can_sample else None
    try:
        with AppClient(str(settings.url), settings.read_token()) as client:
            registration = Registration(client, _identity(settings, sampler, files))
            if registration.wait_until_registered(stopping):
                _run_parts(settings, client, registration, sampler, files, stopping)
    finally:
        if sampler is not None:
            sampler.close(0.0)
    log.info("stopped")


def _run_parts(
    settings: WorkerSettings,
    client: AppClient,
    registration: Registration,
    sampler: Sampler | None,
    files: Mapping[Path, CheckpointFiles],
    stopping: threading.Event,
) -> None:
    training = _TrainingThread(settings, client, registration, files, stopping) if settings.can_train else None
    if training is not None:
        training.start()
    try:
        if sampler is None:
            stopping.wait()
        else:
            pace = Pace(claim_wait_s=settings.claim_wait_s, drain_s=settings.drain_s)
            Worker(client, registration, sampler, pace).run(stopping)
    finally:
        stopping.set()
        if training is not None:
            training.join(_TRAINING_STOP_S)
    if training is not None and training.error is not None:
        raise training.error


def worker_version() -> str:
    """The version of the installed distribution."""
    return metadata.version("preferably")


class _TrainingThread(threading.Thread):
    """Training beside sampling. An error that nothing mends stops the whole worker and is kept for the caller."""

    def __init__(
        self,
        settings: WorkerSettings,
        client: AppClient,
        registration: Registration,
        files: Mapping[Path, CheckpointFiles],
        stopping: threading.Event,
    ) -> None:
        super().__init__(name="training", daemon=True)
        place = TrainingPlace(
            checkpoints={inspected.digest: folder.resolve() for folder, inspected in files.items()},
            output_dir=settings.output_dir.resolve(),
        )
        self._runs = TrainingRuns(client, registration, place, TrainingPace())
        self._stopping = stopping
        self.error: ContractError | None = None

    def run(self) -> None:
        try:
            self._runs.run(self._stopping)
        except ContractError as error:
            self.error = error
        except Exception as error:
            log.exception("the training thread broke")
            self.error = WorkerStoppedError(f"the training thread broke: {type(error).__name__}: {error}")
        finally:
            self._stopping.set()


def _sampler(settings: WorkerSettings, files: Mapping[Path, CheckpointFiles]) -> Sampler:
    sampler: Sampler = pkgutil.resolve_name(ENGINES[settings.engine])(settings, files)
    return sampler


def _identity(settings: WorkerSettings, sampler: Sampler | None, files: Mapping[Path, CheckpointFiles]) -> Register:
    facts = sampler.facts() if sampler is not None else _TRAINING_ONLY
    known = {checkpoint.digest: checkpoint for checkpoint in (*facts.checkpoints, *files.values())}
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
        can_sample=settings.can_sample,
        can_train=settings.can_train,
        checkpoints=tuple(known.values()),
    )
