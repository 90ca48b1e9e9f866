"""The base of all expected failures: a status, a stable code and a message that helps."""

from http import HTTPStatus
from typing import ClassVar


class AppError(Exception):
    """An expected failure. Routes never catch it: one handler turns it into a page, a fragment or JSON."""

    status: ClassVar[HTTPStatus] = HTTPStatus.BAD_REQUEST
    code: ClassVar[str] = "bad_request"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class NotFoundError(AppError):
    """The thing does not exist, or is none of the caller's business: the two look the same on purpose."""

    status = HTTPStatus.NOT_FOUND
    code = "not_found"


class ConflictError(AppError):
    """The request was right when it was written, but the state has moved on."""

    status = HTTPStatus.CONFLICT
    code = "conflict"


class ForbiddenError(AppError):
    """The caller is known and may not do this."""

    status = HTTPStatus.FORBIDDEN
    code = "forbidden"


class InvalidInputError(AppError):
    """A field of a form or message does not make sense; the message names it."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "invalid_input"
