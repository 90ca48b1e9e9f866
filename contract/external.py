r"""Preference data that was collected elsewhere: the shapes of a row that are understood, and the format it is kept in.

A row has ``chosen`` and ``rejected``, and may have ``prompt``. Understood are:

- conversational: lists of ``{"role", "content"}``; without a prompt, each holds the whole conversation;
- HH form (Anthropic's hh-rlhf): ``"\n\nHuman: ...\n\nAssistant: ..."``, the whole conversation in each;
- plain text: a prompt and two responses as they are; the prompt may be in HH form.

``strength``, ``margin``, ``chosen_safe`` and ``rejected_safe`` may be given. A malformed row is an error that names the
field. A well-formed row that no chat template can say (an empty response, roles that do not alternate; real data has
some) is unusable for a reason, under which it is counted.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, Discriminator, Field, Tag, ValidationError

from contract.base import Contract
from contract.conversation import Message
from contract.vocabulary import Objective, Role, Strength

_SPEAKERS = re.compile(r"\n\n(Human|Assistant):[ ]?")
_ROLES = {"Human": Role.USER, "Assistant": Role.ASSISTANT}

EXTERNAL_FORMAT_VERSION = 1


class FileFormat(StrEnum):
    """What kind of file the rows came in."""

    JSONL = "jsonl"
    PARQUET = "parquet"


class RowForm(StrEnum):
    """How a row says a conversation."""

    CONVERSATIONAL = "conversational"
    """A prompt, and messages after it."""
    IMPLICIT_PROMPT = "implicit_prompt"
    """The whole conversation as messages in both."""
    HH = "hh"
    """The whole conversation as text with speakers in both."""
    PLAIN = "plain"
    """A prompt and two responses as plain text."""


@dataclass(frozen=True, slots=True)
class ExternalPair:
    """A usable row: a prompt with its context, and two different responses to it."""

    form: RowForm
    prompt: tuple[Message, ...]
    """The whole context; the last message is the user's."""
    chosen: str
    rejected: str
    strength: Strength | None
    margin: float | None
    chosen_safe: bool | None
    rejected_safe: bool | None


class UnusableRowError(Exception):
    """A well-formed row that cannot become a comparison; the text is the reason it is counted under."""


def _kind(value: object) -> str | None:
    if isinstance(value, str):
        return "text"
    return "messages" if isinstance(value, list | tuple) else None


def _as_utf8(side: str | tuple[Message, ...]) -> str | tuple[Message, ...]:
    """JSON can say half of a character (a lone surrogate), which no file can store."""
    for text in (side,) if isinstance(side, str) else (message.content for message in side):
        try:
            text.encode()
        except UnicodeEncodeError:
            msg = "holds half of a character, a lone surrogate"
            raise ValueError(msg) from None
    return side


_Side = Annotated[
    Annotated[str, Tag("text")] | Annotated[tuple[Message, ...], Tag("messages")],
    Discriminator(
        _kind,
        custom_error_type="text_or_messages",
        custom_error_message="Should be text, or a list of messages with role and content",
    ),
    AfterValidator(_as_utf8),
]


class _Row(BaseModel):
    chosen: _Side
    rejected: _Side
    prompt: _Side | None = None
    strength: Strength | None = None
    margin: Annotated[float, Field(allow_inf_nan=False)] | None = None
    chosen_safe: bool | None = None
    rejected_safe: bool | None = None


ROW_FIELDS = tuple(_Row.model_fields)


