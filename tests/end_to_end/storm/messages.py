"""Reads HTTP/1.1 messages whose bodies have a length, which is all that worker and app exchange."""

import asyncio
import re
from dataclasses import dataclass
from http import HTTPStatus

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)


class UnreadableMessageError(Exception):
    """A message has no length: the proxy would have to guess where it ends."""


@dataclass(frozen=True)
class HttpMessage:
    """A request or an answer."""

    head: bytes
    body: bytes

    @property
    def whole(self) -> bytes:
        """Its bytes as they are on the wire."""
        return self.head + self.body

    @property
    def verb(self) -> str:
        """Of a request: the last part of its path."""
        return self.head.split(b" ", 2)[1].decode().rsplit("/", 1)[1]

    @property
    def status(self) -> int:
        """Of an answer."""
        return int(self.head.split(b" ", 2)[1])


async def read_message(reader: asyncio.StreamReader) -> HttpMessage:
    """The next message of a connection.

    Raises:
        asyncio.IncompleteReadError: The connection ended before.

    """
    head = await reader.readuntil(b"\r\n\r\n")
    if _CHUNKED.search(head):
        raise UnreadableMessageError(head.decode(errors="replace"))
    length = _LENGTH.search(head)
    return HttpMessage(head, await reader.readexactly(int(length[1])) if length else b"")


def bad_gateway() -> HttpMessage:
    """What a load balancer says where no app process answers: a page, not our JSON."""
    body = b"<html><h1>502 Bad Gateway</h1></html>"
    status = HTTPStatus.BAD_GATEWAY
    head = f"HTTP/1.1 {status} {status.phrase}\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\n\r\n"
    return HttpMessage(head.encode(), body)
