"""Checks every row of a file and writes the usable ones as Parquet, in memory that does not grow with the texts."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ValidationError

from app.external.reading import SourceRow, format_of, read_rows
from contract.digests import sha256_of
from contract.external import (
    ExternalFile,
    ExternalPair,
    FileFormat,
    RowForm,
    UnusableRowError,
    explain,
    parse_row,
)
from contract.vocabulary import Role

_ROW_GROUP_ROWS: Final = 1024
_ROWS_PER_FILE: Final = 200 * _ROW_GROUP_ROWS
_PROBLEMS_KEPT: Final = 20
_ROWS_SHOWN: Final = 5
_DIGEST_BYTES: Final = 16

_TEXT = pa.string()
_MESSAGES = pa.list_(pa.struct([("role", _TEXT), ("content", _TEXT)]))
SCHEMA: Final = pa.schema(
    [
        ("prompt", _MESSAGES),
        ("chosen", _MESSAGES),
        ("rejected", _MESSAGES),
        ("margin", pa.float64()),
        ("strength", _TEXT),
        ("chosen_safe", pa.bool_()),
        ("rejected_safe", pa.bool_()),
    ]
)


class Normalised(BaseModel):
    """What a file holds, and the files that its rows were written to."""

    source_format: FileFormat
    source_sha256: str
    forms: dict[RowForm, int]
    rows: int
    duplicates: int
    left_out: dict[str, int]
    """Rows that cannot be used, by reason."""
    problems: list[str]
    """What is wrong with the first malformed rows: the place, the field and the complaint."""
    problem_count: int
    first_rows: list[dict[str, Any]]
    files: list[ExternalFile]


@dataclass(slots=True)
class _Tally:
    forms: Counter[RowForm] = field(default_factory=Counter)
    duplicates: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    problem_count: int = 0
    seen: set[bytes] = field(default_factory=set)
    """Digests of the rows so far: some 80 bytes of memory for each, whatever its texts."""

    def take(self, source: SourceRow) -> ExternalPair | None:
        """The row's pair, if it is usable and new; otherwise it is counted."""
        if source.problem:
            self._complain(source.place, source.problem)
            return None
        try:
            pair = parse_row(source.content)
        except ValidationError as error:
            self._complain(source.place, explain(error))
            return None
        except UnusableRowError as reason:
            self.left_out[str(reason)] += 1
            return None
        digest = _digest(pair)
        if digest in self.seen:
            self.duplicates += 1
            return None
        self.seen.add(digest)
        self.forms[pair.form] += 1
        return pair

    def _complain(self, place: str, problem: str) -> None:
        self.problem_count += 1
        if len(self.problems) < _PROBLEMS_KEPT:
            self.problems.append(f"{place}: {problem}")


def normalise(source: Path, folder: Path, on_row: Callable[[], None] = lambda: None) -> Normalised:
    """Write the usable rows of a file into an empty folder, and say what the file holds.

    Raises:
        SourceFileError: The file as a whole cannot be read.

    """
    tally = _Tally()
    first_rows: list[dict[str, Any]] = []
    writer = _Writer(folder)
    try:
        for source_row in read_rows(source):
            on_row()
            pair = tally.take(source_row)
            if pair is not None:
                row = _row(pair)
                writer.add(row)
                if len(first_rows) < _ROWS_SHOWN:
                    first_rows.append(row)
        files = writer.finish()
    finally:
        writer.close()
    return Normalised(
        source_format=format_of(source),
        source_sha256=sha256_of(source),
        forms={form: tally.forms[form] for form in RowForm if tally.forms[form]},
        rows=tally.forms.total(),
        duplicates=tally.duplicates,
        left_out=dict(sorted(tally.left_out.items())),
        problems=tally.problems,
        problem_count=tally.problem_count,
        first_rows=first_rows,
        files=files,
    )


class _Writer:
    """Writes ``data-00000-of-0000N.parquet``; the names are known when the last row is."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: list[dict[str, Any]] = []
        self._counts: list[int] = []
        self._open: pq.ParquetWriter | None = None

    def add(self, row: dict[str, Any]) -> None:
        self._waiting.append(row)
        if len(self._waiting) == _ROW_GROUP_ROWS:
            self._write()

    def finish(self) -> list[ExternalFile]:
        if self._waiting:
            self._write()
        self.close()
        files = []
        for number, rows in enumerate(self._counts):
            path = self._folder / f"data-{number:05d}-of-{len(self._counts):05d}.parquet"
            self._draft(number).rename(path)
            files.append(ExternalFile(path=path.name, rows=rows, bytes=path.stat().st_size, sha256=sha256_of(path)))
        return files

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def _draft(self, number: int) -> Path:
        return self._folder / f"data-{number:05d}.parquet"

    def _write(self) -> None:
        if self._open is not None and self._counts[-1] + len(self._waiting) > _ROWS_PER_FILE:
            self.close()
        if self._open is None:
            path = self._draft(len(self._counts))
            self._open = pq.ParquetWriter(path, SCHEMA, version="2.6", compression="zstd", compression_level=3)
            self._counts.append(0)
        self._open.write_table(pa.Table.from_pylist(self._waiting, schema=SCHEMA), row_group_size=_ROW_GROUP_ROWS)
        self._counts[-1] += len(self._waiting)
        self._waiting.clear()


def _row(pair: ExternalPair) -> dict[str, Any]:
    return {
        "prompt": [message.model_dump(mode="json") for message in pair.prompt],
        "chosen": [{"role": Role.ASSISTANT.value, "content": pair.chosen}],
        "rejected": [{"role": Role.ASSISTANT.value, "content": pair.rejected}],
        "margin": pair.margin,
        "strength": pair.strength.value if pair.strength is not None else None,
        "chosen_safe": pair.chosen_safe,
        "rejected_safe": pair.rejected_safe,
    }


def _digest(pair: ExternalPair) -> bytes:
    """What exact copies of a row have in common, whatever form they came in."""
    content = json.dumps(_row(pair), separators=(",", ":")).encode()
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest()
