"""Reads preference data of other formats than ours: JSON lines, gzipped or not, or Parquet, as contract.external says.

The files of a downloaded training set are such Parquet files.

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

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from contract.digests import sha256_of
from contract.external import ROW_FIELDS, UnusableRowError, explain, parse_row
from contract.vocabulary import Role
from model_worker.errors import DatasetError
from model_worker.reward.data import Comparison

_PARQUET = ".parquet"
_READ_ROWS = 2048


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
    """Read a file of preference data: Parquet by its name, JSON lines otherwise.

    Raises:
        DatasetError: The file cannot be read, or a row is malformed.

    """
    comparisons: list[Comparison] = []
    left_out: Counter[str] = Counter()
    for number, content in _rows(path) if path.suffix == _PARQUET else _lines(path):
        try:
            comparisons.append(_comparison(content, path, number))
        except ValidationError as error:
            msg = f"{path}, line {number}: {explain(error)}"
            raise DatasetError(msg) from None
        except UnusableRowError as reason:
            left_out[str(reason)] += 1
    return ExternalDataset(
        name=path.name.removesuffix(".gz").removesuffix(".jsonl").removesuffix(_PARQUET),
        sha256=sha256_of(path),
        comparisons=tuple(comparisons),
        left_out=dict(left_out),
    )


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a Parquet file, which the messages call lines as well: both count from 1."""
    try:
        with pq.ParquetFile(path) as parquet:
            columns = [name for name in ROW_FIELDS if name in parquet.schema_arrow.names]
            batches = parquet.iter_batches(batch_size=_READ_ROWS, columns=columns)
            yield from enumerate((row for rows in batches for row in rows.to_pylist()), start=1)
    except (pa.ArrowException, OSError) as error:
        msg = f"{path} cannot be read: {error}."
        raise DatasetError(msg) from None


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
