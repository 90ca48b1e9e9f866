"""Streams a dataset folder as one tar file, without making it on disk first."""

import tarfile
from collections.abc import Iterator
from pathlib import Path

from app.datasets import store
from contract.dataset import Manifest

_END = bytes(2 * tarfile.BLOCKSIZE)


def tar_of(folder: Path, manifest: Manifest) -> Iterator[bytes]:
    """The pieces of a tar file with all files of a dataset; the same bytes each time.

    Raises:
        NoSuchFileError: A file of the dataset is missing.

    """
    files = [(name, store.file_of(folder, manifest, name)) for name in store.file_names(manifest)]
    return _pieces(files, manifest)


def _pieces(files: list[tuple[str, Path]], manifest: Manifest) -> Iterator[bytes]:
    for name, path in files:
        entry = tarfile.TarInfo(f"{manifest.name}/{name}")
        entry.size = path.stat().st_size
        entry.mtime = int(manifest.frozen_at.timestamp())
        yield entry.tobuf(tarfile.PAX_FORMAT)
        yield from store.chunks_of(path)
        yield bytes(-entry.size % tarfile.BLOCKSIZE)
    yield _END
