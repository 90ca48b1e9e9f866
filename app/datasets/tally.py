"""Counts the rows of a dataset while they go by, for the manifest and the card."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from app.models import Checkpoint, Guideline
from contract.dataset import CheckpointEntry, GuidelineEntry, RowCounts
from contract.vocabulary import Objective, SafetyBin, Split, Strength


@dataclass(slots=True)
class Part:
    """The figures of one objective and split; sums of whole numbers, so that no order changes them."""

    rows: int = 0
    conversations: int = 0
    by_strength: Counter[Strength] = field(default_factory=Counter)
    by_safety_bin: Counter[SafetyBin] = field(default_factory=Counter)
    last_turns: int = 0
    """The number of the last exported turn, summed over conversations."""
    prompt_characters: int = 0
    """Of the last user message only."""
    response_tokens: int = 0
    """Over both responses of each row."""
    example_tokens: int = 0
    """Whole context and one response, over both responses of each row."""

    def add(self, row: Mapping[str, Any]) -> None:
        """Count a row of plain values."""
        self.rows += 1
        self.by_strength[row["strength"]] += 1
        if row["safety_bin"] is not None:
            self.by_safety_bin[row["safety_bin"]] += 1
        self.prompt_characters += len(row["prompt"][-1]["content"])
        for made in (row["chosen_provenance"], row["rejected_provenance"]):
            self.response_tokens += made["tokens"]
            self.example_tokens += made["prompt_tokens"] + made["tokens"]

    def add_conversation(self, last_turn: int) -> None:
        """Count a conversation whose rows are all counted."""
        self.conversations += 1
        self.last_turns += last_turn

    def __add__(self, other: "Part") -> "Part":
        return Part(
            rows=self.rows + other.rows,
            conversations=self.conversations + other.conversations,
            by_strength=self.by_strength + other.by_strength,
            by_safety_bin=self.by_safety_bin + other.by_safety_bin,
            last_turns=self.last_turns + other.last_turns,
            prompt_characters=self.prompt_characters + other.prompt_characters,
            response_tokens=self.response_tokens + other.response_tokens,
            example_tokens=self.example_tokens + other.example_tokens,
        )


@dataclass(slots=True)
class Tally:
    """The figures of a whole dataset."""

    parts: dict[tuple[Objective, Split], Part] = field(default_factory=dict)
    responses: Counter[str] = field(default_factory=Counter)
    """By the digest of the checkpoint that they were drawn from."""
    annotations: Counter[tuple[Objective, int]] = field(default_factory=Counter)
    """By guideline version."""

    @property
    def rows(self) -> int:
        """All rows."""
        return sum(part.rows for part in self.parts.values())

    def add(self, split: Split, row: Mapping[str, Any]) -> None:
        """Count a row of plain values."""
        objective = row["objective"]
        if (objective, split) not in self.parts:
            self.parts[objective, split] = Part()
        self.parts[objective, split].add(row)
        self.responses[row["chosen_provenance"]["checkpoint_digest"]] += 1
        self.responses[row["rejected_provenance"]["checkpoint_digest"]] += 1
        self.annotations[objective, row["guideline_version"]] += 1

    def add_conversation(self, objective: Objective, split: Split, last_turn: int) -> None:
        """Count a conversation."""
        self.parts.setdefault((objective, split), Part()).add_conversation(last_turn)

    def _in_order(self) -> list[tuple[tuple[Objective, Split], Part]]:
        return [(key, self.parts[key]) for key in product(Objective, Split) if key in self.parts]

    def counts(self) -> tuple[RowCounts, ...]:
        """Rows by objective, split and label, for the manifest."""
        return tuple(
            RowCounts(
                objective=objective,
                split=split,
                rows=part.rows,
                conversations=part.conversations,
                by_strength={strength: part.by_strength[strength] for strength in Strength},
                by_safety_bin={
                    label: part.by_safety_bin[label]
                    for label in SafetyBin
                    if objective is Objective.SAFETY and label.is_exported
                },
            )
            for (objective, split), part in self._in_order()
        )

    def checkpoints(self, known: Iterable[Checkpoint]) -> tuple[CheckpointEntry, ...]:
        """The checkpoints that responses come from, by name."""
        return tuple(
            CheckpointEntry(
                name=checkpoint.name,
                digest=checkpoint.digest,
                tokenizer_digest=checkpoint.tokenizer_digest,
                template_digest=checkpoint.template_digest,
                responses=self.responses[checkpoint.digest],
            )
            for checkpoint in sorted(known, key=lambda checkpoint: checkpoint.name)
            if self.responses[checkpoint.digest]
        )

    def guidelines(self, known: Iterable[Guideline]) -> tuple[GuidelineEntry, ...]:
        """The guideline versions that annotators followed, by objective and version."""
        return tuple(
            GuidelineEntry(
                objective=guideline.objective,
                version=guideline.version,
                sha256=hashlib.sha256(guideline.text.encode()).hexdigest(),
                annotations=self.annotations[guideline.objective, guideline.version],
            )
            for guideline in sorted(known, key=lambda guideline: (guideline.objective, guideline.version))
            if self.annotations[guideline.objective, guideline.version]
        )