def parse_row(content: Mapping[str, Any]) -> ExternalPair:
    """The comparison that a row says.

    Raises:
        ValidationError: The row is malformed; `explain` names the field.
        UnusableRowError: It is well-formed, and nothing can be trained on it.

    """
    row = _Row.model_validate(content)
    chosen, rejected = _conversation(row, row.chosen), _conversation(row, row.rejected)
    prompt = chosen[:-1]
    if prompt != rejected[:-1]:
        reason = "chosen and rejected have different contexts"
        raise UnusableRowError(reason)
    if chosen[-1].content == rejected[-1].content:
        reason = "equal responses"
        raise UnusableRowError(reason)
    return ExternalPair(
        form=_form(row),
        prompt=prompt,
        chosen=chosen[-1].content,
        rejected=rejected[-1].content,
        strength=row.strength,
        margin=row.margin,
        chosen_safe=row.chosen_safe,
        rejected_safe=row.rejected_safe,
    )


def explain(error: ValidationError) -> str:
    """The first complaint of a validation, as ``field: what is wrong``, in one line."""
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or "the row"
    return f"{field}: {first['msg']}."


def parse_hh(text: str) -> tuple[Message, ...]:
    """Split a conversation in HH form into its messages; text before the first speaker is not allowed."""
    parts = _SPEAKERS.split(text)
    if parts[0].strip():
        reason = "text before the first speaker"
        raise UnusableRowError(reason)
    return tuple(
        Message(role=_ROLES[speaker], content=content.strip())
        for speaker, content in zip(parts[1::2], parts[2::2], strict=True)
    )


def _form(row: _Row) -> RowForm:
    if isinstance(row.chosen, str):
        return RowForm.PLAIN if row.prompt else RowForm.HH
    return RowForm.CONVERSATIONAL if row.prompt else RowForm.IMPLICIT_PROMPT


def _conversation(row: _Row, side: str | tuple[Message, ...]) -> tuple[Message, ...]:
    messages = _prompt(row) + _rest(row, side)
    turns = messages[1:] if messages and messages[0].role is Role.SYSTEM else messages
    expected = [Role.USER if index % 2 == 0 else Role.ASSISTANT for index in range(len(turns))]
    if not turns or turns[-1].role is not Role.ASSISTANT or [turn.role for turn in turns] != expected:
        reason = "roles do not alternate from the user to a last assistant message"
        raise UnusableRowError(reason)
    if not all(message.content.strip() for message in messages):
        reason = "empty message"
        raise UnusableRowError(reason)
    return messages


def _prompt(row: _Row) -> tuple[Message, ...]:
    if not isinstance(row.prompt, str):
        return row.prompt or ()
    if _SPEAKERS.match(row.prompt) is None:
        return (Message(role=Role.USER, content=row.prompt),) if row.prompt else ()
    messages = parse_hh(row.prompt)
    # Prompts in HH form end with "Assistant:", which the responses go on from.
    return messages[:-1] if messages[-1].role is Role.ASSISTANT and not messages[-1].content else messages


def _rest(row: _Row, side: str | tuple[Message, ...]) -> tuple[Message, ...]:
    if not isinstance(side, str):
        return side
    return (Message(role=Role.ASSISTANT, content=side),) if row.prompt else parse_hh(side)


class ExternalFile(Contract):
    """One file of an external dataset's folder."""

    path: str
    """Relative to the folder."""
    rows: int
    bytes: int
    sha256: str


class ExternalManifest(Contract):
    """Says what an external dataset's folder holds and where it came from; its sha256 names the dataset."""

    kind: Literal["external"] = "external"
    format_version: int = EXTERNAL_FORMAT_VERSION
    name: str
    source_file: str
    """What the imported file was called."""
    source_sha256: str
    """Of the imported file, byte for byte."""
    source_format: FileFormat
    forms: dict[RowForm, int]
    """Rows by the form they came in."""
    objective: Objective | None
    """What its authors judged; ``None`` where that is unknown or mixed."""
    licence: str
    source: str
    """Where it comes from, in words."""
    rows: int
    duplicates: int
    """Rows that were there already, exactly; they are kept once."""
    left_out: dict[str, int]
    """Rows that cannot be used, by reason."""
    imported_at: AwareDatetime
    files: tuple[ExternalFile, ...]
