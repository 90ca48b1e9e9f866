"""Writes the folder of a training set from its members: the same members give the same bytes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from app.errors import ConflictError
from app.training_sets import card
from app.training_sets.selection import SCHEMA, Selection, Source
from contract.dataset import CARD_FILE, MANIFEST_FILE
from contract.digests import sha256_of
from contract.training_set import SetDescription, SetFile, SetManifest
from contract.vocabulary import Split

_ROW_GROUP_ROWS: Final = 1024
_ROWS_PER_FILE: Final = 200 * _ROW_GROUP_ROWS


class DamagedMemberError(ConflictError):
    """A file of a member is not the one that the training set was defined with."""


def write(
    folder: Path,
    description: SetDescription,
    sources: Sequence[Source],
    on_rows: Callable[[int], None] = lambda _count: None,
) -> SetManifest:
    """Fill an empty folder with a training set.

    Raises:
        DamagedMemberError: A file of a member is missing or is another one than its manifest says.

    """
    for source in sources:
        _require_whole(source)
    selection = Selection(description.definition, sources)
    writers = {split: _Writer(folder, split) for split in Split}
    try:
        for split, rows in selection.tables():
            writers[split].add(rows)
            on_rows(rows.num_rows)
        files = [file for split in Split for file in writers[split].finish()]
    finally:
        for writer in writers.values():
            writer.close()
    if selection.counts() != description.counts:
        msg = f"The rows of {description.name} are not those that it was made with. Was a file changed meanwhile?"
        raise DamagedMemberError(msg)
    manifest = SetManifest(**{name: getattr(description, name) for name in SetDescription.model_fields}, files=files)
    (folder / MANIFEST_FILE).write_bytes((manifest.model_dump_json(indent=2) + "\n").encode())
    (folder / CARD_FILE).write_text(card.render(manifest), encoding="utf-8", newline="\n")
    return manifest


def _require_whole(source: Source) -> None:
    for file in source.files:
        if not file.path.is_file():
            msg = f"{source.member.name}: {file.path.name} is missing in {file.path.parent}."
            raise DamagedMemberError(msg)
        if file.path.stat().st_size != file.bytes or sha256_of(file.path) != file.sha256:
            msg = f"{source.member.name}: {file.path} is damaged: its sha256 is not {file.sha256}."
            raise DamagedMemberError(msg)


class _Writer:
    """Writes ``{split}-00000-of-0000N.parquet`` in full row groups, whatever pieces the rows come in."""

    def __init__(self, folder: Path, split: Split) -> None:
        self._folder = folder
        self._split = split
        self._waiting: pa.Table = SCHEMA.empty_table()
        self._counts: list[int] = []
        self._open: pq.ParquetWriter | None = None

    def add(self, rows: pa.Table) -> None:
        """Take rows; less than a row group of them is kept in memory."""
        self._waiting = pa.concat_tables([self._waiting, rows])
        while self._waiting.num_rows >= _ROW_GROUP_ROWS:
            self._write(self._waiting.slice(0, _ROW_GROUP_ROWS))
            self._waiting = self._waiting.slice(_ROW_GROUP_ROWS)

    def finish(self) -> list[SetFile]:
        """Write what is left, and name the files now that their number is known."""
        if self._waiting.num_rows:
            self._write(self._waiting)
        self.close()
        files = []
        for number, rows in enumerate(self._counts):
            path = self._folder / f"{self._split}-{number:05d}-of-{len(self._counts):05d}.parquet"
            self._draft(number).rename(path)
            size, sha256 = path.stat().st_size, sha256_of(path)
            files.append(SetFile(path=path.name, split=self._split, rows=rows, bytes=size, sha256=sha256))
        return files

    def close(self) -> None:
        """Close what is open, whether finished or not."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _draft(self, number: int) -> Path:
        return self._folder / f"{self._split}-{number:05d}.parquet"

    def _write(self, rows: pa.Table) -> None:
        if self._open is not None and self._counts[-1] + rows.num_rows > _ROWS_PER_FILE:
            self.close()
        if self._open is None:
            path = self._draft(len(self._counts))
            self._open = pq.ParquetWriter(path, SCHEMA, version="2.6", compression="zstd", compression_level=3)
            self._counts.append(0)
        self._open.write_table(rows.combine_chunks(), row_group_size=_ROW_GROUP_ROWS)
        self._counts[-1] += rows.num_rows
