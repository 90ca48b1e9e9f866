"""Makes a tiny random Llama checkpoint in about a second, for tests.

Its responses are random, yet pleasant to work with: they are ASCII words, they differ with the
temperature (the entropy at temperature 1 is about 2.5 nats), and they end by themselves.
"""

import math
from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from model_worker.demo.template import (
    BOS_TOKEN_ID,
    EOS_TOKEN_ID,
    PAD_TOKEN_ID,
    SPECIAL_TOKENS,
)
from model_worker.demo.tokenizer import train_tokenizer

WORDS = (
    "the a and to of in is it you that for on with as are be this was have or at one had not but "
    "what all were when we there can an your which their said if do will each about how up out "
    "them then she many some so these would other into has more her two like him see time could "
    "no make than first been its who now people my made over did down only way find use may water "
    "long little very after words called just where most know tea bread morning garden river "
    "window letter music story yellow green paper house cat dog bird small large warm cold kind "
    "walk read write cook plant sleep answer question example reason"
).split()

ENTROPY = 2.5  # nats, at temperature 1
RESPONSE_TOKENS = 24  # the mean length of a response that `</s>` ends
FORBIDDEN = -40.0  # a logit that no temperature in use can lift
# The residual stream keeps a constant in its first dimension, so that the first column of the
# head acts as a bias, which Llama itself has not.
BIAS_DIMENSION = 0
CONSTANT = 8.0


def make_tiny_checkpoint(
    folder: Path,
    *,
    seed: int = 0,
    vocabulary_size: int = 420,
    hidden_size: int = 48,
    layers: int = 2,
    heads: int = 4,
    grouped_query: bool = True,
    context_length: int = 512,
) -> Path:
    """Write a random chat checkpoint into `folder` (made if missing) and return `folder`.

    The same arguments give the same weights. With `grouped_query` two heads share a key-value
    head; `hidden_size` must be a multiple of twice `heads`. Raises ValueError otherwise.
    """
    if hidden_size % (2 * heads) or heads % 2:
        message = f"hidden_size {hidden_size} does not fit {heads} heads: use a multiple of 2 x heads"
        raise ValueError(message)
    tokenizer = train_tokenizer(
        [" ".join(WORDS), *(f"{word} {word.capitalize()}" for word in WORDS)],
        vocabulary_size=vocabulary_size,
        context_length=context_length,
    )
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2 if grouped_query else heads,
        max_position_embeddings=context_length,
        bos_token_id=BOS_TOKEN_ID,
        eos_token_id=EOS_TOKEN_ID,
        pad_token_id=PAD_TOKEN_ID,
        tie_word_embeddings=False,
        dtype="float32",
    )
    # Building the model draws from the global generator, which belongs to the caller.
    with torch.random.fork_rng(devices=[]):
        model = LlamaForCausalLM(config).float().eval()
    generator = torch.Generator().manual_seed(seed)
    fill_with_noise(model, generator)
    calibrate_head(model, piece_biases(tokenizer), generator)
    model.generation_config = GenerationConfig(
        bos_token_id=BOS_TOKEN_ID, eos_token_id=EOS_TOKEN_ID, pad_token_id=PAD_TOKEN_ID
    )
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@torch.no_grad()
def fill_with_noise(model: LlamaForCausalLM, generator: torch.Generator) -> None:
    """Draw every matrix anew, and keep the bias dimension of the residual stream constant."""
    for name, weight in sorted(model.named_parameters()):
        if weight.dim() == 1:
            weight.fill_(1.0)
            continue
        spread = 1.0 if "embed_tokens" in name else 1.0 / math.sqrt(weight.shape[1])
        weight.copy_(torch.randn(weight.shape, generator=generator) * spread)
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            weight[BIAS_DIMENSION].zero_()  # the rows of (hidden, in) write to the residual stream
    # The special pieces get a constant of their own only by their noise, like any other piece.
    model.model.embed_tokens.weight[:, BIAS_DIMENSION] = CONSTANT  # (vocabulary, hidden)


def piece_biases(tokenizer: PreTrainedTokenizerFast) -> Tensor:
    """Say how welcome each piece is in a response: (vocabulary,), 0 for a whole word."""
    pieces = [tokenizer.decode([index]) for index in range(len(tokenizer))]
    biases = torch.tensor([piece_bias(piece) for piece in pieces])
    biases[: len(SPECIAL_TOKENS)] = FORBIDDEN
    return biases


def piece_bias(piece: str) -> float:
    """Prefer words to letters, letters to punctuation, and let no unreadable byte through."""
    if not piece.isascii() or not piece.strip().isprintable():
        return FORBIDDEN
    if piece.strip() == "":
        return -2.0 if piece in {" ", "\n"} else FORBIDDEN
    if not piece.strip().isalpha():
        return -1.5 if piece in set(".,?!") else -4.0
    return 0.0 if len(piece) > 1 else -1.5


@torch.no_grad()
def calibrate_head(
    model: LlamaForCausalLM, biases: Tensor, generator: torch.Generator, *, steps: int = 24
) -> None:
    """Scale the head until the mean entropy at temperature 1 is `ENTROPY`, then place `</s>`."""
    readable = (biases > FORBIDDEN).nonzero().flatten()  # (readable pieces,)
    drawn = torch.randint(len(readable), (8, 32), generator=generator)
    hidden = model.model(readable[drawn]).last_hidden_state  # (8, 32, hidden)
    head = model.lm_head.weight  # (vocabulary, hidden)
    constant = hidden[..., BIAS_DIMENSION].mean()
    head[:, BIAS_DIMENSION] = 0.0
    noise = hidden @ head.T  # (8, 32, vocabulary), before scale and bias
    low, high = 0.0, 64.0
    for _ in range(steps):
        scale = (low + high) / 2
        is_too_flat = mean_entropy(noise * scale + biases) > ENTROPY
        low, high = (scale, high) if is_too_flat else (low, scale)
    head *= high
    head[:, BIAS_DIMENSION] = biases / constant
    # `</s>` has no noise: its share of the mass varies with the words' alone.
    head[EOS_TOKEN_ID] = 0.0
    mass = torch.logsumexp(noise * high + biases, dim=-1).median()
    head[EOS_TOKEN_ID, BIAS_DIMENSION] = (mass - math.log(RESPONSE_TOKENS)) / constant


def mean_entropy(logits: Tensor) -> float:
    """Give the mean entropy in nats of the distributions that `logits` (..., vocabulary) say."""
    return float(torch.distributions.Categorical(logits=logits).entropy().mean())
