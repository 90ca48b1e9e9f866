"""Folders that pass for checkpoints wherever no weights are loaded: small, and made in no time."""

import json
from pathlib import Path

from contract.checkpoint_files import CheckpointFiles, inspect_checkpoint


def make_folder(folder: Path, weights: bytes) -> tuple[Path, CheckpointFiles]:
    """A folder whose one tensor has these bytes, and what inspection says of it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "model.safetensors").write_bytes(safetensors_of(weights))
    return folder, inspect_checkpoint(folder)


def safetensors_of(weights: bytes) -> bytes:
    """A file of one tensor."""
    header = json.dumps({"t": {"dtype": "U8", "shape": [len(weights)], "data_offsets": [0, len(weights)]}}).encode()
    return len(header).to_bytes(8, "little") + header + weights
