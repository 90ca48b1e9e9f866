"""What the API for trainers answers: entries, files, and every failure, as its documentation says it."""

from collections.abc import Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, ConfigDict

from app.datasets import api_examples
from app.models import Batch, PreferenceDataset
from contract.sampling import ErrorBody


class DatasetEntry(BaseModel):
    """A frozen dataset in the list of the API."""

    model_config = ConfigDict(
        use_attribute_docstrings=True, json_schema_extra={"examples": [api_examples.DATASET_ENTRY]}
    )

    name: str
    version: int
    batch: int
    """The batch's number."""
    rows: int
    frozen_at: datetime
    manifest_sha256: str
    """The digest that names exactly this dataset."""

    @classmethod
    def of(cls, dataset: PreferenceDataset, batch: Batch) -> "DatasetEntry":
        """The entry of a dataset."""
        return cls(
            name=dataset.name,
            version=dataset.version,
            batch=batch.number,
            rows=dataset.rows,
            frozen_at=dataset.frozen_at,
            manifest_sha256=dataset.manifest_sha256,
        )


_ERRORS: dict[HTTPStatus, tuple[str, str]] = {
    HTTPStatus.UNAUTHORIZED: ("The API token is missing, unknown, revoked or expired.", "bad_token"),
    HTTPStatus.FORBIDDEN: ("The API token has another scope.", "wrong_scope"),
    HTTPStatus.NOT_FOUND: ("There is nothing of this name, or no such file.", "not_found"),
    HTTPStatus.CONFLICT: ("The name is taken: what a name means never changes.", "conflict"),
    HTTPStatus.UNPROCESSABLE_ENTITY: ("A field makes no sense; the message names it.", "invalid_input"),
}


class ApiError(BaseModel):
    """How every failure is answered."""

    error: ErrorBody


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The failures of a route, each with an example."""
    found: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        description, code = _ERRORS[HTTPStatus(status)]
        body = {"error": {"code": code, "message": description}}
        found[status] = {
            "model": ApiError,
            "description": description,
            "content": {"application/json": {"example": body}},
        }
    return found


def example(status: int, content: Mapping[str, Any]) -> dict[int | str, dict[str, Any]]:
    """A success, with an example of its body."""
    return {
        status: {"description": "The training set as it is.", "content": {"application/json": {"example": content}}}
    }


def manifest_responses(model: type[BaseModel], shown: Mapping[str, Any]) -> dict[int | str, dict[str, Any]]:
    """A manifest as a file; its description is that of its model."""
    content = {"application/json": {"example": shown}}
    return {200: {"model": model, "description": "The manifest, byte for byte.", "content": content}}


_BYTES = {"schema": {"type": "string", "format": "binary"}}
TEXT_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "All rows of the objective and split, one a line; packed if that is asked for.",
        "content": {"application/jsonl": _BYTES, "application/gzip": _BYTES},
    }
}
FILE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The whole file.",
        "content": {
            "application/vnd.apache.parquet": _BYTES,
            "text/markdown; charset=utf-8": _BYTES,
            "application/json": _BYTES,
        },
    },
    206: {
        "description": "A part of it, where the request has a header such as Range: bytes=1048576-.",
        "content": {"application/vnd.apache.parquet": _BYTES},
    },
    416: {"description": "The range begins behind the end of the file."},
}
