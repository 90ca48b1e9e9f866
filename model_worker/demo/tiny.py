"""Makes a tiny random Llama checkpoint in under a second, for tests.

Its responses are random, yet pleasant to work with: they are ASCII words, they vary with the
temperature (the entropy at temperature 1 is about 2.5 nats), and they end by themselves.
"""

import math
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from model_worker.demo.files import write_checkpoint
from model_worker.demo.template import (
    BOS_TOKEN_ID,
    EOS_TOKEN_ID,
    PAD_TOKEN_ID,
    SPECIAL_TOKENS,
)
from model_worker.demo.tokenizer import train_tokenizer

WORDS = """
the and to of in is it you that for on with as are was this have at but what all when we there can
which do will how about them then many some like see time make than water long after words just
know tea bread morning garden letter story green paper house cat bird warm read cook plant sleep
question reason
""".split()
TEMPLATE_WORDS = ["INST", "SYS"]

ENTROPY = 2.5  # nats, the mean at temperature 1
RESPONSE_TOKENS = 24  # the mean length of a response that `</s>` ends
FORBIDDEN = -40.0  # a logit that no temperature in use can lift
# Llama's head has no bias. Attention and MLP leave these two dimensions of the residual stream as
# the embedding filled them, so that the head's columns for them act as one.
BIAS_DIMENSION = 0  # the same constant for every piece
START_DIMENSION = 1  # set where a prompt ends, to keep empty responses away
SHARPNESS = 1.5  # lets the attention look at some positions more than at others
LOUDNESS = 0.5  # what a layer adds, against the pieces' own embeddings of size 1
CONSTANT = 60.0  # large against the noise, so that the final norm changes it little


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

    The same arguments give the same weights. With `grouped_query` two heads share one key-value
    head. Raises ValueError where `heads` is odd, where `hidden_size` is no multiple of twice
    `heads`, or where `vocabulary_size` has no room for the bytes and the special tokens.
    """
    if heads % 2 or hidden_size % (2 * heads):
        message = f"heads ({heads}) must be even and hidden_size ({hidden_size}) fit 2 x heads"
        raise ValueError(message)
    tokenizer = train_tokenizer(
        [f" {word}" for word in WORDS] * 2 + WORDS + TEMPLATE_WORDS * 3,
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
    )
    # Building the model draws from the global generator, which belongs to the caller.
    with torch.random.fork_rng(devices=[]):
        model = LlamaForCausalLM(config)
        model.train(mode=False)
    generator = torch.Generator().manual_seed(seed)
    pieces = [str(tokenizer.decode([index])) for index in range(len(tokenizer))]
    fill_with_noise(model, pieces, generator)
    calibrate_head(model, piece_biases(pieces), generator)
    return write_checkpoint(folder, model, tokenizer)


@torch.no_grad()
def fill_with_noise(model: LlamaForCausalLM, pieces: list[str], generator: torch.Generator) -> None:
    """Draw every matrix anew, and set aside the two dimensions that act as a bias."""
    aside = [BIAS_DIMENSION, START_DIMENSION]
    undo = math.sqrt(1.0 + CONSTANT**2 / model.config.hidden_size)
    for name, weight in sorted(model.named_parameters()):
        if weight.dim() == 1:
            # The layers' norms undo what the constant does to the size of everything else.
            weight.fill_(1.0 if name == "model.norm.weight" else undo)
            continue
        noise = torch.randn(weight.shape, generator=generator)
        if "embed_tokens" in name:
            weight.copy_(noise)
        elif name.endswith(("o_proj.weight", "down_proj.weight")):
            weight.copy_(noise * LOUDNESS / math.sqrt(weight.shape[1]))
            weight[aside] = 0.0  # (hidden, in): these rows would write to the residual stream
        else:
            weight.copy_(noise * SHARPNESS / math.sqrt(weight.shape[1]))
            weight[:, aside] = 0.0  # (out, hidden): the layers do not read the constant
    embedding = model.model.embed_tokens.weight  # (vocabulary, hidden)
    embedding[:, aside] = torch.tensor([CONSTANT, 0.0])
    embedding[[piece.endswith("]") for piece in pieces], START_DIMENSION] = CONSTANT


def piece_biases(pieces: list[str]) -> Tensor:
    """Say how welcome each piece is in a response, as logits: (vocabulary,), 0 for a word."""
    biases = torch.tensor([piece_bias(piece) for piece in pieces])
    biases[: len(SPECIAL_TOKENS)] = FORBIDDEN
    return biases


def piece_bias(piece: str) -> float:
    """Prefer words to letters and letters to punctuation, and let no unreadable byte through."""
    if not piece.isascii() or not (piece.isprintable() or piece == "\n"):
        return FORBIDDEN
    if piece.startswith(" ") and piece.strip() in WORDS:
        return 0.0
    if piece.isspace() or not piece.strip().isalpha():
        return -2.0 if piece in {".", ",", "?", "!", "\n"} else -6.0
    return -4.0


@torch.no_grad()
def calibrate_head(model: LlamaForCausalLM, biases: Tensor, generator: torch.Generator, *, halvings: int = 24) -> None:
    """Scale the head until the mean entropy at temperature 1 is `ENTROPY`, then place `</s>`."""
    welcome = (biases == 0.0).nonzero().flatten()  # (words,)
    drawn = welcome[torch.randint(len(welcome), (8, 32), generator=generator)]
    hidden = model.model(drawn).last_hidden_state  # (8, 32, hidden)
    constant = hidden[..., BIAS_DIMENSION].mean()
    head = model.lm_head.weight  # (vocabulary, hidden)
    head[:, [BIAS_DIMENSION, START_DIMENSION]] = 0.0
    noise = hidden @ head.T  # (8, 32, vocabulary), before scale and bias
    low, high = 0.0, 1024.0
    for _ in range(halvings):
        scale = (low + high) / 2
        is_too_flat = mean_entropy(noise * scale + biases) > ENTROPY
        low, high = (scale, high) if is_too_flat else (low, scale)
    head *= low
    head[biases == FORBIDDEN] = 0.0
    head[:, BIAS_DIMENSION] = biases / constant
    # `</s>` has no noise of its own: its share varies only with that of the words.
    words_mass = torch.logsumexp(noise * low + biases, dim=-1).mean()
    head[EOS_TOKEN_ID] = 0.0
    head[EOS_TOKEN_ID, BIAS_DIMENSION] = (words_mass - math.log(RESPONSE_TOKENS)) / constant
    head[EOS_TOKEN_ID, START_DIMENSION] = FORBIDDEN / constant


def mean_entropy(logits: Tensor) -> float:
    """Give the mean entropy in nats of the distributions behind `logits` (..., vocabulary)."""
    log_shares = torch.log_softmax(logits, dim=-1)
    return float(-(log_shares.exp() * log_shares).sum(dim=-1).mean())
