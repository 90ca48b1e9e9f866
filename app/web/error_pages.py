"""Turns failures into answers: JSON for programs, a fragment for htmx, a page for everybody else."""

from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import quote, urlsplit

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from sqlalchemy.exc import DataError, IntegrityError, OperationalError
from starlette.exceptions import HTTPException

from app.errors import AppError
from app.web.access import SignInRequiredError
from app.web.security import SECURITY_HEADERS
from app.web.templating import Page, is_partial, render
from contract.sampling import ErrorBody

_LOG = structlog.get_logger(__name__)
_API_PREFIX = "/api/"


@dataclass(frozen=True, kw_only=True)
class ErrorPage(Page):
    """What went wrong and what to do."""

    status: int
    messages: list[str]


def install(app: FastAPI) -> None:
    """Let the app answer failures."""
    app.add_exception_handler(AppError, _on_app_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_input)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(IntegrityError, _on_integrity_error)
    app.add_exception_handler(DataError, _on_data_error)
    app.add_exception_handler(OperationalError, _on_unavailable_database)
    app.add_exception_handler(Exception, _on_bug)


def _answer(request: Request, status: HTTPStatus, code: str, messages: list[str]) -> Response:
    if request.url.path.startswith(_API_PREFIX):
        body = ErrorBody(code=code, message=" ".join(messages))
        return JSONResponse({"error": body.model_dump()}, status_code=status)
    page = ErrorPage(title=status.phrase, status=status, messages=messages)
    response = render(request, "error.html", page, block="message", status=status)
    if is_partial(request):
        # The message goes above the form, which stays as it is with everything that was typed.
        response.headers.update({"HX-Retarget": "#messages", "HX-Reswap": "innerHTML"})
    return response


def _on_app_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, AppError):
        raise error
    is_page = not request.url.path.startswith(_API_PREFIX)
    if isinstance(error, SignInRequiredError) and is_page:
        if is_partial(request):
            # A part is no page, and may not even be there for GET: what comes after is the page that asked for it.
            page = urlsplit(request.headers.get("HX-Current-URL", "")).path or "/"
            headers = {"HX-Redirect": f"/sign-in?next={quote(page)}"}
            return Response(status_code=HTTPStatus.NO_CONTENT, headers=headers)
        if request.method == "GET":
            return RedirectResponse(f"/sign-in?next={quote(request.url.path)}", status_code=HTTPStatus.SEE_OTHER)
    return _answer(request, error.status, error.code, [error.message])


def _on_invalid_input(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    messages = [
        f"{'.'.join(str(part) for part in item['loc'][1:])}: {item['msg'].removeprefix('Value error, ')}."
        for item in error.errors()
    ]
    return _answer(request, HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_input", messages)


def _on_http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    status = HTTPStatus(error.status_code)
    message = "There is no such page." if status is HTTPStatus.NOT_FOUND else str(error.detail)
    return _answer(request, status, status.phrase.lower().replace(" ", "_"), [message])


def _on_integrity_error(request: Request, error: Exception) -> Response:
    # The database said no to something that a service did not expect: most often a double submission.
    _LOG.warning("integrity_error", path=request.url.path, error=str(error))
    message = "This was changed by somebody else, or sent twice. Reload the page to see how it stands."
    return _answer(request, HTTPStatus.CONFLICT, "conflict", [message])


def _on_data_error(request: Request, error: Exception) -> Response:
    # Text with a NUL character, or a number beyond what a column holds, that no form refused by name.
    _LOG.warning("data_error", path=request.url.path, error=str(error))
    message = "Something in this request cannot be stored: a NUL character, or a number that is too large."
    return _answer(request, HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_input", [message])


def _on_unavailable_database(request: Request, error: Exception) -> Response:
    _LOG.error("database_unavailable", path=request.url.path, error=str(error))
    message = "The database does not answer at present. Nothing was saved; please try again in a moment."
    return _answer(request, HTTPStatus.SERVICE_UNAVAILABLE, "database_unavailable", [message])


def _on_bug(request: Request, error: Exception) -> Response:
    _LOG.error("unexpected_error", path=request.url.path, exc_info=error)
    message = "Something went wrong on our side. Nothing was saved; please try again."
    response = _answer(request, HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", [message])
    # Starlette makes this answer outside of all middleware, also of the one that adds these headers.
    response.headers.update(SECURITY_HEADERS)
    return response
