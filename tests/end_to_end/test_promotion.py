"""Checkpoints are promoted while a real worker samples: none is mixed, and bad ones leave the old one serving."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from sqlalchemy import func, select

from app.checkpoints import service as checkpoints
from app.models import Batch, Checkpoint, Response, Worker
from contract.checkpoint_files import CheckpointFiles, inspect_checkpoint
from contract.vocabulary import Objective
from model_worker.checkpoint import load_checkpoint
from model_worker.demo.tiny import make_tiny_checkpoint
from model_worker.sampling.slots.sampler import SlotSampler
from tests.end_to_end.installation import Installation, installed, wait_for
from tests.end_to_end.storm import audit
from tests.end_to_end.storm.load import Load, count_unfinished, promote

# One process runs all of them: they share the fixture.
pytestmark = pytest.mark.xdist_group("end_to_end")

PAIRS_BETWEEN = 6
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Promoted:
    """What a worker did while checkpoints came and went in its library."""

    installation: Installation
    folders: tuple[Path, ...]
    """The good checkpoints, in the order of their promotion."""
    refused: dict[str, str]
    """The worker's reasons at the end, by digest or by the folder's name."""
    unservable: str
    """Digest of the checkpoint that was promoted although it cannot be loaded."""
    wrongs: list[str]
    worker_ended: bool


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Promoted]:
    """Promote two good checkpoints and a bad one, under load; damaged ones lie beside them."""
    folder = tmp_path_factory.mktemp("promotion")
    library = folder / "library"
    first = make_tiny_checkpoint(library / "first")
    with installed(folder, first, {Objective.HELPFULNESS: 1000}) as installation:
        installation.start_app()
        worker = installation.start_worker("gpu-1", "--library", str(library))
        database = installation.database
        with database.read() as session:
            batch_id = session.scalars(select(Batch.id)).one()
        with Load(database, batch_id, random.Random(3), keep=8) as load:
            _wait_for_pairs_of(installation, inspect_checkpoint(first))
            # There is room for two. The second stands beside the first; the third takes the first one's place, and
            # having its shape, its memory.
            second = _put_in_library(library, "second", seed=5, layers=3)
            _promote_and_wait(installation, second)
            third = _put_in_library(library, "third", seed=6)
            _promote_and_wait(installation, third)
            for name, damage in DAMAGES.items():
                _put_in_library(library, name, damage, seed=7)
            unservable = _put_in_library(library, "incomplete", _lose_a_weight, seed=8)
            files = inspect_checkpoint(unservable)
            _wait_until_known(installation, files)
            promote_for_next_batch(installation, files)
            expected = {files.digest, *DAMAGES}
            _wait(installation, lambda: expected <= _worker(installation).refused.keys(), "refusals")
            # It goes on with what it has.
            _wait_for_pairs_of(installation, inspect_checkpoint(third), more=PAIRS_BETWEEN)
        _wait(installation, lambda: count_unfinished(database) == 0, "the end of all jobs")
        told = audit.stories(database, load.asked)
        folders = (first, second, third)
        sampler = SlotSampler([load_checkpoint(each, device="cpu") for each in folders], max_pairs=len(told))
        redrawn = audit.redraw(sampler, told)
        sampler.close(0.0)
        yield Promoted(
            installation=installation,
            folders=folders,
            refused=_worker(installation).refused,
            unservable=files.digest,
            wrongs=audit.wrongs_of_jobs(database, told, load.asked, redrawn),
            worker_ended=worker.poll() is not None,
        )


def _remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _cut_off(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def _lose_a_weight(folder: Path) -> None:
    """Every file is whole and of its size; only loading it shows that something is missing."""
    weights = load_file(folder / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


DAMAGES: dict[str, Callable[[Path], None]] = {
    "without-template": _remove("chat_template.jinja"),
    "without-config": _remove("config.json"),
    "pickled": _pickle,
    "cut-off": _cut_off,
}
REASONS = {
    "without-template": "chat template",
    "without-config": "config.json",
    "pickled": "safetensors",
    "cut-off": "model.safetensors",
}


def test_every_response_is_wholly_of_the_checkpoint_it_names(promoted: Promoted) -> None:
    """Drawn again with nothing beside it, each comes out the same, token for token: none is of two checkpoints."""
    assert not promoted.wrongs, "\n".join(promoted.wrongs[:20])
    with promoted.installation.database.read() as session:
        counts = dict(
            session.execute(
                select(Checkpoint.digest, func.count(Response.id))
                .join(Response, Response.checkpoint_id == Checkpoint.id)
                .where(Response.finish_reason.is_not(None))
                .group_by(Checkpoint.digest)
            ).all()
        )
    assert counts.keys() == {inspect_checkpoint(folder).digest for folder in promoted.folders}
    assert min(counts.values()) >= PAIRS_BETWEEN


def test_the_worker_is_never_restarted(promoted: Promoted) -> None:
    assert not promoted.worker_ended
    log = promoted.installation.log("gpu-1")
    assert log.count("swap done") == 2
    assert "Traceback" not in log


@pytest.mark.parametrize("name", sorted(DAMAGES))
def test_a_damaged_checkpoint_is_refused_with_the_reason(promoted: Promoted, name: str) -> None:
    assert REASONS[name] in promoted.refused[name]


def test_a_checkpoint_that_cannot_be_loaded_is_refused_when_it_is_promoted(promoted: Promoted) -> None:
    assert "weights are missing, among them model.norm.weight" in promoted.refused[promoted.unservable]
    served = {inspect_checkpoint(folder).digest for folder in promoted.folders[1:]}
    assert set(_worker(promoted.installation).checkpoints) == served


def _put_in_library(
    library: Path, name: str, damage: Callable[[Path], None] | None = None, *, seed: int, layers: int = 2
) -> Path:
    """As an admin copies a checkpoint: under a name that begins with a dot, until it is whole."""
    hidden = make_tiny_checkpoint(library / f".{name}", seed=seed, layers=layers)
    if damage is not None:
        damage(hidden)
    return hidden.rename(library / name)


def promote_for_next_batch(installation: Installation, files: CheckpointFiles) -> None:
    """Promote a checkpoint, and leave the open batch as it is."""
    with installation.database.write() as session:
        checkpoints.promote(session, checkpoints.register(session, files), for_open_batch=False)


def _promote_and_wait(installation: Installation, folder: Path) -> None:
    files = inspect_checkpoint(folder)
    _wait_until_known(installation, files)
    promote(installation.database, files)
    _wait_for_pairs_of(installation, files)


def _wait_until_known(installation: Installation, files: CheckpointFiles) -> None:
    """Until the worker has told the app of a checkpoint in its library."""

    def is_known() -> bool:
        with installation.database.read() as session:
            return session.scalar(select(func.count()).where(Checkpoint.digest == files.digest)) == 1

    _wait(installation, is_known, f"{files.name} in the registry")


def _wait_for_pairs_of(installation: Installation, files: CheckpointFiles, *, more: int = PAIRS_BETWEEN) -> None:
    def count() -> int:
        with installation.database.read() as session:
            return session.scalars(
                select(func.count(Response.id))
                .join(Checkpoint, Checkpoint.id == Response.checkpoint_id)
                .where(Checkpoint.digest == files.digest, Response.finish_reason.is_not(None))
            ).one()

    before = count()
    _wait(installation, lambda: count() >= before + 2 * more, f"pairs of {files.name}")


def _worker(installation: Installation) -> Worker:
    with installation.database.read() as session:
        return session.scalars(select(Worker)).one()


def _wait(installation: Installation, condition: Callable[[], object], what: str) -> None:
    wait_for(condition, what, seconds=PATIENCE_S, log=installation.folder / "gpu-1.log")
