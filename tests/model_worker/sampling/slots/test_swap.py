"""A checkpoint is swapped while sampling goes on; no response mixes two, and a bad one leaves the old one serving."""

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from contract.checkpoint_files import CheckpointError, CheckpointFiles, inspect_checkpoint
from contract.sampling import PairJob, SampledResponse
from model_worker.checkpoint import Checkpoint, load_checkpoint
from model_worker.demo.tiny import make_tiny_checkpoint
from model_worker.sampling.interface import lease_of
from model_worker.sampling.slots.sampler import SlotSampler
from tests.model_worker.jobs import RecordingSink, make_job, make_spec


def _checkpoint(folder: Path, *, seed: int, **shape: object) -> Checkpoint:
    """One of its own: a swap writes into the model."""
    return load_checkpoint(make_tiny_checkpoint(folder, seed=seed, **shape), device="cpu")  # type: ignore[arg-type]


def _pairs(digest: str, count: int) -> list[PairJob]:
    return [make_job(make_spec(digest, seed=seed), make_spec(digest, seed=seed + 100)) for seed in range(count)]


def _alone(folder: Path, jobs: list[PairJob]) -> list[list[tuple[int, ...]]]:
    """What a sampler draws that never served anything else."""
    sink, sampler = RecordingSink(), SlotSampler([load_checkpoint(folder, device="cpu")], max_pairs=8)
    for job in jobs:
        sampler.submit(job, sink)
    sink.wait_for_ends(len(jobs))
    sampler.close(0.0)
    return _tokens(sink, jobs)


def _tokens(sink: RecordingSink, jobs: list[PairJob]) -> list[list[tuple[int, ...]]]:
    return [[response.token_ids for response in sink.responses[lease_of(job)]] for job in jobs]


@pytest.mark.parametrize("shape", [{}, {"layers": 3}, {"grouped_query": False}])
def test_a_swap_waits_for_live_pairs_and_mixes_nothing(tmp_path: Path, shape: dict[str, object]) -> None:
    old = _checkpoint(tmp_path / "old", seed=0)
    new_folder = make_tiny_checkpoint(tmp_path / "new", seed=5, **shape)  # type: ignore[arg-type]
    new = inspect_checkpoint(new_folder)
    before, after = _pairs(old.files.digest, 4), _pairs(new.digest, 4)
    expected = _alone(tmp_path / "old", before), _alone(new_folder, after)
    sink, sampler = RecordingSink(), SlotSampler([old], max_pairs=8)
    for job in before:
        sampler.submit(job, sink)
    sampler.swap(new_folder, new, instead_of=old.files.digest)
    assert sampler.facts().checkpoints == (new,)
    for job in after:
        sampler.submit(job, sink)
    late = make_job(make_spec(old.files.digest))
    sampler.submit(late, sink)
    sink.wait_for_ends(9)
    sampler.close(0.0)
    assert (_tokens(sink, before), _tokens(sink, after)) == expected
    assert list(sink.returns) == [lease_of(late)]
    drawn: list[SampledResponse] = [response for job in after for response in sink.responses[lease_of(job)]]
    assert {response.checkpoint_digest for response in drawn} == {new.digest}


def test_two_checkpoints_are_served_side_by_side(tmp_path: Path) -> None:
    old = _checkpoint(tmp_path / "old", seed=0)
    folder = make_tiny_checkpoint(tmp_path / "new", seed=5)
    new = inspect_checkpoint(folder)
    sink, sampler = RecordingSink(), SlotSampler([old], max_pairs=8)
    sampler.swap(folder, new, instead_of=None)
    assert set(sampler.facts().checkpoints) == {old.files, new}
    job = make_job(make_spec(old.files.digest, seed=1), make_spec(new.digest, seed=1))
    sampler.submit(job, sink)
    sink.wait_for_ends(1)
    sampler.close(0.0)
    assert [response.checkpoint_digest for response in sink.responses[lease_of(job)]] == [old.files.digest, new.digest]


def _remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _retouch(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"bos_token_id": 3}), encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_remove("config.json"), "config.json"),
        (_remove("chat_template.jinja"), "chat template"),
        (_remove("tokenizer.json"), "tokenizer"),
        (_pickle, "pickled"),
        (_retouch, "has changed"),
    ],
)
def test_a_bad_checkpoint_is_refused_and_the_old_one_serves(
    tmp_path: Path, damage: Callable[[Path], None], reason: str
) -> None:
    old = _checkpoint(tmp_path / "old", seed=0)
    folder = make_tiny_checkpoint(tmp_path / "new", seed=5)
    new: CheckpointFiles = inspect_checkpoint(folder)
    damage(folder)
    sink, sampler = RecordingSink(), SlotSampler([old], max_pairs=4)
    with pytest.raises(CheckpointError, match=reason):
        sampler.swap(folder, new, instead_of=old.files.digest)
    jobs = _pairs(old.files.digest, 2)
    for job in jobs:
        sampler.submit(job, sink)
    sink.wait_for_ends(2)
    sampler.close(0.0)
    assert _tokens(sink, jobs) == _alone(tmp_path / "old", jobs)


def test_closing_ends_a_swap_that_waits(tmp_path: Path) -> None:
    old = _checkpoint(tmp_path / "old", seed=0)
    folder = make_tiny_checkpoint(tmp_path / "new", seed=5)
    sink, gate, errors = RecordingSink(), threading.Event(), []
    hook = old.model.register_forward_pre_hook(lambda *_: gate.wait(10) and None)
    sampler = SlotSampler([old], max_pairs=4)
    sampler.submit(make_job(make_spec(old.files.digest, max_new_tokens=300, temperature=3.0)), sink)

    def swap() -> None:
        try:
            sampler.swap(folder, inspect_checkpoint(folder), instead_of=old.files.digest)
        except CheckpointError as error:
            errors.append(str(error))

    swapping = threading.Thread(target=swap)
    swapping.start()
    closing = threading.Thread(target=sampler.close, args=(0.0,))
    closing.start()
    gate.set()
    swapping.join(20)
    closing.join(20)
    hook.remove()
    assert errors == ["This model worker is stopping."]
