"""The folders of frozen datasets: they appear whole or not at all, and no name leads out of them."""

import glob
import os
import secrets
import shutil
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.errors import ConflictError, NotFoundError
from contract.dataset import CARD_FILE, MANIFEST_FILE, Manifest

_READ_BYTES = 1 << 20


class NoSuchFileError(NotFoundError):
    """A dataset has no file of this name."""


class TargetTakenError(ConflictError):
    """Something else is where a dataset was to be written."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A hidden folder beside the one that it is to become."""

    folder: Path
    target: Path

    def sync(self) -> None:
        """Wait until everything in it is on disk; this may take long, and nothing is locked by it."""
        for path in sorted(self.folder.rglob("*")):
            _sync(path)
        _sync(self.folder)

    def publish(self) -> None:
        """Give it its name, at once; what has the name already is replaced."""
        if self.target.exists():
            # A folder cannot be renamed onto a full one; the old one goes aside first.
            aside = self.target.with_name(f".{self.target.name}.draft-{secrets.token_hex(8)}")
            self.target.rename(aside)
            shutil.rmtree(aside)
        self.folder.rename(self.target)
        _sync(self.target.parent)


@contextmanager
def draft(target: Path) -> Generator[Draft]:
    """A fresh draft, which is removed at the end of the block unless it was published."""
    folder = target.with_name(f".{target.name}.draft-{secrets.token_hex(8)}")
    folder.mkdir(parents=True)
    try:
        yield Draft(folder, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def draft_folder(target: Path) -> Generator[Path]:
    """A fresh hidden folder beside ``target``, which becomes it at the end of the block, or is removed."""
    with draft(target) as begun:
        yield begun.folder
        begun.sync()
        begun.publish()


def remove_drafts(target: Path) -> None:
    """Remove what killed processes left behind; the caller makes sure, by a lock, that nobody is writing ``target``."""
    for draft in target.parent.glob(f".{glob.escape(target.name)}.draft-*"):
        shutil.rmtree(draft)


def _sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_free(target: Path) -> None:
    """Refuse to write a dataset over something else.

    Raises:
        TargetTakenError: ``target`` exists and is not an empty folder.

    """
    is_empty_folder = target.is_dir() and not target.is_symlink() and not any(target.iterdir())
    if not is_empty_folder and (target.exists() or target.is_symlink()):
        msg = f"{target} exists already and is not an empty folder. Choose another one; nothing was changed."
        raise TargetTakenError(msg)


def file_names(manifest: Manifest) -> list[str]:
    """The names of all files of a dataset, relative to its folder."""
    return [CARD_FILE, MANIFEST_FILE, *(file.path for file in manifest.files)]


def file_of(folder: Path, manifest: Manifest, name: str) -> Path:
    """A file of a dataset, by a name that somebody else gave.

    Only the names that the manifest lists exist, and a link is not followed out of the folder.

    Raises:
        NoSuchFileError: There is no such file.

    """
    if name not in file_names(manifest):
        msg = f"The dataset {manifest.name} has no such file."
        raise NoSuchFileError(msg)
    path = folder / name
    if path.resolve() != folder.resolve() / name or not path.is_file():
        msg = (
            f"{name} is not in the dataset store of this installation. Make the dataset again with: "
            f"preferably dataset export {manifest.name} --to FOLDER"
        )
        raise NoSuchFileError(msg)
    return path


def chunks_of(path: Path) -> Iterator[bytes]:
    """A file's content, piece by piece."""
    with path.open("rb") as stream:
        while chunk := stream.read(_READ_BYTES):
            yield chunk


def write_chunks(path: Path, chunks: Iterable[bytes], on_bytes: Callable[[int], None]) -> None:
    """Write a file piece by piece, and say how large each piece was."""
    with path.open("wb") as stream:
        for chunk in chunks:
            stream.write(chunk)
            on_bytes(len(chunk))
