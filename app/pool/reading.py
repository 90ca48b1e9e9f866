"""Checks prompts for the pool, row by row: what they say, and what they are tagged with."""

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from app.accounts.forms import refuse_nul
from app.datasets.split import normalise
from app.pool.sources import LineProblem, Row
from contract.vocabulary import AttackVector, Objective, RiskCategory

SOURCE_CHARACTERS: Final = 200
_MOST_TURNS: Final = 100
_MOST_TAGS: Final = 20
_TAG_CHARACTERS: Final = 40
_BETWEEN_TAGS: Final = re.compile(r"[,;|\n]")


@dataclass(frozen=True)
class Tags:
    """What a prompt is tagged with, or what one is that does not say it itself."""

    objective: Objective
    risk_category: RiskCategory | None = None
    attack_vector: AttackVector | None = None
    words: tuple[str, ...] = ()
    """Words of the admin's own."""


@dataclass(frozen=True)
class NewPrompt:
    """A prompt that may join the pool."""

    turns: tuple[str, ...]
    tags: Tags
    source: str = ""
    """Where it says it comes from; empty where it says nothing."""
    line: int = 0
    """Where it stands in its file, from 1."""

    @property
    def digest(self) -> str:
        """Equal for prompts that the held-out split, too, takes for the same: case and white space do not count."""
        return hashlib.sha256(json.dumps([normalise(turn) for turn in self.turns]).encode()).hexdigest()


def as_tags(typed: object) -> object:
    """Tags as people write them, apart by commas, semicolons or bars, as a list of plain ones, each once."""
    if typed is None:
        return ()
    written = _BETWEEN_TAGS.split(typed) if isinstance(typed, str) else typed
    if not isinstance(written, list | tuple) or not all(isinstance(one, str) for one in written):
        return typed
    plain = (" ".join(unicodedata.normalize("NFKC", one).casefold().split()) for one in written)
    return tuple(dict.fromkeys(one for one in plain if one))


def _storable(text: str) -> str:
    """Refuse what no database can hold: NUL, and half a character, which JSON can spell."""
    refuse_nul(text)
    if any("\ud800" <= character <= "\udfff" for character in text):
        msg = "holds half a character"
        raise ValueError(msg)
    return text


def _plain(turn: str) -> str:
    """A turn with plain line ends and without space around it."""
    plain = turn.replace("\r\n", "\n").strip()
    if not plain:
        msg = "is empty"
        raise ValueError(msg)
    return _storable(plain)


Words = Annotated[
    tuple[Annotated[str, Field(max_length=_TAG_CHARACTERS), AfterValidator(_storable)], ...],
    BeforeValidator(as_tags),
    Field(max_length=_MOST_TAGS),
]
"""Tags of the admin's own, in a field of a form or of a file."""


class _Line(BaseModel):
    """A prompt in JSON. Other fields, which collections of prompts have, are passed over."""

    model_config = ConfigDict(extra="ignore")

    turns: list[Annotated[str, AfterValidator(_plain)]] = Field(min_length=1, max_length=_MOST_TURNS)
    objective: Objective | None = None
    risk_category: RiskCategory | None = None
    attack_vector: AttackVector | None = None
    tags: Words = ()
    source: Annotated[str, Field(max_length=SOURCE_CHARACTERS), AfterValidator(_storable)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _take_single_prompt(cls, row: object) -> object:
        """Read ``prompt`` as the only turn."""
        if isinstance(row, dict) and "turns" not in row and "prompt" in row:
            return row | {"turns": [row["prompt"]]}
        return row


def read_prompts(
    rows: Iterable[Row | LineProblem], tags: Tags, *, max_characters: int
) -> Iterator[NewPrompt | LineProblem]:
    """Each row as a prompt, or what is wrong with it."""
    for row in rows:
        if isinstance(row, LineProblem):
            yield row
            continue
        try:
            yield _read(row, tags, max_characters)
        except ValidationError as error:
            yield from (LineProblem(row.line, complaint) for complaint in _complaints(error))
        except ValueError as error:
            yield LineProblem(row.line, str(error))


def _read(row: Row, tags: Tags, max_characters: int) -> NewPrompt:
    line = _Line.model_validate(row.content)
    if any(len(turn) > max_characters for turn in line.turns):
        msg = f"a turn has more than {max_characters:,} characters"
        raise ValueError(msg)
    return NewPrompt(turns=tuple(line.turns), tags=_tags(line, tags), source=(line.source or "").strip(), line=row.line)


def _tags(row: _Line, default: Tags) -> Tags:
    """The line's own tags, and the general ones where it has none; only safety prompts carry risks."""
    objective = row.objective or default.objective
    words = tuple(dict.fromkeys((*row.tags, *default.words)))
    if objective is Objective.SAFETY:
        return Tags(
            objective=objective,
            risk_category=row.risk_category or default.risk_category,
            attack_vector=row.attack_vector or default.attack_vector,
            words=words,
        )
    if row.risk_category or row.attack_vector:
        msg = f"risk_category and attack_vector are for safety prompts, and this one is for {objective.value}"
        raise ValueError(msg)
    return Tags(objective=objective, words=words)


def _complaints(error: ValidationError) -> Iterable[str]:
    for detail in error.errors(include_url=False):
        field = " ".join(str(part + 1 if isinstance(part, int) else part) for part in detail["loc"]) or "the line"
        message = detail["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
        yield f"{field}: {message}"
