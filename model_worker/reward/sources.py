"""Gathers what a training run learns from and is tested on, and refuses to mix the two."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from contract.recipe import Recipe
from contract.training import DatasetRef
from model_worker.errors import TrainingError
from model_worker.reward.data import Comparison, find_leaks, load_preference_dataset
from model_worker.reward.external import load_external_dataset
from model_worker.reward.provenance import ExternalSource

# An error message names so many comparisons of a leak and counts the rest.
_NAMED_LEAKS = 20


@dataclass(frozen=True, slots=True)
class HeldOut:
    """One held-out split, reported by itself."""

    name: str
    comparisons: tuple[Comparison, ...]


@dataclass(frozen=True, slots=True)
class Sources:
    """All comparisons of a training run."""

    train: tuple[Comparison, ...]
    held_out: tuple[HeldOut, ...]
    """In the order of the datasets, then of the external test files."""
    datasets: tuple[DatasetRef, ...]
    external: tuple[ExternalSource, ...]
    notes: tuple[str, ...]


def gather_sources(
    datasets: Sequence[Path], external: Sequence[Path], external_test: Sequence[Path], recipe: Recipe
) -> Sources:
    """Read all datasets and files of a run; of datasets only the rows of the recipe's objective.

    Raises:
        DatasetError: A dataset or file cannot be read.
        TrainingError: There is nothing to train on, or held-out prompts are among a dataset's training rows.

    """
    frozen = [load_preference_dataset(folder, recipe.objective) for folder in datasets]
    added = [load_external_dataset(path) for path in external]
    added_tests = [load_external_dataset(path) for path in external_test]
    held_out = [HeldOut(dataset.name, dataset.test) for dataset in frozen if dataset.test]
    held_out += [HeldOut(dataset.name, dataset.comparisons) for dataset in added_tests]
    tested = [comparison for split in held_out for comparison in split.comparisons]
    train = [comparison for dataset in frozen for comparison in dataset.train]
    _refuse_leaks(find_leaks(train, tested))
    usable, leaked = _without_leaks((comparison for dataset in added for comparison in dataset.comparisons), tested)
    train += usable
    if not train:
        msg = f"There are no training comparisons for {recipe.objective.value} in the datasets and files given."
        raise TrainingError(msg)
    notes = [
        f"{dataset.name}: {count} rows left out ({reason})."
        for dataset in (*added, *added_tests)
        for reason, count in sorted(dataset.left_out.items())
    ]
    if leaked:
        notes.append(f"{leaked} external comparisons left out: their prompts are in a held-out split.")
    return Sources(
        train=tuple(train),
        held_out=tuple(held_out),
        datasets=tuple(DatasetRef(name=one.name, manifest_sha256=one.manifest_sha256) for one in frozen),
        external=tuple(
            ExternalSource(
                name=one.name, sha256=one.sha256, comparisons=len(one.comparisons), left_out=dict(one.left_out)
            )
            for one in added
        ),
        notes=tuple(notes),
    )


def _refuse_leaks(leaks: Sequence[str]) -> None:
    if not leaks:
        return
    named = ", ".join(leaks[:_NAMED_LEAKS])
    more = f" and {len(leaks) - _NAMED_LEAKS} more" if len(leaks) > _NAMED_LEAKS else ""
    msg = (
        "Held-out prompts or conversations are in the training data, so the held-out accuracy would mean nothing. "
        f"Training comparisons concerned: {named}{more}."
    )
    raise TrainingError(msg)


def _without_leaks(comparisons: Iterable[Comparison], tested: Sequence[Comparison]) -> tuple[list[Comparison], int]:
    """Leave external comparisons out that a held-out split knows; unlike frozen data they are ours to choose from."""
    offered = list(comparisons)
    leaks = set(find_leaks(offered, tested))
    return [comparison for comparison in offered if comparison.comparison_id not in leaks], len(leaks)
