"""What the pages of external datasets show."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.external.drafts import Draft, Wanted
from app.models import ExternalDataset
from app.web.templating import Page
from contract.external import ExternalManifest, RowForm
from contract.vocabulary import Objective

FORMS_IN_WORDS = {
    RowForm.CONVERSATIONAL: "a prompt and messages after it",
    RowForm.IMPLICIT_PROMPT: "whole conversations as messages",
    RowForm.HH: "whole conversations in HH form",
    RowForm.PLAIN: "a prompt and responses as plain text",
}


@dataclass(frozen=True, kw_only=True)
class ExternalPage(Page):
    """All external datasets, and the form that imports one."""

    title: str = "External datasets"
    datasets: list[ExternalDataset]
    typed: Mapping[str, Any] = field(default_factory=lambda: dict.fromkeys(Wanted.model_fields, ""))
    problems: dict[str, str] = field(default_factory=dict)
    objectives: list[tuple[str, str]] = field(
        default_factory=lambda: [("", "unknown or mixed"), *((str(one), str(one)) for one in Objective)]
    )


@dataclass(frozen=True, kw_only=True)
class CheckedPage(Page):
    """A file that was checked: what it holds, what is wrong with it, and whether to import it."""

    draft: Draft
    forms: list[tuple[str, int]]


@dataclass(frozen=True, kw_only=True)
class ExternalDatasetPage(Page):
    """One external dataset: its manifest in words, and some rows to look at."""

    dataset: ExternalDataset
    manifest: ExternalManifest
    forms: list[tuple[str, int]]
    rows: list[dict[str, Any]]


def checked_page(draft: Draft) -> CheckedPage:
    """The page of a checked file."""
    return CheckedPage(title=f"Import {draft.wanted.name}", draft=draft, forms=_forms(draft.normalised.forms))


def dataset_page(
    dataset: ExternalDataset, manifest: ExternalManifest, rows: list[dict[str, Any]]
) -> ExternalDatasetPage:
    """The page of an external dataset."""
    return ExternalDatasetPage(
        title=dataset.name, dataset=dataset, manifest=manifest, forms=_forms(manifest.forms), rows=rows
    )


def _forms(counts: Mapping[RowForm, int]) -> list[tuple[str, int]]:
    return [(FORMS_IN_WORDS[form], count) for form, count in counts.items()]
