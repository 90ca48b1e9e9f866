"""Checks a file or a text of prompts, and keeps what may join the pool until somebody confirms it."""

import io
import time
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final, TextIO
from uuid import UUID

from pydantic import BaseModel, TypeAdapter

from app.models import new_id, now
from app.pool.reading import NewPrompt, Tags, read_prompts
from app.pool.sources import LineProblem, PromptsSourceError, WrittenAs, open_source
from app.waiting_imports import WaitingImports
from contract.vocabulary import Objective

_PROMPTS: Final = "prompts.jsonl"
_PROBLEMS_KEPT: Final = 50
_FIRST_PROMPTS: Final = 20
_DUPLICATES_SHOWN: Final = 10
_PROMPT = TypeAdapter(NewPrompt)

Key = tuple[Objective, str]
"""What makes a prompt one of its own: its objective and its digest."""


@dataclass(frozen=True)
class Wanted:
    """What somebody says about prompts that they want to add."""

    tags: Tags
    source: str = ""
    """Of those that do not say it themselves."""
    form: WrittenAs | None = None
    """``None`` where it is to be found out."""


class FirstPrompt(BaseModel):
    """One of the first prompts of a file, to look at."""

    prompt: NewPrompt
    is_known: bool


class Duplicate(BaseModel):
    """A line that says the same as an earlier one."""

    line: int
    of_line: int


class Draft(BaseModel):
    """Checked prompts that can be added, if no line is wrong."""

    id: UUID
    name: str
    """Of the file; empty for a text that was typed."""
    source: str
    form: WrittenAs
    passed_over: tuple[str, ...]
    """Columns of a table that mean nothing here."""
    new: int
    known: int
    """Those that were in the pool already."""
    duplicates: int
    first_duplicates: list[Duplicate]
    problem_count: int
    problems: list[str]
    first: list[FirstPrompt]
    seconds: float
    checked_at: datetime

    @property
    def is_addable(self) -> bool:
        """Whether every line is a prompt and some are new."""
        return self.problem_count == 0 and self.new > 0


@dataclass
class _Tally:
    """What has been read so far."""

    lines: dict[Key, int] = field(default_factory=dict)
    """The different prompts, each with the line that said it first."""
    first: list[NewPrompt] = field(default_factory=list)
    duplicates: int = 0
    first_duplicates: list[Duplicate] = field(default_factory=list)
    problem_count: int = 0
    problems: list[str] = field(default_factory=list)

    def add_problem(self, problem: LineProblem) -> None:
        self.problem_count += 1
        if len(self.problems) < _PROBLEMS_KEPT:
            self.problems.append(str(problem))

    def is_new(self, prompt: NewPrompt) -> bool:
        """Count a prompt, and say whether no line before it said the same."""
        key = (prompt.tags.objective, prompt.digest)
        if key in self.lines:
            self.duplicates += 1
            if len(self.first_duplicates) < _DUPLICATES_SHOWN:
                self.first_duplicates.append(Duplicate(line=prompt.line, of_line=self.lines[key]))
            return False
        self.lines[key] = prompt.line
        if len(self.first) < _FIRST_PROMPTS:
            self.first.append(prompt)
        return True


def check(
    root: Path,
    wanted: Wanted,
    text: TextIO,
    name: str,
    *,
    max_characters: int,
    known_of: Callable[[Collection[Key]], Collection[Key]],
) -> Draft:
    """Check prompts, and keep the different ones until somebody confirms that they are to be added.

    ``known_of`` says which of them are in the pool already.

    Raises:
        PromptsSourceError: The file as a whole cannot be read.

    """
    began = time.perf_counter()
    draft_id = new_id()
    tally = _Tally()
    with _waiting(root).new(draft_id) as folder:
        source = open_source(text, name=name, form=wanted.form)
        with (folder / _PROMPTS).open("wb") as stream:
            for found in read_prompts(source.rows, wanted.tags, max_characters=max_characters):
                if isinstance(found, LineProblem):
                    tally.add_problem(found)
                elif tally.is_new(found):
                    stream.write(_PROMPT.dump_json(found) + b"\n")
        if not tally.lines and not tally.problem_count:
            tally.problem_count, tally.problems = 1, ["There is no prompt: write one a line."]
        known = set(known_of(tally.lines.keys()))
        draft = Draft(
            id=draft_id,
            name=name,
            source=wanted.source or name,
            form=source.form,
            passed_over=source.passed_over,
            new=len(tally.lines) - len(known),
            known=len(known),
            duplicates=tally.duplicates,
            first_duplicates=tally.first_duplicates,
            problem_count=tally.problem_count,
            problems=tally.problems,
            first=[
                FirstPrompt(prompt=prompt, is_known=(prompt.tags.objective, prompt.digest) in known)
                for prompt in tally.first
            ],
            seconds=time.perf_counter() - began,
            checked_at=now(),
        )
        _waiting(root).keep(draft)
    return draft


def get(root: Path, draft_id: UUID) -> Draft:
    """Prompts that wait to be added.

    Raises:
        NoSuchImportError: There are none, or none any more.

    """
    return _waiting(root).get(draft_id)


def discard(root: Path, draft_id: UUID) -> None:
    """Throw away prompts that wait to be added; nothing happens if there are none."""
    _waiting(root).discard(draft_id)


def prompts_of(root: Path, draft: Draft) -> Iterator[NewPrompt]:
    """The different prompts of a draft, in the order of the file."""
    with (_waiting(root).folder(draft.id) / _PROMPTS).open("rb") as stream:
        for line in stream:
            yield _PROMPT.validate_json(line)


@contextmanager
def text_of(stream: BinaryIO) -> Generator[TextIO]:
    """A file as text.

    Raises:
        PromptsSourceError: It is no text in UTF-8.

    """
    text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
    try:
        yield text
    except UnicodeDecodeError:
        msg = "The file cannot be read: it is no text in UTF-8. Spreadsheets offer CSV UTF-8 when they save."
        raise PromptsSourceError(msg) from None
    finally:
        # Closing the file is for whoever opened it.
        text.detach()


def _waiting(root: Path) -> WaitingImports[Draft]:
    return WaitingImports(root, Draft)
