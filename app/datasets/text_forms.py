"""Says the rows of a dataset as text: as JSON lines with every column, or as conversations in HH form."""

import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from app.datasets import store
from contract.dataset import DatasetFile, Manifest
from contract.vocabulary import Objective, Role, Split

_ROWS_AT_ONCE: Final = 256
_SPEAKERS: Final = {Role.USER: "Human", Role.ASSISTANT: "Assistant"}
_SPEAKS: Final = re.compile(r"\n\n(Human|Assistant):")
_HH_COLUMNS: Final = ("prompt", "chosen", "rejected")
# Some readers take these for ends of lines.
_LINE_ENDS: Final = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}
# A gzip header with no time in it: the same rows give the same bytes.
_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS


class TextForm(StrEnum):
    """How rows are said as text."""

    JSONL = "jsonl"
    """A JSON object a line with every column, as in the Parquet files."""
    HH = "hh"
    r"""A JSON object a line with ``chosen`` and ``rejected``, each ``\n\nHuman: ...\n\nAssistant: ...``."""


@dataclass(frozen=True)
class Part:
    """The rows of one objective and split, and the files that they are read from."""

    objective: Objective
    split: Split
    files: tuple[Path, ...]
    rows: int

    def pieces(self, form: TextForm) -> Iterator[bytes]:
        """The text in pieces of some hundred rows, in the order of the files; no more than a piece is in memory."""
        columns = _HH_COLUMNS if form is TextForm.HH else None
        for rows in _rows(self.files, columns):
            said = (hh_row(row) if form is TextForm.HH else row for row in rows)
            yield "".join(_line(row) for row in said if row is not None).encode()


def parts(folder: Path, manifest: Manifest) -> list[Part]:
    """The parts of a dataset that have rows.

    Raises:
        NoSuchFileError: A file of the dataset is missing.

    """
    keys = dict.fromkeys((file.objective, file.split) for file in manifest.files)
    return [part(folder, manifest, objective, split) for objective, split in keys]


def part(folder: Path, manifest: Manifest, objective: Objective, split: Split) -> Part:
    """The rows of one objective and split.

    Raises:
        NoSuchFileError: The dataset has no such rows, or a file of it is missing.

    """
    files: Sequence[DatasetFile] = [
        file for file in manifest.files if (file.objective, file.split) == (objective, split)
    ]
    if not files:
        msg = f"The dataset {manifest.name} has no rows of the objective {objective} in the split {split}."
        raise store.NoSuchFileError(msg)
    return Part(
        objective=objective,
        split=split,
        files=tuple(store.file_of(folder, manifest, file.path) for file in files),
        rows=sum(file.rows for file in files),
    )


def hh_row(row: Mapping[str, Any]) -> dict[str, str] | None:
    """A row in HH form, or ``None`` where HH form cannot say it: a message that names a speaker would become two.

    A system prompt has no speaker there, so that it is left away.
    """
    messages = [message for message in row["prompt"] if message["role"] in _SPEAKERS]
    answers = {side: row[side][0]["content"] for side in ("chosen", "rejected")}
    texts = [*(message["content"] for message in messages), *answers.values()]
    # Readers cut the space around messages off.
    is_sayable = not any(_SPEAKS.search(text) or not text.strip() for text in texts)
    if not is_sayable or answers["chosen"].strip() == answers["rejected"].strip():
        return None
    context = "".join(f"\n\n{_SPEAKERS[message['role']]}: {message['content']}" for message in messages)
    return {side: f"{context}\n\nAssistant: {answer}" for side, answer in answers.items()}


def gzipped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The pieces of a gzip file; the same content gives the same bytes."""
    packer = zlib.compressobj(wbits=_GZIP_WINDOW)
    for piece in pieces:
        if packed := packer.compress(piece):
            yield packed
    yield packer.flush()


def file_name(form: TextForm, *, is_gzip: bool = False) -> str:
    """How the file of a split ends."""
    return ("-hh" if form is TextForm.HH else "") + ".jsonl" + (".gz" if is_gzip else "")


def write(folder: Path, manifest: Manifest, target: Path, form: TextForm) -> int:
    """Write a dataset as ``{objective}/{split}.jsonl`` into an empty folder, and say how many rows that gave.

    Raises:
        NoSuchFileError: A file of the dataset is missing.

    """
    written = 0
    for one in parts(folder, manifest):
        place = target / one.objective / f"{one.split}{file_name(form)}"
        place.parent.mkdir(exist_ok=True)
        with place.open("wb") as stream:
            for piece in one.pieces(form):
                stream.write(piece)
                written += piece.count(b"\n")
    return written


def _rows(files: Iterable[Path], columns: Sequence[str] | None) -> Iterator[list[dict[str, Any]]]:
    for file in files:
        with pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(batch_size=_ROWS_AT_ONCE, columns=columns):
                yield batch.to_pylist()


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, allow_nan=False).translate(_LINE_ENDS) + "\n"
