"""Checkpoint folders for the lorem engine: everything that is inspected is there, in a few hundred bytes."""

import json
from pathlib import Path

_TENSOR_BYTES = 16


def make_checkpoint_folder(folder: Path) -> Path:
    """Write a chat checkpoint whose weights depend on the folder's name, with no model behind it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}), encoding="utf-8")
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    (folder / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    # https://huggingface.co/docs/safetensors: the header's length, the header, the tensors.
    header = json.dumps({"w": {"dtype": "U8", "shape": [_TENSOR_BYTES], "data_offsets": [0, _TENSOR_BYTES]}}).encode()
    weights = folder.name.encode().ljust(_TENSOR_BYTES)[:_TENSOR_BYTES]
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + weights)
    return folder
