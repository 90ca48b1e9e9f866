"""Fetches frozen datasets: every file is checked against the manifest, and the manifest against its digest."""

import hashlib
import logging
import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from contract.dataset import MANIFEST_FILE, DatasetFile, Manifest
from contract.digests import sha256_of
from contract.training import DatasetRef
from model_worker.client import AppClient
from model_worker.errors import DatasetError

log = logging.getLogger(__name__)


def fetch_dataset(client: AppClient, ref: DatasetRef, datasets: Path, beat: Callable[[], None]) -> Path:
    """Make sure that a dataset lies in ``datasets / ref.name``, and return that folder.

    ``beat`` is called again and again meanwhile, since a lease must be kept alive during a long transfer
    and while large files are checked.

    Files gather in a draft folder and are kept there when the transfer breaks off, so that the next call
    goes on with the file that is missing. The folder appears under its name once everything is right.

    Raises:
        DatasetError: A digest differs, or the dataset names a file outside its folder.
        AppError: The app cannot be reached or refuses.

    """
    _check_name(ref.name)
    folder = datasets / ref.name
    if _is_complete(folder, ref, beat):
        return folder
    draft = datasets / f".{ref.name}-{ref.manifest_sha256[:16]}"
    draft.mkdir(parents=True, exist_ok=True)
    content = client.manifest(ref.name)
    if hashlib.sha256(content).hexdigest() != ref.manifest_sha256:
        msg = f"dataset {ref.name}: the manifest's sha256 is not {ref.manifest_sha256}, as the training run says."
        raise DatasetError(msg)
    for file in _manifest(content, ref.name).files:
        _fetch_file(client, ref.name, file, draft, beat)
    (draft / MANIFEST_FILE).write_bytes(content)
    if folder.exists():
        log.warning("replacing another dataset of the same name", extra={"dataset": ref.name})
        shutil.rmtree(folder)
    draft.replace(folder)
    return folder


def _check_name(name: str) -> None:
    if not name or name.startswith(".") or "/" in name or "\\" in name:
        msg = f"{name!r} cannot be the name of a dataset."
        raise DatasetError(msg)


def _is_complete(folder: Path, ref: DatasetRef, beat: Callable[[], None]) -> bool:
    manifest = folder / MANIFEST_FILE
    if not manifest.is_file() or sha256_of(manifest) != ref.manifest_sha256:
        return False
    files = _manifest(manifest.read_bytes(), ref.name).files
    return all(_is_right(_place(folder, ref.name, file), file, beat) for file in files)


def _manifest(content: bytes, name: str) -> Manifest:
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        msg = f"dataset {name}: this worker cannot read its manifest: {error}"
        raise DatasetError(msg) from error


def _fetch_file(client: AppClient, name: str, file: DatasetFile, draft: Path, beat: Callable[[], None]) -> None:
    beat()
    place = _place(draft, name, file)
    if _is_right(place, file, beat):
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(f"{place.name}.part")
    with client.dataset_file(name, file.path) as chunks, part.open("wb") as stream:
        for chunk in chunks:
            stream.write(chunk)
            beat()
    if not _is_right(part, file, beat):
        part.unlink()
        msg = f"dataset {name}: {file.path} arrived damaged: its size or sha256 is not the manifest's."
        raise DatasetError(msg)
    part.replace(place)


def _place(folder: Path, name: str, file: DatasetFile) -> Path:
    path = PurePosixPath(file.path)
    if path.is_absolute() or ".." in path.parts or "\\" in file.path:
        msg = f"dataset {name}: the manifest names {file.path!r}, which is outside the dataset's folder."
        raise DatasetError(msg)
    return folder / path


def _is_right(place: Path, file: DatasetFile, beat: Callable[[], None]) -> bool:
    return place.is_file() and place.stat().st_size == file.bytes and sha256_of(place, on_chunk=beat) == file.sha256
