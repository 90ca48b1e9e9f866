"""Many annotators in one thread: each has a connection of its own and sends the next annotation when the page is there.

This is no browser: the load shares its cores with the server, and so must cost next to nothing itself. It reads of a
page only what the next request needs.
"""

import gzip
import re
import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

_SCREEN = re.compile(rb'data-screen="(\w+)"')
_COMPARISON = re.compile(rb'data-comparison="([0-9a-f-]{36})"')
_RATING = re.compile(rb'name="rating" value="([^"]+)"')
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_TIMEOUT_S = 60.0
_READ_BYTES = 262_144


class UnexpectedAnswerError(RuntimeError):
    """The app did not answer as it should; the message says how."""


@dataclass(frozen=True)
class SignedIn:
    """What a browser of somebody who is signed in sends with every form."""

    cookie: str
    csrf_token: str


@dataclass
class Connection:
    """One request at a time, each by a connection of its own.

    So it is for people: a browser's connection has timed out before its reader has read two responses. Connections
    that stay open would also stay with the process that took them, one process perhaps having all of them.
    """

    port: int
    _socket: socket.socket | None = field(default=None, init=False)
    _received: bytearray = field(default_factory=bytearray, init=False)

    def fileno(self) -> int:
        """For a selector; valid from ``send`` to the answer."""
        return self._connected().fileno()

    def send(self, request: bytes) -> None:
        """Connect, and send a request."""
        self.close()
        self._received.clear()
        self._socket = socket.create_connection(("127.0.0.1", self.port), timeout=_TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(request)

    def receive(self) -> bytes | None:
        """Read what is there; the answer once it is complete."""
        read = self._connected().recv(_READ_BYTES)
        if not read:
            msg = "the server closed the connection"
            raise UnexpectedAnswerError(msg)
        self._received += read
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return None
        length = _LENGTH.search(self._received, 0, end + 2)
        if len(self._received) < end + 4 + (int(length[1]) if length else 0):
            return None
        return bytes(self._received)

    def ask(self, request: bytes) -> bytes:
        """Send a request and wait for the answer."""
        self.send(request)
        while True:
            answer = self.receive()
            if answer is not None:
                return answer

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connected(self) -> socket.socket:
        if self._socket is None:
            msg = "nothing was sent"
            raise RuntimeError(msg)
        return self._socket


def content(answer: bytes) -> bytes:
    """What an answer says, as it was before it was compressed."""
    head, body = answer.split(b"\r\n\r\n", 1)
    return gzip.decompress(body) if b"content-encoding: gzip" in head.lower() else body


def get(path: str, browser: SignedIn | None = None, *, extra: str = "") -> bytes:
    """A request for a page."""
    cookie = f"Cookie: {browser.cookie}\r\n" if browser else ""
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{cookie}{extra}\r\n".encode()


@dataclass
class Repeated:
    """Somebody who asks for the same page again and again."""

    connection: Connection
    request: bytes

    def next_request(self) -> bytes | None:
        """The same."""
        return self.request

    def look_at(self, answer: bytes) -> None:
        """It must be there."""
        _require(answer)


@dataclass
class Annotator:
    """Somebody who judges what is on the screen."""

    connection: Connection
    browser: SignedIn
    _screen: bytes = b""
    _comparison: bytes = b""
    _rating: bytes = b""
    judged: list[bytes] = field(default_factory=list)

    def start(self) -> None:
        """Open the page, which hands the first comparison out."""
        self.look_at(self.connection.ask(get("/annotate", self.browser, extra="Accept-Encoding: gzip\r\n")))

    def next_request(self) -> bytes | None:
        """Send the annotation of what is on the screen; nothing where nothing is to be judged."""
        if self._screen != b"judge":
            return None
        self.judged.append(self._comparison)
        body = b"revision=0&rating=" + self._rating
        browser = self.browser
        return (
            b"POST /annotate/comparisons/" + self._comparison + b"/annotation HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b"HX-Request: true\r\nHX-Request-Type: partial\r\nAccept-Encoding: gzip\r\n"
            + f"Cookie: {browser.cookie}\r\nX-CSRF-Token: {browser.csrf_token}\r\n".encode()
            + b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n" % len(body)
            + body
        )

    def look_at(self, answer: bytes) -> None:
        """See the next screen."""
        _require(answer)
        answer = content(answer)
        screen, comparison = _SCREEN.search(answer), _COMPARISON.search(answer)
        rating = _RATING.search(answer, comparison.end()) if comparison else None
        self._screen = screen[1] if screen else b""
        self._comparison = comparison[1] if comparison else b""
        self._rating = rating[1] if rating else b""


@dataclass(frozen=True)
class Run:
    """How long each answer took, and what the load itself cost."""

    seconds: Sequence[float]
    elapsed_s: float
    cpu_s: float


def drive(people: Sequence[Annotator] | Sequence[Repeated], *, seconds: float, most: int, think_s: float = 0.0) -> Run:
    """Let everybody work until the time is over, or so many requests were answered, or there is nothing to do."""
    took: list[float] = []
    selector = selectors.DefaultSelector()
    cpu, started = time.process_time(), time.perf_counter()
    deadline = started + seconds
    # With thinking, people do not begin all at once.
    due = [(started + think_s * place / len(people), place) for place in range(len(people))]
    sent: dict[int, float] = {}
    while due or sent:
        now = time.perf_counter()
        while due and due[0][0] <= now:
            place = heappop(due)[1]
            request = people[place].next_request() if now < deadline and len(took) + len(sent) < most else None
            if request is not None:
                sent[place] = time.perf_counter()
                people[place].connection.send(request)
                selector.register(people[place].connection, selectors.EVENT_READ, place)
        wait = due[0][0] - time.perf_counter() if due else _TIMEOUT_S
        events = selector.select(max(wait, 0)) if sent else []
        if not sent and due:
            time.sleep(max(wait, 0))
        if sent and not due and not events:
            msg = f"no answer within {_TIMEOUT_S:.0f} s"
            raise UnexpectedAnswerError(msg)
        for key, _ in events:
            place = key.data
            answer = people[place].connection.receive()
            if answer is None:
                continue
            arrived = time.perf_counter()
            took.append(arrived - sent.pop(place))
            selector.unregister(people[place].connection)
            people[place].look_at(answer)
            heappush(due, (arrived + think_s, place))
    selector.close()
    return Run(took, time.perf_counter() - started, time.process_time() - cpu)


def _require(answer: bytes) -> None:
    if not answer.startswith(b"HTTP/1.1 200"):
        msg = answer[:200].decode(errors="replace")
        raise UnexpectedAnswerError(msg)
