"""Headers that every answer carries: nothing from elsewhere loads, nothing inline runs, nobody frames us."""

from collections.abc import MutableMapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_CSP = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'; "
    "img-src 'self' data:"
)
SECURITY_HEADERS = {
    "content-security-policy": _CSP,
    "x-content-type-options": "nosniff",
    # Sign-in links must not travel to other sites in a Referer header.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
_ENCODED = tuple((name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items())
_ONE_YEAR = b"public, max-age=31536000, immutable"


class SecurityHeaders:
    """Adds the headers as plain ASGI, since a middleware class of Starlette would buffer streams."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and complete the answer's headers."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                _complete(message, scope)
            await send(message)

        await self.app(scope, receive, send_with_headers)


def _complete(message: MutableMapping[str, Any], scope: Scope) -> None:
    headers = list(message.get("headers", []))
    headers.extend(_ENCODED)
    is_versioned = scope["path"].startswith("/static/") and b"v=" in scope.get("query_string", b"")
    if is_versioned:
        headers.append((b"cache-control", _ONE_YEAR))
    message["headers"] = headers
