"""Writes a checkpoint folder in the Hugging Face format, file by file and each file whole."""

import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from model_worker.demo.template import BOS_TOKEN_ID, EOS_TOKEN_ID, PAD_TOKEN_ID


def write_checkpoint(
    folder: Path,
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    *,
    stored_as: torch.dtype = torch.float32,
) -> Path:
    """Write `model` and `tokenizer` into `folder` (made if missing) and return `folder`.

    Files that are there already are replaced, each in one step and the weights last; other files
    stay. The weights are stored as `stored_as`, while `config.json` says float32: Transformers
    then loads half-precision files into the type that processors compute fastest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder) as name:
        draft = Path(name)
        model.config.architectures = [type(model).__name__]
        model.config.dtype = torch.float32
        model.config.save_pretrained(draft)
        GenerationConfig(  # type: ignore[no-untyped-call]
            bos_token_id=BOS_TOKEN_ID, eos_token_id=EOS_TOKEN_ID, pad_token_id=PAD_TOKEN_ID
        ).save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        weights = {
            name: weight.detach().to(stored_as).contiguous()
            for name, weight in model.named_parameters()  # a tied head appears once
        }
        save_file(weights, draft / "model.safetensors", metadata={"format": "pt"})
        for file in sorted(draft.iterdir(), key=lambda file: file.suffix == ".safetensors"):
            file.chmod(0o644)  # safetensors lets only the owner read what it writes
            file.replace(folder / file.name)
    return folder
