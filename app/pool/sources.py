"""Opens a file or a text of prompts as rows, whatever its form: plain text, JSON lines or CSV."""

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from pathlib import PurePath
from typing import Any, Final, TextIO

from app.errors import InvalidInputError

_DELIMITERS: Final = ",;\t"
_MOST_TURNS: Final = 100
_TURNS: Final = {f"turn_{number}": number for number in range(1, _MOST_TURNS + 1)}
_ABOUT: Final = ("objective", "risk_category", "attack_vector", "tags", "source")
_KNOWN: Final = frozenset({"prompt", *_TURNS, *_ABOUT})
_BY_SUFFIX: Final = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}


class PromptsSourceError(InvalidInputError):
    """A file of prompts as a whole cannot be read; the message says why."""


class WrittenAs(StrEnum):
    """How prompts are written down."""

    TEXT = "text"
    """A prompt a line, as it is."""
    JSONL = "jsonl"
    """A JSON object a line."""
    CSV = "csv"
    """A table whose header names the columns."""
    LINES = "lines"
    """A line each, of which those that begin with a brace are JSON."""


@dataclass(frozen=True, slots=True)
class Row:
    """One prompt as its file says it, unchecked."""

    line: int
    """Where it begins, from 1."""
    content: Any


@dataclass(frozen=True, slots=True)
class LineProblem:
    """Why a line is no prompt."""

    line: int
    message: str

    def __str__(self) -> str:
        return f"Line {self.line}: {self.message}."


@dataclass(frozen=True, slots=True)
class Source:
    """Rows to be read once, in order."""

    form: WrittenAs
    rows: Iterator[Row | LineProblem]
    passed_over: tuple[str, ...] = ()
    """Columns of a table that mean nothing here."""


def open_source(stream: TextIO, *, name: str = "", form: WrittenAs | None = None) -> Source:
    """The rows of a stream; where the form is not said, by the name of the file, then by its first line.

    The mark that some editors put first is passed over. The stream must leave ends of lines as they are
    (``newline=""``): quoted cells may hold some.

    Raises:
        PromptsSourceError: It is a table, and its header makes no sense.

    """
    first = stream.readline().removeprefix("\ufeff")
    lines = chain([first], stream)
    form = form or _form_of(name, first)
    if form is WrittenAs.CSV:
        return _table(lines, first)
    return Source(form, _lines(lines, form))


def _form_of(name: str, first: str) -> WrittenAs:
    suffix = PurePath(name).suffix.casefold()
    if suffix in _BY_SUFFIX:
        return WrittenAs(_BY_SUFFIX[suffix])
    names = _names(first, _delimiter(first))
    is_header = bool({"prompt", "turn_1"} & set(names)) and _KNOWN.issuperset(names)
    return WrittenAs.CSV if is_header else WrittenAs.LINES


def _lines(lines: Iterable[str], form: WrittenAs) -> Iterator[Row | LineProblem]:
    for number, end_and_all in enumerate(lines, start=1):
        line = end_and_all.strip()
        if not line:
            continue
        if form is WrittenAs.TEXT or (form is WrittenAs.LINES and not line.startswith("{")):
            yield Row(number, {"turns": [line]})
        else:
            yield _json(number, line)


def _json(number: int, line: str) -> Row | LineProblem:
    try:
        content = json.loads(line)
    except json.JSONDecodeError as error:
        return LineProblem(number, f"not valid JSON, at character {error.pos + 1}: {error.msg}")
    except RecursionError:
        return LineProblem(number, "not valid JSON: too deeply nested")
    if not isinstance(content, dict):
        return LineProblem(number, "must be a JSON object with prompt or turns")
    return Row(number, content)


def _delimiter(header: str) -> str:
    """The one that gives the most known columns; spreadsheets of many countries write semicolons."""
    return max(_DELIMITERS, key=lambda one: sum(name in _KNOWN for name in _names(header, one)))


def _names(header: str, delimiter: str) -> list[str]:
    cells = next(csv.reader([header], delimiter=delimiter), [])
    return [cell.strip().casefold().replace(" ", "_") for cell in cells]


def _table(lines: Iterator[str], header: str) -> Source:
    delimiter = _delimiter(header)
    names = _names(header, delimiter)
    _require_prompts(names)
    passed_over = tuple(name or "(no name)" for name in names if name not in _KNOWN)
    return Source(WrittenAs.CSV, _table_rows(csv.reader(lines, delimiter=delimiter, strict=True), names), passed_over)


def _require_prompts(names: list[str]) -> None:
    known = "prompt, or turn_1, turn_2 and so on; " + ", ".join(_ABOUT)
    turns = sorted(_TURNS[name] for name in names if name in _TURNS)
    repeated = [name for name in dict.fromkeys(names) if name in _KNOWN and names.count(name) > 1]
    if "prompt" not in names and 1 not in turns:
        shown = ", ".join(names) or "nothing"
        problem = f"has no column prompt and no column turn_1; it has: {shown[:300]}"
    elif "prompt" in names and turns:
        problem = "has prompt as well as turn_1: use one of them"
    elif repeated:
        problem = f"has the column {repeated[0]} twice"
    elif turns != list(range(1, len(turns) + 1)):
        problem = f"has turn_{turns[-1]}, and not all turns before it"
    else:
        return
    msg = f"The header, line 1, {problem}. Columns known here: {known}."
    raise PromptsSourceError(msg)


def _table_rows(reader: Any, names: list[str]) -> Iterator[Row | LineProblem]:
    is_header = True
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield LineProblem(line, f"not valid CSV: {error}")
            continue
        if is_header:
            is_header = False
        elif len(cells) > len(names):
            yield LineProblem(
                line,
                f"has {len(cells)} cells, and the header {len(names)}: put text that holds the separator in quotes",
            )
        elif any(cell.strip() for cell in cells):
            yield Row(line, _content(dict(zip(names, cells, strict=False))))


def _content(cells: dict[str, str]) -> dict[str, Any]:
    """A row of a table as the JSON object that says the same; empty cells say nothing."""
    turns = [cells.get(name, "") for name in ("prompt", *_TURNS) if name in cells]
    while len(turns) > 1 and not turns[-1].strip():
        turns.pop()
    return {"turns": turns} | {name: cells[name].strip() for name in _ABOUT if cells.get(name, "").strip()}
