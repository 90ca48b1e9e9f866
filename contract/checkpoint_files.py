"""Looks at a checkpoint folder without torch: refuses what cannot be served, and names what can by digest."""

import hashlib
import json
from pathlib import Path
from typing import Any

from contract.base import Contract
from contract.digests import digest_files, model_digest
from contract.errors import ContractError

# Full-attention decoders whose transformers implementation the samplers and the trainer are tested with.
SUPPORTED_ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM")

_WEIGHT_PATTERN = "*.safetensors"
_PICKLED_PATTERNS = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json")
_TEMPLATE_FILE = "chat_template.jinja"


class CheckpointError(ContractError):
    """A folder is not a checkpoint that this system can serve; the message says which file and why."""


class CheckpointFiles(Contract):
    """What identifies a chat checkpoint: three digests, so that a change of any part is a new checkpoint."""

    name: str
    """The folder's name, unless the person who registers it gives another one."""
    architecture: str
    digest: str
    """sha256 over ``config.json`` and all weight files, by name: the checkpoint's identity."""
    tokenizer_digest: str
    template_digest: str
    weight_bytes: int


def inspect_checkpoint(folder: Path, *, name: str | None = None) -> CheckpointFiles:
    """Check a checkpoint folder and compute its digests.

    Raises:
        CheckpointError: The folder or one of its files is missing, the weights are pickled, the
            architecture is not supported, or there is no chat template.

    """
    if not folder.is_dir():
        msg = f"{folder} is not a folder. Give the path of a checkpoint in Hugging Face format."
        raise CheckpointError(msg)
    config = _read_json(folder / "config.json")
    architecture = _supported_architecture(folder, config)
    weights = _weight_files(folder)
    template = _chat_template(folder)
    tokenizer_files = [folder / file for file in _TOKENIZER_FILES if (folder / file).is_file()]
    if not any(file.name in {"tokenizer.json", "tokenizer.model"} for file in tokenizer_files):
        msg = f"{folder} has no tokenizer: tokenizer.json or tokenizer.model is missing."
        raise CheckpointError(msg)
    return CheckpointFiles(
        name=name or folder.resolve().name,
        architecture=architecture,
        digest=model_digest(folder),
        tokenizer_digest=digest_files(tokenizer_files),
        template_digest=hashlib.sha256(template.encode()).hexdigest(),
        weight_bytes=sum(file.stat().st_size for file in weights),
    )


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        msg = f"{file.parent} has no {file.name}: it is not a checkpoint in Hugging Face format."
        raise CheckpointError(msg) from None
    except ValueError as error:
        msg = f"{file} is not valid JSON: {error}."
        raise CheckpointError(msg) from None
    if not isinstance(content, dict):
        msg = f"{file} must hold a JSON object, not a {type(content).__name__}."
        raise CheckpointError(msg)
    return content


def _supported_architecture(folder: Path, config: dict[str, Any]) -> str:
    architectures = config.get("architectures") or ["none named"]
    architecture = str(architectures[0])
    if architecture not in SUPPORTED_ARCHITECTURES:
        supported = ", ".join(SUPPORTED_ARCHITECTURES)
        msg = f"{folder}/config.json: architecture {architecture} is not supported; supported are {supported}."
        raise CheckpointError(msg)
    if config.get("sliding_window") is not None:
        msg = f"{folder}/config.json: sliding_window attention is not supported; only full attention is."
        raise CheckpointError(msg)
    return architecture


def _weight_files(folder: Path) -> list[Path]:
    weights = sorted(folder.glob(_WEIGHT_PATTERN))
    if weights:
        return weights
    pickled = [file.name for pattern in _PICKLED_PATTERNS for file in folder.glob(pattern)]
    if pickled:
        msg = (
            f"{folder} holds pickled weights only ({', '.join(sorted(pickled))}). Loading a pickle runs the "
            "code inside it; convert the checkpoint to safetensors."
        )
        raise CheckpointError(msg)
    msg = f"{folder} holds no weights: no {_WEIGHT_PATTERN} file."
    raise CheckpointError(msg)


def _chat_template(folder: Path) -> str:
    file = folder / _TEMPLATE_FILE
    if file.is_file():
        return file.read_text(encoding="utf-8")
    tokenizer_config = folder / "tokenizer_config.json"
    template = _read_json(tokenizer_config).get("chat_template") if tokenizer_config.is_file() else None
    if isinstance(template, str) and template:
        return template
    msg = (
        f"{folder} has no chat template: neither {_TEMPLATE_FILE} nor chat_template in tokenizer_config.json. "
        "A base model cannot be annotated; use a chat checkpoint."
    )
    raise CheckpointError(msg)
