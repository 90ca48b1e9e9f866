"""Reads preference data that was collected elsewhere: JSON lines, gzipped or not, in the shapes of contract.external.

A malformed row is an error that names the file, the line and the field. A well-formed row that nothing can be trained
on is left out and counted.
"""

import gzip
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from contract.digests import sha256_of
from contract.external import UnusableRowError, explain, parse_row
from contract.vocabulary import Role
from model_worker.errors import DatasetError
from model_worker.reward.data import Comparison


@dataclass(frozen=True, slots=True)
class ExternalDataset:
    """Comparisons from one file of another project; without strengths their margin is 0."""

    name: str
    """The file's name without its endings."""
    sha256: str
    comparisons: tuple[Comparison, ...]
    left_out: Mapping[str, int]
    """Rows that cannot be used, counted by reason."""


def load_external_dataset(path: Path) -> ExternalDataset:
    """Read a JSON-lines file of preference data.

    Raises:
        DatasetError: The file cannot be read, or a row is malformed.

    """
    comparisons: list[Comparison] = []
    left_out: Counter[str] = Counter()
    for number, content in _lines(path):
        try:
            comparisons.append(_comparison(content, path, number))
        except ValidationError as error:
            msg = f"{path}, line {number}: {explain(error)}"
            raise DatasetError(msg) from None
        except UnusableRowError as reason:
            left_out[str(reason)] += 1
    return ExternalDataset(
        name=path.name.removesuffix(".gz").removesuffix(".jsonl"),
        sha256=sha256_of(path),
        comparisons=tuple(comparisons),
        left_out=dict(left_out),
    )


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with path.open("rb") as file, gzip.open(file) if path.suffix == ".gz" else nullcontext(file) as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield number, _parse_line(line, path, number)
    except (OSError, EOFError) as error:
        msg = f"{path} cannot be read: {error}."
        raise DatasetError(msg) from None


def _parse_line(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except ValueError as error:
        msg = f"{path}, line {number} is not valid JSON: {error}."
        raise DatasetError(msg) from None
    if not isinstance(content, dict):
        msg = f"{path}, line {number} must be a JSON object with chosen and rejected."
        raise DatasetError(msg)
    return content


def _comparison(content: Mapping[str, Any], path: Path, number: int) -> Comparison:
    pair = parse_row(content)
    return Comparison(
        comparison_id=f"{path.name}:{number}",
        # Without ids, comparisons that open with the same prompt are taken for one conversation.
        conversation_key=f"{path.name}\0{next(m.content for m in pair.prompt if m.role is Role.USER)}",
        prompt=pair.prompt,
        chosen=pair.chosen,
        rejected=pair.rejected,
        strength=pair.strength,
        chosen_safe=pair.chosen_safe,
        rejected_safe=pair.rejected_safe,
        chosen_side=None,
    )
