"""Training sets: a named union of datasets with a margin scheme and a filter, and the folder it is written to."""

import hashlib
import json
import re
from enum import StrEnum
from typing import Literal

from pydantic import AwareDatetime, Field, field_validator

from contract.base import Contract
from contract.vocabulary import MarginScheme, Objective, SafetyBin, Split, Strength

SET_FORMAT_VERSION = 1

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def set_name(name: str) -> str:
    """A name that training sets and external datasets can have: it is also that of a folder.

    Raises:
        ValueError: It cannot be one.

    """
    if _NAME.fullmatch(name) is None:
        msg = "use up to 100 letters, digits, dots, dashes and underscores; start with a letter or digit"
        raise ValueError(msg)
    return name


class MemberKind(StrEnum):
    """Where a member of a training set comes from."""

    FROZEN = "frozen"
    """A frozen dataset of this installation."""
    EXTERNAL = "external"
    """Preference data that was collected elsewhere and imported."""


class SetMember(Contract):
    """One dataset of a training set."""

    kind: MemberKind
    name: str
    manifest_sha256: str
    """Names exactly this dataset, with every file of it."""


class SetFilter(Contract):
    """Which rows of the members a training set takes; each list is of what is kept, and an empty one keeps all."""

    objectives: tuple[Objective, ...] = ()
    """External datasets without an objective are always kept."""
    strengths: tuple[Strength, ...] = ()
    """Llama 3 trained on the two strongest only."""
    safety_bins: tuple[SafetyBin, ...] = ()
    """Rows without a safety bin, such as all for helpfulness, are always kept. Rows of which the chosen response alone
    is unsafe are never: Llama 2 leaves them out (section 3.2.1)."""
    keeps_unrated: bool = True
    """Whether rows without a strength, which only external datasets have, are kept."""

    @field_validator("objectives", "strengths", "safety_bins")
    @classmethod
    def _in_one_way(cls, kept: tuple[StrEnum, ...]) -> tuple[StrEnum, ...]:
        """The same choice is written in the same way, whatever order it was made in; all there are is no choice."""
        there_are = {one for member in kept[:1] for one in type(member) if getattr(one, "is_exported", True)}
        return () if there_are and set(kept) >= there_are else tuple(sorted(set(kept)))

    @field_validator("safety_bins")
    @classmethod
    def _only_exported(cls, kept: tuple[SafetyBin, ...]) -> tuple[SafetyBin, ...]:
        if any(not label.is_exported for label in kept):
            msg = f"{SafetyBin.CHOSEN_UNSAFE_REJECTED_SAFE} is never kept"
            raise ValueError(msg)
        return kept


class SetDefinition(Contract):
    """Everything that decides which rows a training set has and what they say."""

    format_version: int = SET_FORMAT_VERSION
    members: tuple[SetMember, ...] = Field(min_length=1)
    margin_scheme: MarginScheme
    keep: SetFilter = SetFilter()

    @field_validator("members")
    @classmethod
    def _by_name(cls, members: tuple[SetMember, ...]) -> tuple[SetMember, ...]:
        return tuple(sorted(set(members), key=lambda member: (member.kind != MemberKind.FROZEN, member.name)))

    def digest(self) -> str:
        """The sha256, as hex, of the definition as JSON with sorted names and no white space."""
        content = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(content.encode()).hexdigest()


class SetCounts(Contract):
    """What a training set takes of one member."""

    member: str
    train: int
    test: int
    """Held-out rows; they are never trained on."""
    filtered: int
    """Rows that the filter leaves out."""
    held_out_elsewhere: int
    """External rows whose prompt with its context is held out by a frozen member; they are left out."""
    by_strength: dict[Strength, int]
    """Training rows by strength; those without one are not in it."""


class SetFile(Contract):
    """One file of a training set's folder."""

    path: str
    split: Split
    rows: int
    bytes: int
    sha256: str


class SetDescription(Contract):
    """A training set as the API tells it: enough to write its folder from its members."""

    name: str
    digest: str
    """The sha256 of the definition."""
    definition: SetDefinition
    counts: tuple[SetCounts, ...]
    created_at: AwareDatetime


class SetManifest(SetDescription):
    """Says what a training set's folder holds."""

    kind: Literal["training-set"] = "training-set"
    files: tuple[SetFile, ...]
