"""sha256 digests of files: what names a checkpoint, a reward model and the files of a dataset."""

import hashlib
import sys
from array import array
from collections.abc import Callable, Iterable
from pathlib import Path

_READ_BYTES = 1 << 20


def _do_nothing() -> None:
    """Nobody needs to be told how far a digest has come."""


def sha256_of(file: Path, *, on_chunk: Callable[[], None] = _do_nothing) -> str:
    """The sha256 of a file's content, as hex; ``on_chunk`` is called again and again, since large files take time."""
    content = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_READ_BYTES):
            content.update(chunk)
            on_chunk()
    return content.hexdigest()


def digest_files(files: Iterable[Path], *, on_chunk: Callable[[], None] = _do_nothing) -> str:
    """The sha256, as hex, over the names and contents of some files, whatever order they come in."""
    total = hashlib.sha256()
    for file in sorted(files, key=lambda path: path.name):
        total.update(f"{file.name}\0{sha256_of(file, on_chunk=on_chunk)}\n".encode())
    return total.hexdigest()


def model_digest(folder: Path, *, on_chunk: Callable[[], None] = _do_nothing) -> str:
    """What identifies a chat checkpoint or a reward model: the digest over its config and its weights."""
    return digest_files([folder / "config.json", *folder.glob("*.safetensors")], on_chunk=on_chunk)


def token_digest(token_ids: Iterable[int]) -> str:
    """The sha256, as hex, over token ids as 64-bit little-endian integers, one after the other."""
    numbers = array("q", token_ids)
    if sys.byteorder == "big":
        numbers.byteswap()
    return hashlib.sha256(numbers.tobytes()).hexdigest()
