"""A small proxy between workers and app processes, whose lines can be cut, go dark, and be slow."""

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

from tests.end_to_end.storm.ledger import Exchange, Ledger
from tests.end_to_end.storm.messages import HttpMessage, bad_gateway, read_message

_SLOW_CHUNK = 512
_BROKEN = (OSError, EOFError, asyncio.LimitOverrunError)


class Line:
    """The network of one worker: a port that leads to the app processes, by turns, as a load balancer does."""

    def __init__(self, name: str, apps: Sequence[int], ledger: Ledger) -> None:
        self.name = name
        self.port = 0
        self._turns = itertools.cycle(apps)
        self._apps = len(apps)
        self._ledger = ledger
        self._connections: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}
        self._open = asyncio.Event()
        self._open.set()
        self._dark_until = 0.0
        self._slow_until = 0.0
        self._bytes_per_s = 0.0
        self._goes_dark_at: tuple[str, float] | None = None
        self._swallows: dict[str, int] = {}
        self._server: asyncio.Server | None = None

    # What happens to a line; all of it is called in the network's thread. --------------------------------------

    def cut(self) -> None:
        """Reset every connection, wherever its request is just now."""
        for writer in itertools.chain.from_iterable(self._connections.values()):
            writer.transport.abort()

    def black_out(self, seconds: float) -> None:
        """Let nothing through for a while. What was under way arrives afterwards, late."""
        loop = asyncio.get_running_loop()
        self._open.clear()
        self._dark_until = max(self._dark_until, loop.time() + seconds)
        loop.call_at(self._dark_until, self._lighten)

    def black_out_at(self, verb: str, seconds: float) -> None:
        """Go dark with the next such request on the line, which so arrives late."""
        self._goes_dark_at = (verb, seconds)

    def slow_down(self, seconds: float, bytes_per_s: float) -> None:
        """Carry little for a while."""
        self._slow_until = asyncio.get_running_loop().time() + seconds
        self._bytes_per_s = bytes_per_s

    def swallow(self, verb: str, count: int) -> None:
        """Break off the next answers to such requests in the middle: the app did it, the worker never hears so."""
        self._swallows[verb] = count

    def calm(self) -> None:
        """Carry everything, at once."""
        self._dark_until = self._slow_until = 0.0
        self._goes_dark_at = None
        self._swallows.clear()
        self._open.set()

    def _lighten(self) -> None:
        if asyncio.get_running_loop().time() >= self._dark_until:
            self._open.set()

    # Carrying ---------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and end all connections."""
        if self._server is not None:
            self._server.close()
        self.cut()
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError
        self._connections[task] = [writer]
        try:
            # A cut shows as an error of the connection or as its end, here or on the app's side.
            with contextlib.suppress(*_BROKEN):
                await self._carry(reader, writer)
        finally:
            for each in self._connections.pop(task):
                each.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_message(reader)
        while True:
            exchange = Exchange(self.name, request.verb, request.body)
            self._ledger.exchanges.append(exchange)
            if self._goes_dark_at is not None and self._goes_dark_at[0] == exchange.verb:
                self.black_out(self._goes_dark_at[1])
                self._goes_dark_at = None
            # Read on meanwhile: so the end of a worker that was killed reaches the app, as on a real network.
            following = asyncio.create_task(read_message(reader))
            try:
                answer = await self._ask(request, following)
                exchange.status, exchange.answer = answer.status, answer.body
                await self._open.wait()
                if self._is_swallowed(exchange.verb):
                    writer.write(answer.whole[: len(answer.whole) // 2])
                    await writer.drain()
                    return
                await self._send(writer, answer.whole)
                exchange.is_delivered = True
                request = await following
            finally:
                await _end(following)

    async def _ask(self, request: HttpMessage, following: "asyncio.Task[HttpMessage]") -> HttpMessage:
        await self._open.wait()
        for _ in range(self._apps):
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", next(self._turns))
            except OSError:
                continue
            mine = self._connections[_current_task()]
            mine.append(writer)
            answering = asyncio.create_task(read_message(reader))
            try:
                await self._send(writer, request.whole)
                await asyncio.wait([answering, following], return_when=asyncio.FIRST_COMPLETED)
                if not answering.done():
                    # The worker is gone, since it asks nothing new before it is answered.
                    writer.transport.abort()
                return await answering
            finally:
                mine.remove(writer)
                writer.transport.abort()
                await _end(answering)
        return bad_gateway()

    async def _send(self, writer: asyncio.StreamWriter, message: bytes) -> None:
        loop = asyncio.get_running_loop()
        for start in range(0, len(message), _SLOW_CHUNK):
            if loop.time() < self._slow_until:
                await asyncio.sleep(_SLOW_CHUNK / self._bytes_per_s)
            await self._open.wait()
            writer.write(message[start : start + _SLOW_CHUNK])
            await writer.drain()

    def _is_swallowed(self, verb: str) -> bool:
        left = self._swallows.get(verb, 0)
        self._swallows[verb] = max(left - 1, 0)
        return left > 0


class Network:
    """All lines, in a thread with a loop of its own."""

    def __init__(self, apps: Sequence[int]) -> None:
        self.ledger = Ledger()
        self._apps = apps
        self._lines: list[Line] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for line in self._lines:
            asyncio.run_coroutine_threadsafe(line.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def line(self, name: str) -> Line:
        """A new line to all app processes."""

        async def opened() -> Line:
            line = Line(name, self._apps, self.ledger)
            await line.open()
            return line

        self._lines.append(asyncio.run_coroutine_threadsafe(opened(), self._loop).result())
        return self._lines[-1]

    def call(self, do: Callable[..., None], *arguments: Any) -> None:
        """Let something happen to a line, in the network's thread."""
        happened: Future[None] = Future()

        def run() -> None:
            try:
                happened.set_result(do(*arguments))
            except Exception as error:  # noqa: BLE001 - goes to the caller
                happened.set_exception(error)

        self._loop.call_soon_threadsafe(run)
        happened.result()


def _current_task() -> "asyncio.Task[Any]":
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError
    return task


async def _end(reading: "asyncio.Task[HttpMessage]") -> None:
    """End a task whose outcome nobody waits for."""
    reading.cancel()
    await asyncio.wait([reading])
    if not reading.cancelled():
        reading.exception()
