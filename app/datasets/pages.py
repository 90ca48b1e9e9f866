"""What the pages of datasets show."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.datasets.card import LEFT_OUT_IN_WORDS
from app.models import Batch, PreferenceDataset
from app.web.templating import Page
from contract.dataset import Manifest
from contract.vocabulary import Objective, SafetyBin, Split, Strength


@dataclass(frozen=True)
class DatasetLine:
    """One dataset in the list."""

    name: str
    batch: int
    train: int
    test: int
    left_out: int
    sha256: str
    frozen_at: datetime


@dataclass(frozen=True)
class LeftOutLine:
    """How many comparisons were left out for one reason."""

    reason: str
    count: int
    meaning: str


@dataclass(frozen=True, kw_only=True)
class DatasetsPage(Page):
    """All datasets."""

    title: str = "Datasets"
    datasets: list[DatasetLine]


@dataclass(frozen=True, kw_only=True)
class DatasetPage(Page):
    """One dataset: its manifest in words, its files, and some rows to look at."""

    dataset: PreferenceDataset
    manifest: Manifest
    left_out: list[LeftOutLine]
    strengths: list[Strength]
    safety_bins: list[SafetyBin]
    objectives: list[Objective]
    """Those with rows."""
    shown: Objective | None
    """The objective whose rows are shown."""
    rows: list[dict[str, Any]]


def line_of(dataset: PreferenceDataset, batch: Batch) -> DatasetLine:
    """A dataset as the list shows it."""
    manifest = Manifest.model_validate(dataset.manifest)
    return DatasetLine(
        name=dataset.name,
        batch=batch.number,
        train=sum(count.rows for count in manifest.counts if count.split is Split.TRAIN),
        test=sum(count.rows for count in manifest.counts if count.split is Split.TEST),
        left_out=sum(manifest.left_out.values()),
        sha256=dataset.manifest_sha256,
        frozen_at=dataset.frozen_at,
    )


def page_of(
    dataset: PreferenceDataset, manifest: Manifest, shown: Objective | None, rows: list[dict[str, Any]]
) -> DatasetPage:
    """The page of a dataset."""
    return DatasetPage(
        title=dataset.name,
        dataset=dataset,
        manifest=manifest,
        left_out=[
            LeftOutLine(reason=reason, count=count, meaning=LEFT_OUT_IN_WORDS[reason])
            for reason, count in manifest.left_out.items()
        ],
        strengths=list(Strength),
        safety_bins=[label for label in SafetyBin if label.is_exported],
        objectives=objectives_of(manifest),
        shown=shown,
        rows=rows,
    )


def objectives_of(manifest: Manifest) -> list[Objective]:
    """The objectives that a dataset has rows of."""
    return [objective for objective in Objective if any(file.objective is objective for file in manifest.files)]


def shown_objective(manifest: Manifest, wanted: Objective | None) -> Objective | None:
    """The objective whose rows are shown: the wanted one if it has rows, otherwise the first that has."""
    found = objectives_of(manifest)
    return wanted if wanted in found else next(iter(found), None)
