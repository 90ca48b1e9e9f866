"""Counts what this process does: requests by route, and responses taken from workers."""

import os
import time
from collections.abc import Iterable
from http import HTTPMethod, HTTPStatus
from typing import Annotated, Any, Final

from fastapi import Depends, Request
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from sqlalchemy import event
from sqlalchemy.orm import Session
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contract.sampling import SampledResponse

_REQUEST_S: Final = (0.005, 0.01, 0.02, 0.04, 0.06, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_METHODS = frozenset(HTTPMethod)
_OTHER = "other"
# prometheus-client reads the variable when it is imported, and then keeps counts in files of that folder.
SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"


class Counts:
    """Counts of one process, or of all that share a folder for them. Methods may be called from any thread."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Histogram(
            "preferably_http_request_seconds",
            "Requests by how long they took. Long polls of workers and downloads last as long as they do.",
            ["method", "route", "status"],
            buckets=_REQUEST_S,
            registry=self._registry,
        )
        self._responses = Counter(
            "preferably_responses_sampled",
            "Responses that workers delivered, by why they ended.",
            ["finish_reason"],
            registry=self._registry,
        )

    def registry(self) -> Collector:
        """What is counted, of this process or of all of them."""
        if SHARED_FOLDER not in os.environ:
            return self._registry
        shared = CollectorRegistry()
        MultiProcessCollector(shared)  # type: ignore[no-untyped-call]
        return shared

    def request_took(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._requests.labels(method, route, str(status)).observe(seconds)

    def responses_sampled(self, session: Session, responses: Iterable[SampledResponse]) -> None:
        """Count responses, once the transaction that stores them is committed."""
        reasons = [response.finish_reason.value for response in responses]

        def count(_session: Session) -> None:
            for reason in reasons:
                self._responses.labels(reason).inc()

        event.listen(session, "after_commit", count, once=True)


class CountRequests:
    """Counts requests by the route's template, never by the raw path: paths hold ids, and anybody may make them up."""

    def __init__(self, app: ASGIApp, counts: Counts) -> None:
        self.app = app
        self.counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and note how it ended."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # One that breaks is answered further out.
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR
        began = time.monotonic()

        async def send_noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, send_noting_status)
        finally:
            method = scope["method"] if scope["method"] in _METHODS else _OTHER
            self.counts.request_took(method, _template(scope), status, time.monotonic() - began)


def _template(scope: Scope) -> str:
    """The path of the route that answered, as the code has it."""
    path: Any = getattr(scope.get("route"), "path", None)
    if path is not None:
        return str(path)
    return "/static" if scope["path"].startswith("/static/") else _OTHER


def get_counts(request: Request) -> Counts:
    """The counts of this process."""
    counts: Counts = request.state.counts
    return counts


CountsDep = Annotated[Counts, Depends(get_counts)]
