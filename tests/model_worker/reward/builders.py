"""Builds comparisons and whole dataset folders for the trainer's tests."""

import hashlib
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from contract.conversation import Message
from contract.dataset import DatasetFile, Manifest, SplitRule
from contract.vocabulary import MarginScheme, Objective, Role, SafetyBin, Side, Split, Strength
from model_worker.reward.data import Comparison

WORDS = [
    *("the", "and", "tea", "bread", "morning", "garden", "letter", "story", "green"),
    *("paper", "house", "bird", "warm", "read", "cook", "plant", "reason"),
]
GOOD_WORDS = ["please", "thank", "happy", "welcome", "sure"]


def user(content: str) -> Message:
    return Message(role=Role.USER, content=content)


def assistant(content: str) -> Message:
    return Message(role=Role.ASSISTANT, content=content)


def words(generator: random.Random, low: int, high: int) -> str:
    return " ".join(generator.choices(WORDS, k=generator.randint(low, high)))


def make_comparison(number: int = 0, **changes: Any) -> Comparison:
    fields: dict[str, Any] = {
        "comparison_id": f"comparison-{number}",
        "conversation_key": f"conversation-{number}",
        "prompt": (user(f"prompt number {number}"),),
        "chosen": "warm tea and bread",
        "rejected": "green paper",
        "strength": Strength.BETTER,
        "chosen_safe": None,
        "rejected_safe": None,
        "chosen_side": Side.A,
    }
    return Comparison(**(fields | changes))


def simulated_comparisons(conversations: int, *, seed: int, turns: int = 2, noise: float = 0.1) -> list[Comparison]:
    """Conversations in which the response with a polite word wins, but for a share of mistakes."""
    generator = random.Random(seed)
    comparisons = []
    for conversation in range(conversations):
        history: tuple[Message, ...] = ()
        for turn in range(turns):
            prompt = (*history, user(f"{seed} {conversation} {words(generator, 2, 6)}"))
            plain = words(generator, 3, 8).split()
            polite = words(generator, 2, 7).split()
            polite.insert(generator.randint(0, len(polite)), generator.choice(GOOD_WORDS))
            sides = [" ".join(polite), " ".join(plain)]
            if generator.random() < noise:
                sides.reverse()
            comparisons.append(
                make_comparison(
                    comparison_id=f"{seed}-{conversation}-{turn}",
                    conversation_key=f"{seed}-{conversation}",
                    prompt=prompt,
                    chosen=sides[0],
                    rejected=sides[1],
                    strength=generator.choice(list(Strength)),
                    chosen_side=generator.choice(list(Side)),
                )
            )
            history = (*prompt, assistant(sides[0]))
    return comparisons


def _row(comparison: Comparison, objective: Objective) -> dict[str, Any]:
    """A row with all columns of the dataset format, as far as the trainer looks; the rest is filler."""
    labels = (comparison.chosen_safe, comparison.rejected_safe)
    both = None if None in labels else SafetyBin.of(chosen_safe=bool(labels[0]), rejected_safe=bool(labels[1]))
    return {
        "prompt": [message.model_dump(mode="json") for message in comparison.prompt],
        "chosen": [assistant(comparison.chosen).model_dump(mode="json")],
        "rejected": [assistant(comparison.rejected).model_dump(mode="json")],
        "margin": 0.0,
        "strength": comparison.strength.value if comparison.strength else None,
        "objective": objective.value,
        "safety_bin": both.value if both else None,
        "chosen_safe": comparison.chosen_safe,
        "rejected_safe": comparison.rejected_safe,
        "comparison_id": comparison.comparison_id,
        "conversation_id": comparison.conversation_key,
        "turn": 1,
        "batch": 1,
        "chosen_side": comparison.chosen_side.value if comparison.chosen_side else None,
        "annotator": "someone",
    }


_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_SCHEMA = pa.schema(
    [
        *((name, _MESSAGES) for name in ("prompt", "chosen", "rejected")),
        ("margin", pa.float64()),
        *((name, pa.string()) for name in ("strength", "objective", "safety_bin")),
        *((name, pa.bool_()) for name in ("chosen_safe", "rejected_safe")),
        *((name, pa.string()) for name in ("comparison_id", "conversation_id")),
        *((name, pa.int64()) for name in ("turn", "batch")),
        *((name, pa.string()) for name in ("chosen_side", "annotator")),
    ]
)


def write_dataset(
    folder: Path,
    *,
    train: Sequence[Comparison],
    test: Sequence[Comparison] = (),
    objective: Objective = Objective.HELPFULNESS,
    name: str = "week-1",
) -> Path:
    """Write a dataset folder as the app freezes it: one file a split, and the manifest with their sha256."""
    files = []
    for split, comparisons in ((Split.TRAIN, train), (Split.TEST, test)):
        path = f"{objective.value}/{split.value}-00000-of-00001.parquet"
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pylist([_row(one, objective) for one in comparisons], schema=_SCHEMA)
        pq.write_table(table, folder / path)
        content = (folder / path).read_bytes()
        files.append(
            DatasetFile(
                path=path,
                objective=objective,
                split=split,
                rows=len(comparisons),
                bytes=len(content),
                sha256=hashlib.sha256(content).hexdigest(),
            )
        )
    write_manifest(folder, files, name=name)
    return folder


def write_manifest(folder: Path, files: Sequence[DatasetFile], *, name: str = "week-1") -> None:
    manifest = Manifest(
        name=name,
        version=1,
        parent=None,
        batches=(1,),
        frozen_at=datetime(2026, 1, 1, tzinfo=UTC),
        margin_scheme=MarginScheme.SMALL,
        split_rule=SplitRule(held_out_share=0.1, held_out_max=1000, seed=0),
        comparisons=sum(file.rows for file in files),
        rows=sum(file.rows for file in files),
        counts=(),
        left_out={},
        checkpoints=(),
        guidelines=(),
        files=tuple(files),
    )
    (folder / "manifest.json").write_text(manifest.model_dump_json(indent=2), encoding="utf-8")
