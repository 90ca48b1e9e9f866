"""Reads server-sent events from bytes: the JSON of each, until the stream says ``[DONE]`` or ends.

Own code rather than ``httpx``'s ``aiter_lines``, which also splits at U+2028 and the like: these are letters of JSON.
"""

import json
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from typing import Any, Final

from model_worker.sampling.openai_compat.errors import ServerAnswerError

_DONE: Final = b"[DONE]"
_FIELD: Final = b"data:"
# No event of a stream comes near; a server that never ends a line must not fill the memory.
_LONGEST_LINE: Final = 1 << 24


async def read_events(content: AsyncIterable[bytes]) -> AsyncIterator[Mapping[str, Any]]:
    """The JSON object of each event.

    Every server sends an event as one ``data:`` line, hence lines are not joined. A stream that ends in the middle of
    a line was cut; the half line is dropped, and the caller misses the end of the response.

    Raises:
        ServerAnswerError: An event is no JSON object, or the stream holds no events at all.

    """
    async for line in _lines(content):
        if not line or line.startswith(b":"):
            continue
        name, _, value = line.partition(b":")
        if name + b":" != _FIELD:
            if name in {b"event", b"id", b"retry"}:
                continue
            raise ServerAnswerError(_message(line))
        value = value.strip()
        if value == _DONE:
            return
        yield _object(value)


async def _lines(content: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    rest = b""
    async for chunk in content:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.rstrip(b"\r")
        if len(rest) > _LONGEST_LINE:
            msg = f"The server's stream holds a line of more than {_LONGEST_LINE} bytes."
            raise ServerAnswerError(msg)


def _object(value: bytes) -> Mapping[str, Any]:
    try:
        event = json.loads(value)
    except ValueError as error:
        raise ServerAnswerError(_message(value)) from error
    if not isinstance(event, dict):
        raise ServerAnswerError(_message(value))
    return event


def _message(line: bytes) -> str:
    return f"The server's stream holds something that is no event: {line[:200].decode(errors='replace')!r}"
