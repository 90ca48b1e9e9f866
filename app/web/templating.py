"""Renders pages and fragments: a fragment is a block of its page, and a page's context is a typed dataclass."""

import gzip
import hashlib
from dataclasses import dataclass, fields
from datetime import datetime
from functools import cache
from http import HTTPStatus
from zoneinfo import ZoneInfo

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from app.paths import STATIC, TEMPLATES
from app.web.access import VisitorView
from app.web.markdown import render_markdown

_VERSION_CHARACTERS = 12
_COMPRESS_FROM_BYTES = 1024
# Beyond this level the time doubles for a few percent.
_COMPRESSION = 4


@dataclass(frozen=True, kw_only=True)
class Page:
    """What every template may use."""

    title: str


@cache
def static_url(path: str) -> str:
    """The address of a static file; it changes with the content, so browsers may keep it for ever."""
    digest = hashlib.sha256((STATIC / path).read_bytes()).hexdigest()
    return f"/static/{path}?v={digest[:_VERSION_CHARACTERS]}"


def in_zone(moment: datetime, time_zone: str = "UTC") -> str:
    """A moment in a time zone, as people write it."""
    return moment.astimezone(ZoneInfo(time_zone)).strftime("%a %d %b %Y, %H:%M %Z")


def as_words(value: str) -> str:
    """An enum's value as words: ``slightly_better`` becomes ``slightly better``."""
    return value.replace("_", " ")


def make_environment() -> Environment:
    """The templates' environment: everything escaped, unknown names are errors."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Templates do not change while the app runs; looking would cost a system call for each of them on each page.
        auto_reload=False,
    )
    environment.globals["static_url"] = static_url
    environment.filters["markdown"] = render_markdown
    environment.filters["in_zone"] = in_zone
    environment.filters["words"] = as_words
    return environment


_ENVIRONMENT = make_environment()


def is_partial(request: Request) -> bool:
    """Whether htmx asks for a part of a page."""
    return request.headers.get("HX-Request-Type") == "partial"


def render(
    request: Request,
    name: str,
    page: Page,
    *,
    block: str | None = None,
    status: HTTPStatus = HTTPStatus.OK,
) -> HTMLResponse:
    """Render a page, or only one of its blocks when htmx asks for a part.

    ``block`` names the block that a partial request gets; without one the whole page is sent.
    """
    template = _ENVIRONMENT.get_template(name)
    visitor: VisitorView | None = getattr(request.state, "visitor", None)
    variables = {field.name: getattr(page, field.name) for field in fields(page)}
    variables |= {"visitor": visitor, "path": request.url.path}
    if block is not None and is_partial(request):
        html = "".join(template.blocks[block](template.new_context(variables)))
    else:
        html = template.render(variables)
    return _answer(request, html.encode(), status)


def _answer(request: Request, html: bytes, status: HTTPStatus) -> HTMLResponse:
    """A page that nobody keeps, compressed where the browser takes it so."""
    headers = {"Cache-Control": "no-store", "Vary": "HX-Request-Type, Accept-Encoding"}
    if len(html) >= _COMPRESS_FROM_BYTES and "gzip" in request.headers.get("Accept-Encoding", ""):
        html = gzip.compress(html, _COMPRESSION, mtime=0)
        headers["Content-Encoding"] = "gzip"
    return HTMLResponse(html, status_code=status, headers=headers)
