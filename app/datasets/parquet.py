"""Writes rows to Parquet files whose bytes depend on the rows alone."""

from collections import defaultdict
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Final, get_args

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from contract.dataset import FORMAT_VERSION, PreferenceRow, Provenance
from contract.vocabulary import Objective, Split

ROW_GROUP_ROWS: Final = 1024
ROWS_PER_FILE: Final = 200 * ROW_GROUP_ROWS

_TEXT = pa.string()
# The conversational format: TRL and transformers' chat templates read such columns as they are.
_MESSAGES = pa.list_(pa.struct([("role", _TEXT), ("content", _TEXT)]))
_PROVENANCE = pa.struct(
    [
        ("response_id", _TEXT),
        ("checkpoint", _TEXT),
        ("checkpoint_digest", _TEXT),
        ("temperature", pa.float64()),
        ("top_p", pa.float64()),
        ("top_k", pa.int64()),
        ("seed", pa.int64()),
        ("max_new_tokens", pa.int64()),
        ("prompt_tokens", pa.int64()),
        ("tokens", pa.int64()),
        ("finish_reason", _TEXT),
        ("engine", _TEXT),
    ]
)
SCHEMA: Final = pa.schema(
    [
        ("prompt", _MESSAGES),
        ("chosen", _MESSAGES),
        ("rejected", _MESSAGES),
        ("margin", pa.float64()),
        ("strength", _TEXT),
        ("objective", _TEXT),
        ("safety_bin", _TEXT),
        ("chosen_safe", pa.bool_()),
        ("rejected_safe", pa.bool_()),
        ("comparison_id", _TEXT),
        ("conversation_id", _TEXT),
        ("turn", pa.int64()),
        ("batch", pa.int64()),
        ("chosen_provenance", _PROVENANCE),
        ("rejected_provenance", _PROVENANCE),
        ("chosen_side", _TEXT),
        ("annotator", _TEXT),
        ("guideline_version", pa.int64()),
        ("seconds", pa.float64()),
        ("n_labels", pa.int64()),
        ("agreement", pa.float64()),
        ("risk_category", _TEXT),
        ("attack_vector", _TEXT),
        ("prompt_source", _TEXT),
        ("chosen_quality", pa.int64()),
        ("rejected_quality", pa.int64()),
        ("edited", _MESSAGES),
        ("chosen_generation", _TEXT),
        ("rejected_generation", _TEXT),
        ("late", pa.bool_()),
    ]
)
_LAST_COLUMNS_OF_OLDER_VERSIONS: Final = {1: "agreement", 2: "edited", 3: "rejected_generation"}


def schema_of(format_version: int) -> pa.Schema:
    """The columns of a version of the format; datasets of an older one are made again as they were."""
    last = SCHEMA.get_field_index(_LAST_COLUMNS_OF_OLDER_VERSIONS.get(format_version, SCHEMA.names[-1]))
    return pa.schema(list(SCHEMA)[: last + 1])


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A finished file."""

    path: Path
    objective: Objective
    split: Split
    rows: int


@dataclass(slots=True)
class _Part:
    """The files of one objective and split, of which the last one is open."""

    waiting: list[Mapping[str, Any]] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    writer: pq.ParquetWriter | None = None


class FolderWriter:
    """Sorts rows into ``{objective}/{split}-00000-of-0000N.parquet``; an objective or split without rows has none."""

    def __init__(
        self, folder: Path, *, format_version: int = FORMAT_VERSION, rows_per_file: int = ROWS_PER_FILE
    ) -> None:
        self._folder = folder
        self._schema = schema_of(format_version)
        self._rows_per_file = rows_per_file
        self._parts: dict[tuple[Objective, Split], _Part] = defaultdict(_Part)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="parquet")
        self._writing: Future[None] | None = None

    def add(self, split: Split, row: Mapping[str, Any]) -> None:
        """Take a row of plain values.

        Of each part at most one row group is in memory, and one of all that is being written: a thread encodes and
        compresses it, which is outside Python's lock, while the next rows are read.
        """
        objective = Objective(row["objective"])
        part = self._parts[objective, split]
        part.waiting.append(row)
        if len(part.waiting) == ROW_GROUP_ROWS:
            self._wait()
            rows, part.waiting = part.waiting, []
            self._writing = self._thread.submit(self._write_row_group, part, rows, objective, split)

    def finish(self) -> list[WrittenFile]:
        """Write what is left, and name the files now that their number is known."""
        self._wait()
        written = []
        for objective, split in product(Objective, Split):
            part = self._parts[objective, split]
            if part.waiting:
                self._write_row_group(part, part.waiting, objective, split)
            _close(part)
            for number, (draft, rows) in enumerate(zip(part.files, part.counts, strict=True)):
                path = draft.with_name(f"{split}-{number:05d}-of-{len(part.files):05d}.parquet")
                draft.rename(path)
                written.append(WrittenFile(path=path, objective=objective, split=split, rows=rows))
        return written

    def close(self) -> None:
        """Close what is open, whether finished or not."""
        self._thread.shutdown()
        for part in self._parts.values():
            _close(part)

    def _wait(self) -> None:
        """Let the row group that is being written be finished; what went wrong with it is raised here."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write_row_group(
        self, part: _Part, rows: Sequence[Mapping[str, Any]], objective: Objective, split: Split
    ) -> None:
        if part.writer is not None and part.counts[-1] + len(rows) > self._rows_per_file:
            _close(part)
        if part.writer is None:
            path = self._folder / objective / f"{split}-{len(part.files):05d}.parquet"
            path.parent.mkdir(exist_ok=True)
            part.writer = pq.ParquetWriter(path, self._schema, version="2.6", compression="zstd", compression_level=3)
            part.files.append(path)
            part.counts.append(0)
        table = pa.Table.from_pylist(rows, schema=self._schema)
        _require_values(table)
        part.writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
        part.counts[-1] += len(rows)


def _required(row: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The columns in which the contract allows no empty value, as Arrow names them when structs are flattened."""
    for name, described in row.model_fields.items():
        if described.annotation is Provenance:
            yield from _required(Provenance, f"{name}.")
        elif described.is_required() and type(None) not in get_args(described.annotation):
            yield prefix + name


_REQUIRED: Final = frozenset(_required(PreferenceRow))


def _require_values(table: pa.Table) -> None:
    flat = table.flatten()
    for name in flat.column_names:
        if name in _REQUIRED and flat[name].null_count:
            msg = f"{name}: a row of the dataset has no value in it, and the format wants one."
            raise ValueError(msg)


def _close(part: _Part) -> None:
    if part.writer is not None:
        part.writer.close()
        part.writer = None


@contextmanager
def folder_writer(folder: Path, *, format_version: int) -> Generator[FolderWriter]:
    """A writer whose files are closed at the end, whatever happens."""
    writer = FolderWriter(folder, format_version=format_version)
    try:
        yield writer
    finally:
        writer.close()


def first_rows(file: Path, limit: int) -> list[dict[str, Any]]:
    """The first rows of a file, without reading the others; columns that it has not are empty."""
    with pq.ParquetFile(file) as parquet:
        for record_batch in parquet.iter_batches(batch_size=limit):
            return [dict.fromkeys(SCHEMA.names) | row for row in record_batch.to_pylist()]
    return []
