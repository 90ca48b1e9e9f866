"""Another installation, reached over HTTP: a transfer that breaks off goes on where it stopped."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote

import httpx
from pydantic import TypeAdapter, ValidationError

from contract.digests import sha256_of
from contract.errors import ContractError
from contract.sampling import ErrorBody

ValueT = TypeVar("ValueT")

_API: Final = "/api/v1"
_TIMEOUT: Final = httpx.Timeout(60.0, connect=10.0)
_TRIES: Final = 6
"""So many attempts in a row may bring no byte before a transfer is given up."""
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 15.0
_BUSY: Final = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT})


class DownloadError(ContractError):
    """Something could not be fetched, or arrived damaged."""


class _InterruptedError(Exception):
    """A transfer ended early; trying again may help."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of another installation, and what it must be when it has arrived."""

    of: str
    """The dataset's name, for messages."""
    path: str
    address: str
    """After the API's prefix."""
    bytes: int
    sha256: str


class Remote:
    """The API of another installation."""

    def __init__(self, url: str, token: str, say: Callable[[str], None] = lambda _message: None) -> None:
        self._url = url.rstrip("/")
        # Ranges count the bytes of the file, which no proxy may compress.
        self._headers = {"Authorization": f"Bearer {token}", "Accept-Encoding": "identity"}
        self._say = say

    def content(self, *parts: str) -> bytes:
        """A small answer as a whole.

        Raises:
            DownloadError: There is none.

        """
        with self._explained():
            answer = httpx.get(self._address(*parts), headers=self._headers, timeout=_TIMEOUT)
            _require_success(answer)
        return answer.content

    def parsed(self, kind: type[ValueT], *parts: str) -> ValueT:
        """A small answer, as what it should be.

        Raises:
            DownloadError: There is none, or it is something else.

        """
        content = self.content(*parts)
        try:
            return TypeAdapter(kind).validate_json(content)
        except ValidationError as error:
            msg = f"{self._address(*parts)} did not answer as expected: {error.error_count()} fields are wrong."
            raise DownloadError(msg) from None

    def fetch(self, file: RemoteFile, place: Path, on_bytes: Callable[[int], None]) -> None:
        """Put a file into its place, beginning with what is there of it already, and check it.

        Raises:
            DownloadError: The transfer broke off again and again, or the file is damaged over there.

        """
        if place.is_file() and place.stat().st_size == file.bytes and sha256_of(place) == file.sha256:
            on_bytes(file.bytes)
            return
        part = place.with_name(f"{place.name}.part")
        had = _size(part)
        on_bytes(had)
        self._fill(file, part, on_bytes)
        if had and sha256_of(part) != file.sha256:
            self._say(f"{file.of}: the part of {file.path} that was here already was damaged. Fetching all of it anew.")
            _start_over(part, on_bytes)
            self._fill(file, part, on_bytes)
        if sha256_of(part) != file.sha256:
            part.unlink()
            msg = (
                f"{file.of} arrived damaged: {file.path} is damaged: its sha256 is not {file.sha256}. "
                "The copy over there must be mended first."
            )
            raise DownloadError(msg)
        part.replace(place)

    def _fill(self, file: RemoteFile, part: Path, on_bytes: Callable[[int], None]) -> None:
        """Fetch until all bytes are here."""
        in_vain = 0
        while (had := _size(part)) != file.bytes or not part.exists():
            if had > file.bytes:
                _start_over(part, on_bytes)
                continue
            reason = "nothing more came"
            try:
                self._go_on(file, part, had, on_bytes)
            except (httpx.TransportError, _InterruptedError) as error:
                reason = str(error) or type(error).__name__
            in_vain = in_vain + 1 if _size(part) <= had else 0
            if in_vain == _TRIES:
                msg = (
                    f"{self._url} cannot be reached: {reason}. {file.path} is here up to byte {_size(part):,} of "
                    f"{file.bytes:,}; the same command goes on from there."
                )
                raise DownloadError(msg)
            if in_vain:
                time.sleep(min(_FIRST_PAUSE_S * 2 ** (in_vain - 1), _LONGEST_PAUSE_S))

    def _go_on(self, file: RemoteFile, part: Path, had: int, on_bytes: Callable[[int], None]) -> None:
        headers = self._headers | ({"Range": f"bytes={had}-"} if had else {})
        address = f"{self._url}{_API}/{file.address}"
        with httpx.stream("GET", address, headers=headers, timeout=_TIMEOUT) as answer:
            if answer.status_code in _BUSY:
                reason = f"it is busy ({answer.status_code})"
                raise _InterruptedError(reason)
            if answer.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                _start_over(part, on_bytes)
                return
            if not answer.is_success:
                answer.read()
            _require_success(answer)
            is_rest = answer.status_code == HTTPStatus.PARTIAL_CONTENT
            if had and not is_rest:
                # A server or proxy that knows no ranges sends all of it again.
                _start_over(part, on_bytes)
            # Without a buffer, what came before the process was killed is on disk.
            with part.open("ab", buffering=0) as stream:
                for chunk in answer.iter_raw():
                    stream.write(chunk)
                    on_bytes(len(chunk))

    def _address(self, *parts: str) -> str:
        return f"{self._url}{_API}/{'/'.join(quote(part, safe='') for part in parts)}"

    @contextmanager
    def _explained(self) -> Generator[None]:
        try:
            yield
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            msg = f"{self._url} cannot be reached: {str(error) or type(error).__name__}"
            raise DownloadError(msg) from error


def _start_over(part: Path, on_bytes: Callable[[int], None]) -> None:
    on_bytes(-_size(part))
    part.unlink(missing_ok=True)


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _require_success(answer: httpx.Response) -> None:
    if answer.is_success:
        return
    try:
        message = ErrorBody.model_validate(answer.json()["error"]).message
    except (ValueError, KeyError, TypeError):
        message = f"{answer.url} was answered {answer.status_code} {answer.reason_phrase}."
    raise DownloadError(message)
