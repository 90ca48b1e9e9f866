r"""Reads preference data that was collected elsewhere: JSON lines, gzipped or not, in two shapes.

- HH form (Anthropic's hh-rlhf): ``{"chosen": "\n\nHuman: ...\n\nAssistant: ...", "rejected": ...}``.
- Conversational: ``chosen`` and ``rejected`` are lists of ``{"role", "content"}``, with ``prompt`` before them
  or with the whole conversation in each. ``strength``, ``chosen_safe`` and ``rejected_safe`` may be given.

A malformed row is an error that names the file, the line and the field. A well-formed row that no chat template
can say (an empty response, roles that do not alternate; real data has some) is left out and counted.
"""

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from contract.conversation import Message
from contract.digests import sha256_of
from contract.vocabulary import Role, Strength
from model_worker.errors import DatasetError
from model_worker.reward.data import Comparison, explain

_SPEAKERS = re.compile(r"\n\n(Human|Assistant):[ ]?")
_ROLES = {"Human": Role.USER, "Assistant": Role.ASSISTANT}


@dataclass(frozen=True, slots=True)
class ExternalDataset:
    """Comparisons from one file of another project; without strengths their margin is 0."""

    name: str
    """The file's name without its endings."""
    sha256: str
    comparisons: tuple[Comparison, ...]
    left_out: Mapping[str, int]
    """Rows that cannot be used, counted by reason."""


class _ExternalRow(BaseModel):
    chosen: str | tuple[Message, ...]
    rejected: str | tuple[Message, ...]
    prompt: tuple[Message, ...] = ()
    strength: Strength | None = None
    chosen_safe: bool | None = None
    rejected_safe: bool | None = None


class _UnusableError(Exception):
    """A well-formed row that cannot become a comparison; the text is the reason it is counted under."""


def load_external_dataset(path: Path) -> ExternalDataset:
    """Read a JSON-lines file of preference data.

    Raises:
        DatasetError: The file cannot be read, or a row is malformed.

    """
    comparisons: list[Comparison] = []
    left_out: Counter[str] = Counter()
    for number, content in _lines(path):
        try:
            row = _ExternalRow.model_validate(content)
            comparisons.append(_comparison(row, path, number))
        except ValidationError as error:
            msg = f"{path}, line {number}: {explain(error)}"
            raise DatasetError(msg) from None
        except _UnusableError as reason:
            left_out[str(reason)] += 1
    return ExternalDataset(
        name=path.name.removesuffix(".gz").removesuffix(".jsonl"),
        sha256=sha256_of(path),
        comparisons=tuple(comparisons),
        left_out=dict(left_out),
    )


def parse_hh(text: str) -> tuple[Message, ...]:
    """Split a conversation in HH form into its messages; text before the first speaker is not allowed."""
    parts = _SPEAKERS.split(text)
    if parts[0].strip():
        reason = "text before the first speaker"
        raise _UnusableError(reason)
    return tuple(
        Message(role=_ROLES[speaker], content=content.strip())
        for speaker, content in zip(parts[1::2], parts[2::2], strict=True)
    )


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


def _comparison(row: _ExternalRow, path: Path, number: int) -> Comparison:
    chosen, rejected = _conversation(row, row.chosen), _conversation(row, row.rejected)
    prompt = chosen[:-1]
    if prompt != rejected[:-1]:
        reason = "chosen and rejected have different contexts"
        raise _UnusableError(reason)
    if chosen[-1].content == rejected[-1].content:
        reason = "equal responses"
        raise _UnusableError(reason)
    return Comparison(
        comparison_id=f"{path.name}:{number}",
        # Without ids, comparisons that open with the same prompt are taken for one conversation.
        conversation_key=f"{path.name}\0{next(m.content for m in prompt if m.role is Role.USER)}",
        prompt=prompt,
        chosen=chosen[-1].content,
        rejected=rejected[-1].content,
        strength=row.strength,
        chosen_safe=row.chosen_safe,
        rejected_safe=row.rejected_safe,
        chosen_side=None,
    )


def _conversation(row: _ExternalRow, side: str | tuple[Message, ...]) -> tuple[Message, ...]:
    messages = row.prompt + (parse_hh(side) if isinstance(side, str) else side)
    turns = messages[1:] if messages and messages[0].role is Role.SYSTEM else messages
    expected = [Role.USER if index % 2 == 0 else Role.ASSISTANT for index in range(len(turns))]
    if not turns or turns[-1].role is not Role.ASSISTANT or [turn.role for turn in turns] != expected:
        reason = "roles do not alternate from the user to a last assistant message"
        raise _UnusableError(reason)
    if not all(message.content.strip() for message in messages):
        reason = "empty message"
        raise _UnusableError(reason)
    return messages
