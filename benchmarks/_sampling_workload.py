"""The model and the pairs that `benchmarks.sampling` has every way of sampling work on."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from contract.conversation import Message
from contract.vocabulary import Role
from model_worker.checkpoint import Checkpoint
from model_worker.demo.files import write_checkpoint
from model_worker.demo.template import BOS_TOKEN_ID, EOS_TOKEN_ID, PAD_TOKEN_ID
from model_worker.demo.tiny import ENTROPY, mean_entropy
from model_worker.demo.tokenizer import train_tokenizer

TEMPERATURES = (0.7, 1.2)
TOP_P = 0.95
CONTEXT = 1024
_HEAD_SIZE = 64
_HEADS_PER_KEY_VALUE_HEAD = 4


@dataclass(frozen=True)
class Shape:
    """How large the model is."""

    layers: int
    hidden: int
    vocabulary: int


@dataclass(frozen=True)
class Spread:
    """A lognormal distribution of lengths in tokens, cut at both ends."""

    median: float
    sigma: float
    least: int
    most: int

    def draw(self, source: random.Random) -> int:
        """One length."""
        drawn = round(self.median * math.exp(self.sigma * source.gauss(0.0, 1.0)))
        return min(max(drawn, self.least), self.most)


# SAMPLING.md, section 3: the means are about 203 and 95 tokens.
FULL_SHAPE = Shape(layers=8, hidden=512, vocabulary=4096)
PROMPTS = Spread(median=165.0, sigma=0.75, least=16, most=512)
RESPONSES = Spread(median=88.0, sigma=0.65, least=4, most=192)


@dataclass(frozen=True)
class Pair:
    """One prompt, and how long each of its responses is: nothing else ends them."""

    number: int
    text: str
    prompt_ids: tuple[int, ...]
    lengths: tuple[int, int]

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation as the app would send it."""
        return (Message(role=Role.USER, content=self.text),)


def write_model(folder: Path, shape: Shape) -> Path:
    """Write a random Llama whose distributions at temperature 1 have an entropy of about 2.5 nats."""
    words = _words(shape.vocabulary)
    tokenizer = train_tokenizer(
        [f" {word}" for word in words] * 2, vocabulary_size=shape.vocabulary, context_length=CONTEXT
    )
    heads = max(1, shape.hidden // _HEAD_SIZE)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=shape.hidden,
            intermediate_size=shape.hidden * 11 // 4,
            num_hidden_layers=shape.layers,
            num_attention_heads=heads,
            num_key_value_heads=max(1, heads // _HEADS_PER_KEY_VALUE_HEAD),
            max_position_embeddings=CONTEXT,
            bos_token_id=BOS_TOKEN_ID,
            eos_token_id=EOS_TOKEN_ID,
            pad_token_id=PAD_TOKEN_ID,
            tie_word_embeddings=False,
        )
    )
    _scale_head(model)
    return write_checkpoint(folder, model, tokenizer)


def make_pairs(checkpoint: Checkpoint, count: int, *, seed: int, prompts: Spread, responses: Spread) -> list[Pair]:
    """The same pairs for the same arguments."""
    source = random.Random(seed)  # noqa: S311
    words = _single_piece_words(checkpoint)
    around = len(checkpoint.encode([Message(role=Role.USER, content=words[0])])) - 1
    pairs = []
    for number in range(count):
        # The template trims the prompt, so the first word stands right after its own blank.
        text = " ".join(source.choices(words, k=max(1, prompts.draw(source) - around)))
        prompt_ids = tuple(checkpoint.encode([Message(role=Role.USER, content=text)]))
        lengths = (responses.draw(source), responses.draw(source))
        pairs.append(Pair(number, text, prompt_ids, lengths))
    return pairs


def poisson_arrivals(count: int, *, rate: float | None, seed: int) -> list[float]:
    """Seconds at which pairs are asked for: all at once, or at `rate` pairs a second."""
    if rate is None:
        return [0.0] * count
    source = random.Random(seed)  # noqa: S311
    arrivals, now = [], 0.0
    for _ in range(count):
        now += source.expovariate(rate)
        arrivals.append(now)
    return arrivals


def describe(pairs: Sequence[Pair]) -> dict[str, float | int]:
    """What the pairs amount to."""
    new_tokens = sum(sum(pair.lengths) for pair in pairs)
    return {
        "pairs": len(pairs),
        "mean_prompt_tokens": round(sum(len(pair.prompt_ids) for pair in pairs) / len(pairs), 1),
        "mean_response_tokens": round(new_tokens / 2 / len(pairs), 1),
        "new_tokens": new_tokens,
    }


def _words(count: int) -> list[str]:
    source = random.Random(1)  # noqa: S311
    syllables = [first + second for first in "bdfgklmnprstvz" for second in "aeiou"]
    return sorted({"".join(source.choices(syllables, k=source.choice((2, 3)))) for _ in range(count)})


def _single_piece_words(checkpoint: Checkpoint) -> list[str]:
    """Words that the tokenizer writes as one piece, so that a prompt has as many tokens as words."""
    tokenizer = checkpoint.tokenizer
    assert isinstance(tokenizer, PreTrainedTokenizerFast)  # noqa: S101
    pieces = [str(tokenizer.decode([token])) for token in range(len(tokenizer))]
    return sorted(piece[1:] for piece in pieces if piece.startswith(" ") and piece[1:].isalpha())


@torch.no_grad()
def _scale_head(model: LlamaForCausalLM, *, halvings: int = 24) -> None:
    drawn = torch.randint(model.config.vocab_size, (4, 64), generator=torch.Generator().manual_seed(2))
    logits = model(drawn).logits  # (4, 64, vocabulary)
    low, high = 0.0, 1024.0
    for _ in range(halvings):
        scale = (low + high) / 2
        low, high = (scale, high) if mean_entropy(logits * scale) > ENTROPY else (low, scale)
    model.lm_head.weight *= low
