"""Reads a file of preference data row by row, whatever its kind: JSON lines, gzipped or not, or Parquet."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from app.errors import InvalidInputError
from contract.external import ROW_FIELDS, FileFormat

_GZIP: Final = b"\x1f\x8b"
_PARQUET: Final = b"PAR1"
_ROWS_AT_ONCE: Final = 1024
_LINE_BYTES: Final = 16 * 1024 * 1024


class SourceFileError(InvalidInputError):
    """A file is none of those that can be imported, or breaks off."""


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One row as it stands in the file, or what is wrong with it."""

    place: str
    """For people: ``line 3`` or ``row 3``, from 1."""
    content: dict[str, Any]
    problem: str = ""
    """Why there is no content; empty where there is."""


def format_of(path: Path) -> FileFormat:
    """What kind of file it is, by its first bytes: names of files lie."""
    with path.open("rb") as stream:
        return FileFormat.PARQUET if stream.read(len(_PARQUET)) == _PARQUET else FileFormat.JSONL


def read_rows(path: Path) -> Iterator[SourceRow]:
    """The rows of a file, a few at a time.

    Raises:
        SourceFileError: The file as a whole cannot be read.

    """
    try:
        yield from _parquet(path) if format_of(path) is FileFormat.PARQUET else _json_lines(path)
    except (pa.ArrowException, OSError, EOFError) as error:
        msg = f"The file cannot be read to its end: {error}."
        raise SourceFileError(msg) from None


def _json_lines(path: Path) -> Iterator[SourceRow]:
    with path.open("rb") as file:
        is_gzip = file.read(len(_GZIP)) == _GZIP
    with gzip.open(path) if is_gzip else path.open("rb") as stream:
        number = 0
        while line := stream.readline(_LINE_BYTES):
            number += 1
            if len(line) == _LINE_BYTES:
                msg = f"line {number} has more than {_LINE_BYTES:,} bytes. Is this a file with a JSON object a line?"
                raise SourceFileError(msg)
            if line.strip():
                yield _json_line(line, f"line {number}")


def _json_line(line: bytes, place: str) -> SourceRow:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        return SourceRow(place, {}, f"is not valid JSON: {error}.")
    if not isinstance(content, dict):
        return SourceRow(place, {}, "must be a JSON object with chosen and rejected.")
    return SourceRow(place, content)


def _parquet(path: Path) -> Iterator[SourceRow]:
    with pq.ParquetFile(path) as parquet:
        there = parquet.schema_arrow.names
        missing = [name for name in ("chosen", "rejected") if name not in there]
        if missing:
            msg = f"The Parquet file has no column {' and no column '.join(missing)}; it has {', '.join(there)}."
            raise SourceFileError(msg)
        number = 0
        columns = [name for name in ROW_FIELDS if name in there]
        for rows in parquet.iter_batches(batch_size=_ROWS_AT_ONCE, columns=columns):
            for content in rows.to_pylist():
                number += 1
                yield SourceRow(f"row {number}", content)
