"""Greedy responses, by the slot engine and by transformers' `generate()`."""

from collections.abc import Iterable, Sequence

import torch
from transformers import GenerationConfig

from model_worker.checkpoint import Checkpoint
from model_worker.sampling.slots.engine import SlotEngine
from model_worker.sampling.slots.rows import Row
from tests.model_worker.jobs import make_spec

PROMPTS = ("tea", "read me a story about the morning and the garden", "how do plants sleep", "water", "a warm letter")


def prompts_of(checkpoint: Checkpoint, texts: Iterable[str] = PROMPTS) -> list[list[int]]:
    """Token ids, without a template."""
    return [list(checkpoint.tokenizer(text)["input_ids"]) for text in texts]


def greedy_row(checkpoint: Checkpoint, prompt_ids: Sequence[int], tokens: int) -> Row:
    """A response that takes the likeliest tokens."""
    spec = make_spec(checkpoint.files.digest, temperature=0.0, max_new_tokens=tokens)
    return Row(spec, spec.seed, checkpoint, tuple(prompt_ids), tokens)


def run_staggered(engine: SlotEngine, rows: Sequence[Row], *, steps_between: int = 3) -> None:
    """Let rows join one by one, as soon as there is room and a few steps have passed; run until all have ended."""
    waiting = list(rows)
    while waiting or not engine.is_idle:
        if waiting and engine.free_slots:
            engine.admit([waiting.pop(0)])
        for _ in range(steps_between):
            engine.step()


def generated(checkpoint: Checkpoint, prompt_ids: Sequence[int], tokens: int) -> list[int]:
    """What `generate()` draws."""
    prompt = torch.tensor([list(prompt_ids)])
    config = GenerationConfig(
        do_sample=False, max_new_tokens=tokens, eos_token_id=sorted(checkpoint.stop_ids), pad_token_id=0
    )
    output = checkpoint.model.generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=config)
    return output[0, prompt.shape[1] :].tolist()
