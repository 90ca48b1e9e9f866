"""A request that the app may hold for long, and that another thread can end at any moment."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, Final

import httpx

_CLOSE_S: Final = 5.0


class RequestInterruptedError(Exception):
    """The request was ended by :meth:`HeldRequests.interrupt`; whether the app acted on it is not known."""


class HeldRequests:
    """Makes one request at a time and waits for the answer; :meth:`interrupt` ends the waiting.

    A thread that waits for a socket cannot be woken by another one in a way that works with TLS, so that the request
    is a task of an event loop, which can be cancelled. The loop has a thread of its own, from the first request on.
    """

    def __init__(self, make_client: Callable[[], httpx.AsyncClient]) -> None:
        self._make_client = make_client
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: httpx.AsyncClient | None = None
        self._thread: threading.Thread | None = None
        self._under_way: Future[httpx.Response] | None = None
        self._is_interrupted = False

    def post(self, path: str, **arguments: Any) -> httpx.Response:
        """Make a request, with the arguments of ``httpx.AsyncClient.post``.

        Raises:
            RequestInterruptedError: Another thread has interrupted it, or did so just before.
            httpx.HTTPError: As ever.

        """
        with self._lock:
            # An interruption that comes just before the request means it too: its sender cannot know.
            is_interrupted, self._is_interrupted = self._is_interrupted, False
            if is_interrupted:
                raise RequestInterruptedError
            future = self._start(path, arguments)
            self._under_way = future
        try:
            return future.result()
        except CancelledError:
            raise RequestInterruptedError from None
        finally:
            with self._lock:
                self._under_way = None

    def interrupt(self) -> None:
        """End the request that is under way, or else the next one."""
        with self._lock:
            if self._under_way is None:
                self._is_interrupted = True
            else:
                self._under_way.cancel()

    def close(self) -> None:
        """End what is under way, close the connections, and end the thread."""
        self.interrupt()
        with self._lock:
            loop, client, thread = self._loop, self._client, self._thread
            self._loop = self._client = self._thread = None
        if loop is None or client is None or thread is None:
            return
        asyncio.run_coroutine_threadsafe(_end(client), loop).result(_CLOSE_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_CLOSE_S)
        if not thread.is_alive():
            loop.close()

    def _start(self, path: str, arguments: dict[str, Any]) -> Future[httpx.Response]:
        if self._loop is None or self._client is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="held-requests", daemon=True)
            self._thread.start()
            self._client = self._make_client()
        request: Coroutine[Any, Any, httpx.Response] = self._client.post(path, **arguments)
        return asyncio.run_coroutine_threadsafe(request, self._loop)


async def _end(client: httpx.AsyncClient) -> None:
    """Let cancelled requests give their connections back, then close these."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*others, return_exceptions=True)
    await client.aclose()
