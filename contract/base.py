"""The base class of every message and file format that the app and the worker share."""

from pydantic import BaseModel, ConfigDict


class Contract(BaseModel):
    """An immutable message: unknown fields are refused, a docstring under a field is its description."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
