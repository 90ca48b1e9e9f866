"""Reads a long form so that a mistake shows beside its field, with everything that was typed kept."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

ModelT = TypeVar("ModelT", bound=BaseModel)

_PARSE_REASON = ", unable to parse"


def read_fields(model: type[ModelT], typed: Mapping[str, Any]) -> tuple[ModelT | None, dict[str, str]]:
    """What was typed, checked by a model: the model, or a message for each field that makes no sense."""
    try:
        return model.model_validate(typed), {}
    except ValidationError as error:
        problems: dict[str, str] = {}
        for detail in error.errors():
            field = "-".join(str(part) for part in detail["loc"]) or "form"
            problems.setdefault(field, _message(detail))
        return None, problems


def _message(detail: ErrorDetails) -> str:
    """Pydantic's message as part of a sentence about the field."""
    if detail["input"] == "":
        return "is missing."
    message = detail["msg"].removeprefix("Value error, ").partition(_PARSE_REASON)[0]
    return message.replace("Input should be", "must be").removesuffix(".") + "."
