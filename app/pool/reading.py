"""Reads prompts for the pool: one a line as plain text, or as JSON with several turns and tags."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.accounts.forms import refuse_nul
from app.datasets.split import normalise
from contract.vocabulary import AttackVector, Objective, RiskCategory

_MOST_TURNS = 100


@dataclass(frozen=True)
class Tags:
    """What a line that does not say it itself is tagged with."""

    objective: Objective
    risk_category: RiskCategory | None = None
    attack_vector: AttackVector | None = None


@dataclass(frozen=True)
class NewPrompt:
    """A prompt that may join the pool."""

    turns: tuple[str, ...]
    tags: Tags

    @property
    def digest(self) -> str:
        """Equal for prompts that the held-out split, too, takes for the same: case and white space do not count."""
        return hashlib.sha256(json.dumps([normalise(turn) for turn in self.turns]).encode()).hexdigest()


def _plain(turn: str) -> str:
    """A turn with plain line ends and without space around it."""
    plain = str(refuse_nul(turn)).replace("\r\n", "\n").strip()
    if not plain:
        msg = "is empty"
        raise ValueError(msg)
    if any("\ud800" <= character <= "\udfff" for character in plain):
        # JSON can spell half a character, which no text can hold.
        msg = "holds half a character"
        raise ValueError(msg)
    return plain


class _Line(BaseModel):
    """A prompt in JSON. Other fields, which collections of prompts have, are passed over."""

    model_config = ConfigDict(extra="ignore")

    turns: list[Annotated[str, AfterValidator(_plain)]] = Field(min_length=1, max_length=_MOST_TURNS)
    objective: Objective | None = None
    risk_category: RiskCategory | None = None
    attack_vector: AttackVector | None = None

    @model_validator(mode="before")
    @classmethod
    def _take_single_prompt(cls, row: object) -> object:
        """Read ``prompt`` as the only turn."""
        if isinstance(row, dict) and "turns" not in row and "prompt" in row:
            return row | {"turns": [row["prompt"]]}
        return row


def read_prompts(text: str, tags: Tags, *, max_characters: int) -> tuple[list[NewPrompt], list[str]]:
    """The prompts of a text, one a line, and what is wrong with lines that are none; empty lines are passed over."""
    found: list[NewPrompt] = []
    problems: list[str] = []
    # Not splitlines: a prompt may hold characters that it takes for ends of lines.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            found.append(_read(line.strip(), tags, max_characters))
        except ValidationError as error:
            problems += [f"Line {number}: {problem}" for problem in _complaints(error)]
        except ValueError as error:
            problems.append(f"Line {number}: {error}.")
    if not found and not problems:
        problems.append("There is no prompt: write one a line.")
    return found, problems


def _read(line: str, tags: Tags, max_characters: int) -> NewPrompt:
    row = _Line.model_validate(_json(line)) if line.startswith("{") else _Line(turns=[line])
    if any(len(turn) > max_characters for turn in row.turns):
        msg = f"a turn has more than {max_characters:,} characters"
        raise ValueError(msg)
    return NewPrompt(turns=tuple(row.turns), tags=_tags(row, tags))


def _json(line: str) -> object:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        msg = f"not valid JSON, at character {error.pos + 1}: {error.msg}"
        raise ValueError(msg) from None
    except RecursionError:
        msg = "not valid JSON: too deeply nested"
        raise ValueError(msg) from None


def _tags(row: _Line, default: Tags) -> Tags:
    """The line's own tags, and the general ones where it has none; only safety prompts carry risks."""
    objective = row.objective or default.objective
    if objective is Objective.SAFETY:
        return Tags(
            objective=objective,
            risk_category=row.risk_category or default.risk_category,
            attack_vector=row.attack_vector or default.attack_vector,
        )
    if row.risk_category or row.attack_vector:
        msg = f"risk_category and attack_vector are for safety prompts, and this one is for {objective.value}"
        raise ValueError(msg)
    return Tags(objective=objective)


def _complaints(error: ValidationError) -> Iterable[str]:
    for detail in error.errors(include_url=False):
        field = " ".join(str(part + 1 if isinstance(part, int) else part) for part in detail["loc"]) or "the line"
        message = detail["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
        yield f"{field}: {message}."
