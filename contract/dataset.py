"""The format of a preference dataset: its rows, its files and its manifest (docs/dataset-format.md)."""

from typing import Literal

from pydantic import AwareDatetime, Field

from contract.base import Contract
from contract.conversation import Message
from contract.vocabulary import (
    AttackVector,
    FinishReason,
    Generation,
    LeftOut,
    MarginScheme,
    Objective,
    RiskCategory,
    SafetyBin,
    Side,
    Split,
    Strength,
)

FORMAT_VERSION = 4
READABLE_VERSIONS = frozenset({1, 2, 3, 4})
"""Version 1 lacks the columns from ``risk_category`` on, version 2 those from ``chosen_generation`` on, version 3
``late``.

The manifest says ``changes``, ``licence`` and ``card_sha256`` from version 4 on.
"""
_FIRST_WITH_CHANGES = 4
MANIFEST_FILE = "manifest.json"
CARD_FILE = "README.md"


class Provenance(Contract):
    """Which checkpoint and settings made a response."""

    response_id: str
    checkpoint: str
    checkpoint_digest: str
    temperature: float
    top_p: float
    top_k: int
    seed: int
    max_new_tokens: int
    prompt_tokens: int
    tokens: int
    finish_reason: FinishReason
    engine: str


class PreferenceRow(Contract):
    """One comparison in the conversational preference format that TRL reads as it is, with all that is known of it."""

    prompt: tuple[Message, ...]
    """The whole context; the last message is the user's."""
    chosen: tuple[Message, ...]
    """One assistant message."""
    rejected: tuple[Message, ...]
    """One assistant message."""
    margin: float
    strength: Strength
    objective: Objective
    safety_bin: SafetyBin | None
    """``None`` for helpfulness, where no safety label is collected."""
    chosen_safe: bool | None
    rejected_safe: bool | None
    comparison_id: str
    conversation_id: str
    turn: int
    """Counts from 1."""
    batch: int
    """The batch's number."""
    chosen_provenance: Provenance
    rejected_provenance: Provenance
    chosen_side: Side
    annotator: str
    """A keyed pseudonym: the same person has the same one in every dataset of this installation."""
    guideline_version: int
    seconds: float
    """From the moment both responses were shown to the submission."""
    n_labels: int
    """How many annotators judged this comparison; the row is the primary annotation."""
    agreement: float | None
    """The share of the other annotators who chose the same response; ``None`` where there was only one."""
    risk_category: RiskCategory | None = None
    """Of the prompt; ``None`` for helpfulness, and for prompts of the pool without one."""
    attack_vector: AttackVector | None = None
    """Of the prompt, as the risk category."""
    prompt_source: Literal["written", "pool"] | None = None
    """Whether the annotator wrote the conversation's first prompt, or it came from the prompt pool."""
    chosen_quality: int | None = None
    """From 1 to 7; ``None`` where the batch did not ask."""
    rejected_quality: int | None = None
    edited: tuple[Message, ...] | None = None
    """The chosen response as the annotator improved it: edited > chosen > rejected. ``None`` where nobody did."""
    chosen_generation: Generation | None = None
    """Whether the chosen response was asked of the newest checkpoint at that time, or of the previous one."""
    rejected_generation: Generation | None = None
    late: bool | None = None
    """Whether it was judged in the grace time, after the batch had stopped taking prompts."""


class DatasetFile(Contract):
    """One file of a dataset folder."""

    path: str
    """Relative to the folder, with forward slashes."""
    objective: Objective
    split: Split
    rows: int
    bytes: int
    sha256: str


class RowCounts(Contract):
    """Rows of one objective and split, in all and by label."""

    objective: Objective
    split: Split
    rows: int
    conversations: int
    by_strength: dict[Strength, int]
    by_safety_bin: dict[SafetyBin, int]


class CheckpointEntry(Contract):
    """A checkpoint that responses of the dataset were drawn from."""

    name: str
    digest: str
    tokenizer_digest: str
    template_digest: str
    responses: int


class GuidelineEntry(Contract):
    """A guideline version that annotators worked with."""

    objective: Objective
    version: int
    sha256: str
    annotations: int


class SplitRule(Contract):
    """How the held-out split was drawn."""

    unit: Literal["conversation"] = "conversation"
    equal_prompts: Literal["same side, across all batches"] = "same side, across all batches"
    held_out_share: float
    held_out_max: int
    """At most so many held-out comparisons per objective (Llama 2: 1,000 per batch)."""
    seed: int


class Changes(Contract):
    """What a version of a dataset changed against its parent; a conversation never changes its side."""

    excluded_annotators: tuple[str, ...]
    """Pseudonyms of those whose work the parent had and this version leaves out."""
    included_annotators: tuple[str, ...]
    """Pseudonyms of those whose work the parent left out and this version has."""
    rows_removed: int
    rows_added: int


class Manifest(Contract):
    """Says what a dataset folder holds and where it came from; its sha256 names the dataset."""

    format_version: int = FORMAT_VERSION
    name: str
    version: int
    parent: str | None
    """The dataset that this version corrects."""
    changes: Changes | None = None
    """Against the parent; ``None`` where there is none."""
    batches: tuple[int, ...]
    licence: str | None = None
    """Under which the installation gives its datasets out."""
    frozen_at: AwareDatetime
    margin_scheme: MarginScheme
    split_rule: SplitRule
    comparisons: int
    """All comparisons of the batches: rows and left-out ones together."""
    rows: int
    counts: tuple[RowCounts, ...]
    left_out: dict[LeftOut, int]
    checkpoints: tuple[CheckpointEntry, ...]
    guidelines: tuple[GuidelineEntry, ...]
    files: tuple[DatasetFile, ...] = Field(default=())
    card_sha256: str | None = None

    def to_bytes(self) -> bytes:
        """The content of the manifest's file, as its version of the format wants it."""
        later = {"changes", "licence", "card_sha256"} if self.format_version < _FIRST_WITH_CHANGES else None
        return (self.model_dump_json(indent=2, exclude=later) + "\n").encode()
