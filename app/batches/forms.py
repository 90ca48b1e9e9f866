"""The forms of the admin's batch pages: everything arrives as text, so that a mistake can be shown as it was typed."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date, datetime
from itertools import zip_longest
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from app.accounts.forms import ProtectedForm, StorableText, refuse_nul
from app.batches import service
from app.batches.local_time import from_local, time_zones, to_local
from app.batches.service import BatchSettings, VariantSettings
from app.models import Batch, RationaleMode, ResponseDisplay, SkipPolicy
from app.web.fields import read_fields
from contract.vocabulary import Generation, Objective

_TEXT_CHARACTERS = 20_000
_MOST_VARIANTS = 8
_MOST_ANNOTATIONS = 20
TICKED = "true"


class ExtendForm(ProtectedForm):
    """Keeping an open batch open for longer."""

    closes_at: str = ""

    def read(self, batch: Batch, at: datetime) -> tuple[datetime | None, dict[str, str]]:
        """The moment, or what is wrong with it."""
        try:
            closes_at = from_local(self.closes_at, batch.time_zone)
        except ValueError as error:
            return None, {"closes_at": f"{error}."}
        if closes_at <= max(batch.closes_at, at):
            return None, {"closes_at": "must be later than the batch closes anyway."}
        return closes_at, {}


class SkipForm(ProtectedForm):
    """Skipping a week to come, or not skipping it after all."""

    starts_on: date
    is_skipped: bool


class CloseForm(ProtectedForm):
    """Ending the week early."""

    wait_for_running: bool


class GuidelineForm(ProtectedForm):
    """A new version of a guideline."""

    objective: Objective
    text: StorableText = ""

    def problems(self, current: str) -> dict[str, str]:
        """Why the text cannot be a new version."""
        if not self.text.strip():
            return {self.objective.value: "is missing: a guideline says something."}
        if len(self.text) > _TEXT_CHARACTERS:
            return {self.objective.value: f"must have at most {_TEXT_CHARACTERS:,} characters."}
        if _plain(self.text) == current:
            return {self.objective.value: "is the text of the current version; nothing would change."}
        return {}

    @property
    def plain_text(self) -> str:
        """The text with line ends as everywhere else."""
        return _plain(self.text)


@dataclass(frozen=True)
class VariantText:
    """One row of the table of variants, as typed."""

    generation: str
    temperature: str
    top_p: str
    top_k: str
    weight: str

    @property
    def is_empty(self) -> bool:
        """Whether nothing was typed: such a row is no variant, although a generation is always selected."""
        return not any(text.strip() for text in (self.temperature, self.top_p, self.top_k, self.weight))


VARIANT_FIELDS = tuple(field.name for field in fields(VariantText))


class BatchForm(ProtectedForm):
    """The settings of a batch, as typed."""

    opens_at: str = ""
    closes_at: str = ""
    time_zone: str = ""
    target_helpfulness: str = ""
    target_safety: str = ""
    generation: list[str] = Field(default_factory=list)
    temperature: list[str] = Field(default_factory=list)
    top_p: list[str] = Field(default_factory=list)
    top_k: list[str] = Field(default_factory=list)
    weight: list[str] = Field(default_factory=list)
    turns_per_conversation: str = ""
    multi_turn_share: str = ""
    max_new_tokens: str = ""
    system_prompt: str = ""
    curriculum: str = ""
    grace_minutes: str = ""
    review_share: str = ""
    held_out_share: str = ""
    held_out_max: str = ""
    pool_share: str = ""
    overlap_share: str = ""
    overlap_annotations: str = ""
    skip_policy: str = ""
    response_display: str = ""
    rationale_mode: str = ""
    asks_edit: str = ""
    asks_quality: str = ""

    @classmethod
    def of(cls, settings: BatchSettings) -> Self:
        """The form that shows some settings."""
        return cls(
            opens_at=to_local(settings.opens_at, settings.time_zone),
            closes_at=to_local(settings.closes_at, settings.time_zone),
            time_zone=settings.time_zone,
            target_helpfulness=str(settings.targets.get(Objective.HELPFULNESS, 0)),
            target_safety=str(settings.targets.get(Objective.SAFETY, 0)),
            generation=[variant.generation.value for variant in settings.variants],
            temperature=[f"{variant.temperature:g}" for variant in settings.variants],
            top_p=[f"{variant.top_p:g}" for variant in settings.variants],
            top_k=[str(variant.top_k) for variant in settings.variants],
            weight=[f"{variant.weight:g}" for variant in settings.variants],
            turns_per_conversation=str(settings.turns_per_conversation),
            multi_turn_share=f"{settings.multi_turn_share:g}",
            max_new_tokens=str(settings.max_new_tokens),
            system_prompt=settings.system_prompt,
            curriculum=settings.curriculum,
            grace_minutes=str(settings.grace_minutes),
            review_share=f"{settings.review_share:g}",
            held_out_share=f"{settings.held_out_share:g}",
            held_out_max=str(settings.held_out_max),
            pool_share=f"{settings.pool_share:g}",
            overlap_share=f"{settings.overlap_share:g}",
            overlap_annotations=str(settings.overlap_annotations),
            skip_policy=settings.skip_policy.value,
            response_display=settings.response_display.value,
            rationale_mode=settings.rationale_mode.value,
            asks_edit=TICKED if settings.asks_edit else "",
            asks_quality=TICKED if settings.asks_quality else "",
        )

    def rows(self) -> list[VariantText]:
        """The variants that were typed, row by row; rows left empty are dropped."""
        columns = zip_longest(*(getattr(self, name) for name in VARIANT_FIELDS), fillvalue="")
        return [row for row in (VariantText(*texts) for texts in columns) if not row.is_empty]

    def read(self, current: BatchSettings) -> tuple[BatchSettings | None, dict[str, str]]:
        """The settings, or a message for each field that makes no sense.

        A time that was not touched keeps its seconds, and its side of an hour that the clocks repeat.
        """
        read, problems = self.read_settings()
        if self.time_zone in time_zones():
            opens_at = _moment("opens_at", self, current, problems)
            closes_at = _moment("closes_at", self, current, problems)
        if read is None or problems:
            return None, problems
        settings = read.settings(opens_at, closes_at)
        problems = service.problems(settings)
        return (None, problems) if problems else (settings, {})

    def read_settings(self) -> "tuple[BatchFields | None, dict[str, str]]":
        """What was typed but the dates, or a message for each field that makes no sense."""
        typed = self.model_dump(exclude={"csrf_token", *VARIANT_FIELDS})
        typed["variants"] = [vars(row) for row in self.rows()]
        return read_fields(BatchFields, typed)


def _plain(text: str) -> str:
    """Text with plain line ends: browsers send two characters for each."""
    return text.replace("\r\n", "\n").strip()


def _moment(field: str, form: BatchForm, current: BatchSettings, problems: dict[str, str]) -> datetime:
    """A typed time as a moment; a time that makes no sense is noted among the problems."""
    typed: str = getattr(form, field)
    before: datetime = getattr(current, field)
    if form.time_zone == current.time_zone and typed == to_local(before, current.time_zone):
        return before
    try:
        return from_local(typed, form.time_zone)
    except ValueError as error:
        problems[field] = f"{error}."
        return before


def _known_time_zone(name: str) -> str:
    if name not in time_zones():
        msg = "must be a name such as Europe/Berlin or UTC"
        raise ValueError(msg)
    return name


TimeZone = Annotated[str, AfterValidator(_known_time_zone)]
"""The name of a time zone."""
_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Box = Annotated[bool, BeforeValidator(lambda typed: typed or False)]
"""A box to tick: a browser leaves one that is not ticked out of the form."""
_Text = Annotated[str, Field(max_length=_TEXT_CHARACTERS), AfterValidator(_plain), BeforeValidator(refuse_nul)]


class _VariantFields(BaseModel):
    """What a row of the table of variants must say."""

    generation: Generation
    temperature: float = Field(ge=0, le=10, allow_inf_nan=False)
    top_p: float = Field(gt=0, le=1, allow_inf_nan=False)
    top_k: int = Field(ge=0, le=1_000_000)
    weight: float = Field(gt=0, le=1_000_000, allow_inf_nan=False)


class BatchFields(BaseModel):
    """What the fields must say."""

    time_zone: TimeZone
    target_helpfulness: int = Field(ge=0, le=100_000_000)
    target_safety: int = Field(ge=0, le=100_000_000)
    variants: list[_VariantFields] = Field(max_length=_MOST_VARIANTS)
    turns_per_conversation: int = Field(ge=1, le=100)
    multi_turn_share: _Share
    max_new_tokens: int = Field(ge=1, le=100_000)
    system_prompt: _Text
    curriculum: _Text
    grace_minutes: int = Field(ge=0, le=100_000)
    review_share: _Share
    held_out_share: _Share
    held_out_max: int = Field(ge=0, le=100_000_000)
    pool_share: _Share
    overlap_share: _Share
    overlap_annotations: int = Field(ge=2, le=_MOST_ANNOTATIONS)
    skip_policy: SkipPolicy
    response_display: ResponseDisplay
    rationale_mode: RationaleMode
    asks_edit: Box
    asks_quality: Box

    def settings(self, opens_at: datetime, closes_at: datetime) -> BatchSettings:
        """The batch's settings."""
        targets: Mapping[Objective, int] = {
            Objective.HELPFULNESS: self.target_helpfulness,
            Objective.SAFETY: self.target_safety,
        }
        plain = self.model_dump(exclude={"target_helpfulness", "target_safety", "variants"})
        variants = [VariantSettings(**variant.model_dump()) for variant in self.variants]
        return BatchSettings(opens_at=opens_at, closes_at=closes_at, targets=targets, variants=variants, **plain)
