"""HTTP to one inference server: requests, streams of server-sent events, and errors by what they mean."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from typing import Any, Final

import httpx

from model_worker.sampling.openai_compat.errors import (
    ServerAnswerError,
    ServerBusyError,
    ServerError,
    ServerRefusedError,
)
from model_worker.sampling.openai_compat.sse import read_events

_CONNECT_S: Final = 10.0
# A server that says nothing of what went wrong would fill the log with a page of HTML.
_LONGEST_DETAIL: Final = 300
_BUSY: Final = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})


class Server:
    """A keep-alive client for one event loop. Every method raises :class:`ServerError` or one of its kinds."""

    def __init__(self, url: str, *, api_key: str | None, timeout_s: float) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self._timeout_s = timeout_s
        self._http = httpx.AsyncClient(
            base_url=self.url,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(timeout_s, connect=min(_CONNECT_S, timeout_s)),
            # As many as there are responses being drawn: the sampler bounds these itself.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def get(self, path: str) -> Any:
        """The JSON of a GET request."""
        return await self._json("GET", path)

    async def post(self, path: str, body: Mapping[str, Any] | None = None, *, timeout_s: float | None = None) -> Any:
        """The JSON of a POST request; ``None`` where the answer is empty."""
        return await self._json("POST", path, body, timeout_s=timeout_s)

    @asynccontextmanager
    async def stream(
        self, path: str, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> AsyncGenerator[AsyncIterator[Mapping[str, Any]]]:
        """The events of a streamed answer. Leaving the context closes the connection, which stops the server's work."""
        with self._naming_failures(path):
            async with self._http.stream("POST", path, json=body, headers=dict(headers)) as answer:
                if not answer.is_success:
                    await answer.aread()
                    raise _error_of(path, answer)
                yield read_events(answer.aiter_bytes())

    async def _json(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, timeout_s: float | None = None
    ) -> Any:
        with self._naming_failures(path):
            timeout = httpx.Timeout(timeout_s or self._timeout_s, connect=min(_CONNECT_S, self._timeout_s))
            answer = await self._http.request(method, path, json=body, timeout=timeout)
        if not answer.is_success:
            raise _error_of(path, answer)
        if not answer.content:
            return None
        try:
            return answer.json()
        except ValueError as error:
            msg = f"{self.url}{path} answered with something that is not JSON: {_shortened(answer.text)}"
            raise ServerAnswerError(msg) from error

    @contextmanager
    def _naming_failures(self, path: str) -> Generator[None]:
        try:
            yield
        except httpx.TimeoutException as error:
            msg = f"{self.url}{path} said nothing for too long ({type(error).__name__})."
            raise ServerError(msg) from error
        except httpx.HTTPError as error:
            msg = f"{self.url}{path} cannot be reached or broke off: {error or type(error).__name__}"
            raise ServerError(msg) from error


def _error_of(path: str, answer: httpx.Response) -> ServerError:
    status = answer.status_code
    msg = f"{path} answered {status}: {_detail(answer)}"
    if status in _BUSY:
        return ServerBusyError(msg, retry_after_s=_retry_after_s(answer))
    if answer.is_client_error:
        return ServerRefusedError(msg, status=status)
    return ServerError(msg)


def _retry_after_s(answer: httpx.Response) -> float | None:
    """Seconds; a date, which the header may hold too, is left to our own back-off."""
    given = answer.headers.get("Retry-After", "")
    return float(given) if given.isdecimal() else None


def _detail(answer: httpx.Response) -> str:
    """The message in an error's body: each server puts it elsewhere."""
    try:
        body = answer.json()
    except ValueError:
        return _shortened(answer.text)
    while isinstance(body, dict) and (inner := [body[key] for key in ("error", "message", "detail") if key in body]):
        body = inner[0]
    return _shortened(body if isinstance(body, str) else json.dumps(body))


def _shortened(text: str) -> str:
    text = " ".join(text.split()) or "(nothing)"
    return text if len(text) <= _LONGEST_DETAIL else f"{text[:_LONGEST_DETAIL]}..."
