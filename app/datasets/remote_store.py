"""The dataset store elsewhere: an object store, or whatever else ``pyarrow.fs`` opens by a URI.

Each app machine keeps the datasets that it wrote or gave out in its own folder; the store has them all.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pyarrow as pa
from pyarrow import fs

from app.datasets import store
from app.datasets.verify import verify_folder
from app.errors import ConflictError
from contract.dataset import MANIFEST_FILE, Manifest

_CHUNK = 1 << 20


class StoreUnreachableError(ConflictError):
    """The dataset store does not answer, or has not what it should have."""


class RemoteStore:
    """A place for the folders of datasets, each under its name."""

    def __init__(self, uri: str) -> None:
        """Open the place that a URI names, for example ``s3://bucket/datasets?region=eu-central-1``.

        Raises:
            StoreUnreachableError: It cannot be opened.

        """
        try:
            self._files, root = fs.FileSystem.from_uri(uri)
        except (pa.ArrowException, OSError, ValueError) as error:
            msg = f"The dataset store cannot be opened: {error}. Check PREFERABLY_DATASET_STORE."
            raise StoreUnreachableError(msg) from error
        self._root = PurePosixPath(root)

    def put(self, folder: Path, manifest: Manifest) -> None:
        """Copy a dataset there. The manifest comes last: without it nothing is a dataset.

        Raises:
            StoreUnreachableError: Something could not be written; what was stays, and is replaced next time.

        """
        place = self._root / manifest.name
        names = [name for name in store.file_names(manifest) if name != MANIFEST_FILE]
        try:
            for name in [*names, MANIFEST_FILE]:
                self._files.create_dir(str((place / name).parent), recursive=True)
                with self._files.open_output_stream(str(place / name)) as stream:
                    for chunk in store.chunks_of(folder / name):
                        stream.write(chunk)
        except (pa.ArrowException, OSError) as error:
            msg = f"{manifest.name} cannot be written to the dataset store: {error}."
            raise StoreUnreachableError(msg) from error

    def fetch(self, manifest: Manifest, manifest_sha256: str, target: Path) -> None:
        """Copy a dataset here, check it, and only then let ``target`` appear.

        Raises:
            StoreUnreachableError: It is not there, or not as it was frozen.

        """
        place = self._root / manifest.name
        try:
            with store.draft(target) as draft:
                for name in store.file_names(manifest):
                    (draft.folder / name).parent.mkdir(exist_ok=True)
                    with self._files.open_input_stream(str(place / name)) as stream:
                        store.write_chunks(draft.folder / name, _pieces(stream), _ignore)
                problems = verify_folder(draft.folder, manifest_sha256=manifest_sha256)
                if problems:
                    msg = f"{manifest.name} in the dataset store is not as it was frozen: {problems[0]}"
                    raise StoreUnreachableError(msg)
                draft.sync()
                draft.publish()
        except (pa.ArrowException, OSError) as error:
            msg = f"{manifest.name} cannot be read from the dataset store: {error}."
            raise StoreUnreachableError(msg) from error


def _pieces(stream: pa.NativeFile) -> Iterator[bytes]:
    while piece := stream.read(_CHUNK):
        yield piece


def _ignore(_count: int) -> None:
    """Nobody watches how much was copied."""
