"""Tells a checkpoint folder that was copied in part from a whole one, by its own index and headers."""

import json
from pathlib import Path
from typing import Any, Final

from contract.checkpoint_files import CheckpointError

_INDEX: Final = "model.safetensors.index.json"
# A safetensors file begins with the length of its header, which says where each tensor ends.
_LENGTH_BYTES: Final = 8
# The format's own limit.
_LONGEST_HEADER: Final = 100_000_000


def require_complete(folder: Path) -> None:
    """Look at names and sizes only, which takes no time however large the files are.

    Raises:
        CheckpointError: A file of weights that the index names is missing, or a file is shorter than it says.

    """
    index = folder / _INDEX
    if index.is_file():
        named = {str(name) for name in _index_of(index).values()}
        missing = sorted(name for name in named if not (folder / name).is_file())
        if missing:
            msg = f"{folder} is incomplete: {_INDEX} names {', '.join(missing)}, which is missing."
            raise CheckpointError(msg)
    for file in sorted(folder.glob("*.safetensors")):
        _require_whole(file)


def _index_of(index: Path) -> dict[str, Any]:
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (ValueError, KeyError, TypeError) as error:
        msg = f"{index} is not an index of weights: {error}."
        raise CheckpointError(msg) from None
    if not isinstance(weight_map, dict):
        msg = f"{index} is not an index of weights: weight_map is no object."
        raise CheckpointError(msg)
    return weight_map


def _require_whole(file: Path) -> None:
    size = file.stat().st_size
    with file.open("rb") as stream:
        header_bytes = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        header = stream.read(header_bytes) if size >= _LENGTH_BYTES and header_bytes <= _LONGEST_HEADER else b""
    try:
        tensors = {name: tensor for name, tensor in json.loads(header).items() if name != "__metadata__"}
        whole = (
            _LENGTH_BYTES + header_bytes + max((tensor["data_offsets"][1] for tensor in tensors.values()), default=0)
        )
    except (ValueError, AttributeError, KeyError, IndexError, TypeError):
        msg = f"{file} has no readable header: it is no safetensors file, or was copied in part."
        raise CheckpointError(msg) from None
    if size != whole:
        msg = f"{file} has {size} bytes instead of {whole}: it was copied in part."
        raise CheckpointError(msg)
