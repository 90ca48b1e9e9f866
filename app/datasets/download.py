"""Fetches the folders of frozen and external datasets from another installation, and takes up what was broken off."""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from pydantic import ValidationError

from app.datasets import store
from app.datasets.remote import DownloadError, Remote, RemoteFile
from app.datasets.verify import verify_folder
from contract.dataset import CARD_FILE, MANIFEST_FILE, DatasetFile, Manifest
from contract.external import ExternalFile, ExternalManifest

FROZEN = "datasets"
EXTERNAL = "external-datasets"


@dataclass(frozen=True)
class Download:
    """One dataset of another installation."""

    remote: Remote
    name: str
    kind: str
    """The part of the API: frozen or external datasets."""
    content: bytes
    """Its manifest, byte for byte."""
    files: Sequence[DatasetFile | ExternalFile]

    @property
    def manifest_sha256(self) -> str:
        """The digest that names exactly this dataset."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def bytes(self) -> int:
        """How much there is to fetch."""
        return sum(file.bytes for file in self.files)

    def fetch_into(self, folder: Path, on_bytes: Callable[[int], None]) -> None:
        """Fetch what is not yet in ``folder``. Another dataset's files there are removed first.

        Raises:
            DownloadError: The transfer broke off, or a file is not what the manifest says.

        """
        manifest = folder / MANIFEST_FILE
        if manifest.is_file() and manifest.read_bytes() != self.content:
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        manifest.write_bytes(self.content)
        for file in self.files:
            place = folder / file.path
            if not place.resolve().is_relative_to(folder.resolve()):
                msg = f"The manifest of {self.name} names {file.path}, which is outside the dataset's folder."
                raise DownloadError(msg)
            place.parent.mkdir(parents=True, exist_ok=True)
            address = f"{self.kind}/{quote(self.name, safe='')}/files/{quote(file.path)}"
            remote_file = RemoteFile(self.name, file.path, address, file.bytes, file.sha256)
            self.remote.fetch(remote_file, place, on_bytes)
        if self.kind == FROZEN:
            (folder / CARD_FILE).write_bytes(self.remote.content(FROZEN, self.name, "files", CARD_FILE))


def frozen(remote: Remote, name: str) -> tuple[Manifest, Download]:
    """A frozen dataset of another installation.

    Raises:
        DownloadError: There is no such one.

    """
    content = remote.content(FROZEN, name)
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        raise _no_manifest(name, error) from None
    return manifest, Download(remote, name, FROZEN, content, manifest.files)


def external(remote: Remote, name: str) -> tuple[ExternalManifest, Download]:
    """An external dataset of another installation.

    Raises:
        DownloadError: There is no such one.

    """
    content = remote.content(EXTERNAL, name)
    try:
        manifest = ExternalManifest.model_validate_json(content)
    except ValidationError as error:
        raise _no_manifest(name, error) from None
    return manifest, Download(remote, name, EXTERNAL, content, manifest.files)


def save(download: Download, target: Path, on_bytes: Callable[[int], None]) -> None:
    """Write a frozen dataset to ``target``, whole and checked, or not at all; what came so far is kept beside it.

    Raises:
        TargetTakenError: Something else is there.
        DownloadError: The transfer broke off, or a file is not what the manifest says.

    """
    store.require_free(target)
    partial = partial_of(target)
    download.fetch_into(partial, on_bytes)
    problems = verify_folder(partial)
    if problems:
        msg = f"{download.name} arrived damaged: {problems[0]} Nothing was written to {target}."
        raise DownloadError(msg)
    with store.draft_folder(target) as draft:
        for path in sorted(partial.iterdir()):
            path.rename(draft / path.name)
    shutil.rmtree(partial)


def partial_of(target: Path) -> Path:
    """Where what has come so far waits for the rest."""
    return target.with_name(f".{target.name}.partial")


def _no_manifest(name: str, error: ValidationError) -> DownloadError:
    return DownloadError(f"{name}: the answer is not a manifest: {error.error_count()} fields are wrong.")
