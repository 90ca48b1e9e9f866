"""Reads frozen preference datasets: verifies every file against the manifest, then yields comparisons."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from contract.conversation import Message, normalised_context
from contract.dataset import MANIFEST_FILE, READABLE_VERSIONS, DatasetFile, Manifest
from contract.digests import sha256_of
from contract.external import explain
from contract.vocabulary import Objective, Role, Side, Split, Strength
from model_worker.errors import DatasetError

_READ_ROWS = 2048


@dataclass(frozen=True, slots=True)
class Comparison:
    """One prompt with its context, and two responses of which the chosen one was preferred."""

    comparison_id: str
    """The dataset's id, or the file and line of an external one; for messages."""
    conversation_key: str
    """Equal for comparisons of one conversation, so that they share an optimiser step."""
    prompt: tuple[Message, ...]
    """The whole context; the last message is the user's."""
    chosen: str
    rejected: str
    strength: Strength | None
    """``None`` for external data that has none; its margin is 0."""
    chosen_safe: bool | None
    rejected_safe: bool | None
    chosen_side: Side | None


@dataclass(frozen=True, slots=True)
class PreferenceDataset:
    """The rows of one objective of a frozen dataset."""

    name: str
    manifest_sha256: str
    train: tuple[Comparison, ...]
    test: tuple[Comparison, ...]


class _Row(BaseModel):
    """What the trainer needs of `contract.dataset.PreferenceRow`; the columns of a dataset are its fields."""

    prompt: Annotated[tuple[Message, ...], Field(min_length=1)]
    chosen: Annotated[tuple[Message, ...], Field(min_length=1, max_length=1)]
    rejected: Annotated[tuple[Message, ...], Field(min_length=1, max_length=1)]
    strength: Strength
    objective: Objective
    chosen_safe: bool | None
    rejected_safe: bool | None
    comparison_id: str
    conversation_id: str
    chosen_side: Side


_ROWS = TypeAdapter(_Row)
_COLUMNS = list(_Row.model_fields)


def load_preference_dataset(folder: Path, objective: Objective) -> PreferenceDataset:
    """Read one objective of a dataset folder, after checking every file of it against the manifest.

    Raises:
        DatasetError: The folder has no manifest, a file is missing or is not the one that was frozen, or a row
            is not a preference row; the message names the file, the row (from 1) and the field.

    """
    manifest, manifest_sha256 = read_manifest(folder)
    for file in manifest.files:
        _verify(folder, file)
    splits: dict[Split, list[Comparison]] = {split: [] for split in Split}
    for file in manifest.files:
        if file.objective is objective:
            splits[file.split].extend(_read_file(folder, file))
    return PreferenceDataset(
        name=manifest.name,
        manifest_sha256=manifest_sha256,
        train=tuple(splits[Split.TRAIN]),
        test=tuple(splits[Split.TEST]),
    )


def read_manifest(folder: Path) -> tuple[Manifest, str]:
    """The manifest of a dataset folder and its sha256, which names the dataset."""
    path = folder / MANIFEST_FILE
    try:
        content = path.read_bytes()
    except OSError:
        msg = f"{folder} has no {MANIFEST_FILE}: it is not the folder of a preference dataset."
        raise DatasetError(msg) from None
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        msg = f"{path}: {explain(error)}"
        raise DatasetError(msg) from None
    if manifest.format_version not in READABLE_VERSIONS:
        known = " and ".join(str(version) for version in sorted(READABLE_VERSIONS))
        msg = f"{path}: format_version is {manifest.format_version}; this trainer reads versions {known}."
        raise DatasetError(msg)
    return manifest, hashlib.sha256(content).hexdigest()


def find_leaks(train: Sequence[Comparison], test: Sequence[Comparison]) -> tuple[str, ...]:
    """The ids of training comparisons whose prompt and context, or whose conversation, is in the held-out split.

    A held-out split that shares prompts with the training data flatters the model: an honest reward model on
    human data is right on about 63 % of pairs (Llama 2, Table 8), and much more than that means a leak.
    """
    contexts = {normalised_context(comparison.prompt) for comparison in test}
    conversations = {comparison.conversation_key for comparison in test}
    return tuple(
        comparison.comparison_id
        for comparison in train
        if comparison.conversation_key in conversations or normalised_context(comparison.prompt) in contexts
    )


def _verify(folder: Path, file: DatasetFile) -> None:
    path = folder / file.path
    if not path.resolve().is_relative_to(folder.resolve()):
        msg = f"{folder / MANIFEST_FILE}: the path {file.path} leads out of the dataset folder."
        raise DatasetError(msg)
    if not path.is_file():
        msg = f"{path} is missing, although {MANIFEST_FILE} lists it. Download the dataset again."
        raise DatasetError(msg)
    if sha256_of(path) != file.sha256:
        msg = f"{path} is not the file that was frozen: its sha256 differs from {MANIFEST_FILE}. Download it again."
        raise DatasetError(msg)


def _read_file(folder: Path, file: DatasetFile) -> Iterator[Comparison]:
    path = folder / file.path
    try:
        parquet = pq.ParquetFile(path)
        missing = [column for column in _COLUMNS if column not in parquet.schema_arrow.names]
        if missing:
            msg = f"{path} has no column {missing[0]}."
            raise DatasetError(msg)
        number = 0
        for record_batch in parquet.iter_batches(batch_size=_READ_ROWS, columns=_COLUMNS):
            for row in record_batch.to_pylist():
                number += 1
                yield _comparison(row, f"{path}, row {number}", file.objective)
    except pa.ArrowException as error:
        msg = f"{path} cannot be read as Parquet: {error}"
        raise DatasetError(msg) from None
    if number != file.rows:
        msg = f"{path} holds {number} rows; {MANIFEST_FILE} says {file.rows}."
        raise DatasetError(msg)


def _comparison(content: dict[str, Any], where: str, objective: Objective) -> Comparison:
    try:
        row = _ROWS.validate_python(content)
    except ValidationError as error:
        msg = f"{where}: {explain(error)}"
        raise DatasetError(msg) from None
    _check_row(row, where, objective)
    return Comparison(
        comparison_id=row.comparison_id,
        conversation_key=row.conversation_id,
        prompt=row.prompt,
        chosen=row.chosen[0].content,
        rejected=row.rejected[0].content,
        strength=row.strength,
        chosen_safe=row.chosen_safe,
        rejected_safe=row.rejected_safe,
        chosen_side=row.chosen_side,
    )


def _check_row(row: _Row, where: str, objective: Objective) -> None:
    """Check what types cannot say."""
    if row.objective is not objective:
        msg = f"{where}: objective: the file is of {objective.value}, the row of {row.objective.value}."
        raise DatasetError(msg)
    if row.prompt[-1].role is not Role.USER:
        msg = f"{where}: prompt: the last message must be the user's, not the {row.prompt[-1].role.value}'s."
        raise DatasetError(msg)
    for field, message in (("chosen", row.chosen[0]), ("rejected", row.rejected[0])):
        if message.role is not Role.ASSISTANT:
            msg = f"{where}: {field}: the message must be the assistant's, not the {message.role.value}'s."
            raise DatasetError(msg)
