"""What the pages of training sets show."""

from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from app.datasets import service as datasets
from app.external import service as external
from app.models import TrainingSet
from app.training_sets import card, service
from app.training_sets.forms import EXPORTED_BINS, SetForm
from app.web.templating import Page
from contract.training_set import SetCounts, SetDescription, SetMember
from contract.vocabulary import MARGINS, MarginScheme, Objective, SafetyBin, Split, Strength

_SCHEMES = [
    (
        scheme.value,
        f"{scheme.value} ({', '.join(f'{MARGINS[scheme][strength]:.2g}' for strength in Strength)})"
        if scheme is not MarginScheme.NONE
        else "none (all 0)",
    )
    for scheme in MarginScheme
]


@dataclass(frozen=True)
class SetLine:
    """One training set in the list."""

    row: TrainingSet
    members: list[str]
    train: int
    test: int


@dataclass(frozen=True)
class MemberChoice:
    """A dataset that can be ticked."""

    name: str
    hint: str


@dataclass(frozen=True, kw_only=True)
class SetsPage(Page):
    """All training sets, and the form that defines one."""

    title: str = "Training sets"
    sets: list[SetLine]
    frozen: list[MemberChoice]
    external: list[MemberChoice]
    form: SetForm
    problems: dict[str, str]
    is_form_open: bool
    schemes: list[tuple[str, str]] = field(default_factory=lambda: _SCHEMES)
    objectives: list[Objective] = field(default_factory=lambda: list(Objective))
    strengths: list[Strength] = field(default_factory=lambda: list(Strength))
    safety_bins: list[SafetyBin] = field(default_factory=lambda: list(EXPORTED_BINS))


@dataclass(frozen=True, kw_only=True)
class SetPage(Page):
    """One training set: what it takes of which dataset."""

    described: SetDescription
    lines: list[tuple[SetMember, SetCounts]]
    train: int
    test: int
    filter_in_words: list[str]
    strengths: list[Strength]
    margins: list[tuple[Strength, float]]


def sets_page(session: Session, form: SetForm | None = None, problems: dict[str, str] | None = None) -> SetsPage:
    """All training sets; with a form that was refused, that form again."""
    sets = [_line(row) for row in service.all_sets(session)]
    return SetsPage(
        sets=sets,
        frozen=[
            MemberChoice(
                dataset.name,
                f"{sum(count.rows for count in datasets.manifest_of(dataset).counts if count.split is Split.TRAIN):,} "
                "training rows",
            )
            for dataset, _ in datasets.all_datasets(session)
        ],
        external=[
            MemberChoice(dataset.name, f"{dataset.rows:,} rows, {dataset.objective or 'objective unknown or mixed'}")
            for dataset in external.all_datasets(session)
        ],
        form=form or SetForm.untouched(),
        problems=problems or {},
        is_form_open=bool(problems) or not sets,
    )


def set_page(row: TrainingSet) -> SetPage:
    """The page of a training set."""
    described = service.description_of(row)
    scheme = described.definition.margin_scheme
    return SetPage(
        title=row.name,
        described=described,
        lines=list(zip(described.definition.members, described.counts, strict=True)),
        train=sum(count.train for count in described.counts),
        test=sum(count.test for count in described.counts),
        filter_in_words=card.in_words(described.definition.keep),
        strengths=list(Strength),
        margins=[(strength, MARGINS[scheme][strength]) for strength in Strength],
    )


def _line(row: TrainingSet) -> SetLine:
    described = service.description_of(row)
    return SetLine(
        row=row,
        members=[member.name for member in described.definition.members],
        train=sum(count.train for count in described.counts),
        test=sum(count.test for count in described.counts),
    )
