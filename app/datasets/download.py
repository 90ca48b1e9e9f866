"""Fetches a dataset from another installation through its API, and checks every file."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import httpx
from pydantic import ValidationError

from app.datasets import store
from app.datasets.verify import verify_folder
from contract.dataset import MANIFEST_FILE, Manifest
from contract.errors import ContractError
from contract.sampling import ErrorBody

_API = "/api/v1/datasets"
_TIMEOUT = httpx.Timeout(60.0, connect=10.0)


class DownloadError(ContractError):
    """A dataset could not be fetched, or arrived damaged."""


class Download:
    """One dataset of an installation that is reached over HTTP."""

    def __init__(self, url: str, token: str, name: str) -> None:
        self._url = url.rstrip("/")
        self._address = f"{self._url}{_API}/{quote(name, safe='')}"
        self._name = name
        self._headers = {"Authorization": f"Bearer {token}"}
        with self._explained():
            answer = httpx.get(self._address, headers=self._headers, timeout=_TIMEOUT)
            self._require_success(answer)
        self._content = answer.content
        try:
            self.manifest = Manifest.model_validate_json(self._content)
        except ValidationError as error:
            msg = f"{self._address} did not answer with a manifest: {error.error_count()} fields are wrong."
            raise DownloadError(msg) from None

    def save(self, target: Path, on_bytes: Callable[[int], None]) -> None:
        """Write the dataset to ``target``, whole and checked, or not at all.

        Raises:
            TargetTakenError: Something else is there.
            DownloadError: The transfer broke off, or a file is not what the manifest says.

        """
        store.require_free(target)
        with store.draft_folder(target) as draft:
            for name in store.file_names(self.manifest):
                place = draft / name
                if not place.resolve().is_relative_to(draft.resolve()):
                    msg = f"The manifest of {self._name} names {name}, which is outside the dataset's folder."
                    raise DownloadError(msg)
                place.parent.mkdir(parents=True, exist_ok=True)
                if name != MANIFEST_FILE:
                    self._fetch(name, place, on_bytes)
            (draft / MANIFEST_FILE).write_bytes(self._content)
            problems = verify_folder(draft)
            if problems:
                msg = f"{self._name} arrived damaged: {problems[0]} Nothing was written; try again."
                raise DownloadError(msg)

    def _fetch(self, name: str, place: Path, on_bytes: Callable[[int], None]) -> None:
        address = f"{self._address}/files/{quote(name)}"
        with self._explained(), httpx.stream("GET", address, headers=self._headers, timeout=_TIMEOUT) as answer:
            if not answer.is_success:
                answer.read()
            self._require_success(answer)
            store.write_chunks(place, answer.iter_bytes(), on_bytes)

    @contextmanager
    def _explained(self) -> Generator[None]:
        try:
            yield
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            msg = f"{self._url} cannot be reached: {str(error) or type(error).__name__}"
            raise DownloadError(msg) from error

    def _require_success(self, answer: httpx.Response) -> None:
        if answer.is_success:
            return
        try:
            message = ErrorBody.model_validate(answer.json()["error"]).message
        except (ValueError, KeyError, TypeError):
            message = f"{answer.url} was answered {answer.status_code} {answer.reason_phrase}."
        raise DownloadError(message)
