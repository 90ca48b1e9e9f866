"""Trains the demo checkpoint from nothing, on one processor, in one plain loop."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from model_worker.demo.corpus import LONG, SHORT, Conversation, build_conversations
from model_worker.demo.files import write_checkpoint
from model_worker.demo.template import BOS_TOKEN_ID, EOS_TOKEN_ID, PAD_TOKEN_ID
from model_worker.demo.tokenizer import chat_tokenizer, train_tokenizer

IGNORED = -100  # a target that counts for nothing, as `cross_entropy` knows it


@dataclass(frozen=True)
class Recipe:
    """The size of the model and how it is trained; the defaults are the committed checkpoint's."""

    vocabulary_size: int = 2048
    hidden_size: int = 192
    intermediate_size: int = 512
    layers: int = 6
    heads: int = 6
    key_value_heads: int = 2
    context_length: int = 1024
    rows: int = 4
    row_length: int = 384  # tokens
    long_every: int = 10  # every tenth minibatch has rows as long as the context
    peak_learning_rate: float = 2.5e-3
    warmup_steps: int = 100
    weight_decay: float = 0.05
    tokenizer_conversations: int = 6000
    save_every: int = 200  # steps


@dataclass(frozen=True)
class TrainingProgress:
    """What the loop tells about itself; `loss` is in nats per response token, of one minibatch."""

    step: int
    steps: int
    loss: float
    learning_rate: float
    tokens_per_second: float


@dataclass(frozen=True)
class Minibatch:
    """Packed conversations; `conversation` numbers them within each row, and 0 is padding.

    All are (rows, row_length); `targets` is IGNORED wherever the model is not the speaker.
    """

    inputs: Tensor
    targets: Tensor
    positions: Tensor
    conversation: Tensor


def train_demo_checkpoint(
    folder: Path,
    *,
    steps: int,
    seed: int,
    recipe: Recipe | None = None,
    start: Path | None = None,
    progress: Callable[[TrainingProgress], None] | None = None,
) -> Path:
    """Train a demo checkpoint for `steps` steps, write it into `folder`, and return `folder`.

    The same seed gives the same checkpoint on the same machine and number of threads. The folder
    holds a usable checkpoint after every `recipe.save_every` steps. With `start`, training goes on
    from the checkpoint in that folder, with its tokenizer and a new schedule. `progress` is called
    after each step. Raises ValueError where `steps` is below one.
    """
    if steps < 1:
        message = f"steps must be at least 1, not {steps}"
        raise ValueError(message)
    recipe = recipe or Recipe()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if start:
            bpe = Tokenizer.from_file(str(start / "tokenizer.json"))
            tokenizer = chat_tokenizer(bpe, context_length=recipe.context_length)
            model = LlamaForCausalLM.from_pretrained(start, local_files_only=True)
        else:
            tokenizer = learn_tokenizer(recipe, seed)
            model = build_model(recipe, len(tokenizer))
    model.train()
    optimizer = build_optimizer(model, recipe)
    minibatches = islice(build_minibatches(tokenizer, recipe, seed), steps)
    for step, minibatch in enumerate(minibatches, start=1):
        started = time.perf_counter()
        learning_rate = recipe.peak_learning_rate * schedule(step, steps, recipe.warmup_steps)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        loss = response_loss(model, minibatch)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
        optimizer.step()
        optimizer.zero_grad()
        if progress:
            speed = minibatch.inputs.numel() / (time.perf_counter() - started)
            progress(TrainingProgress(step, steps, loss.item(), learning_rate, speed))
        if step % recipe.save_every == 0 or step == steps:
            write_checkpoint(folder, model, tokenizer, stored_as=torch.float16)
    return folder


def learn_tokenizer(recipe: Recipe, seed: int) -> PreTrainedTokenizerFast:
    """Train the tokenizer on conversations as the template writes them."""
    conversations = islice(build_conversations(seed), recipe.tokenizer_conversations)
    texts = (
        f"[INST] {message['content']} [/INST] <<SYS>>\n <</SYS>>\n\n"
        for messages in conversations
        for message in messages
    )
    return train_tokenizer(texts, vocabulary_size=recipe.vocabulary_size, context_length=recipe.context_length)


def build_model(recipe: Recipe, vocabulary_size: int) -> LlamaForCausalLM:
    """Make the untrained model; embeddings and head share their weights."""
    config = LlamaConfig(
        vocab_size=vocabulary_size,
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.key_value_heads,
        max_position_embeddings=recipe.context_length,
        bos_token_id=BOS_TOKEN_ID,
        eos_token_id=EOS_TOKEN_ID,
        pad_token_id=PAD_TOKEN_ID,
        tie_word_embeddings=True,
        initializer_range=0.04,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        # Each layer adds to the residual stream twice; smaller steps keep its size at the start.
        for name, weight in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.div_(math.sqrt(2 * recipe.layers))
    return model


def build_optimizer(model: LlamaForCausalLM, recipe: Recipe) -> torch.optim.Optimizer:
    """Make AdamW that lets only the matrices decay."""
    matrices = [weight for weight in model.parameters() if weight.dim() > 1]
    norms = [weight for weight in model.parameters() if weight.dim() == 1]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": norms, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.peak_learning_rate, betas=(0.9, 0.98), fused=True)


def schedule(step: int, steps: int, warmup_steps: int) -> float:
    """Give the share of the peak learning rate at `step`: a linear rise, then a cosine to 2 %."""
    if step < warmup_steps:
        return step / warmup_steps
    passed = (step - warmup_steps) / max(1, steps - warmup_steps)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * passed))


def build_minibatches(tokenizer: PreTrainedTokenizerFast, recipe: Recipe, seed: int) -> Iterator[Minibatch]:
    """Give minibatches without end: mostly short conversations, now and then long ones.

    Long rows cost more for each token, but without them the model would not know how to go on
    after a thousand tokens. Each kind has a stream of conversations of its own.
    """
    tokens = recipe.rows * recipe.row_length
    length = recipe.context_length
    short = encoded_conversations(tokenizer, seed + 1, SHORT, recipe.row_length)
    long = encoded_conversations(tokenizer, seed + 2, LONG, length)
    short_minibatches = pack(short, recipe.rows, recipe.row_length)
    long_minibatches = pack(long, max(1, tokens // length), length)
    for number in count(1):
        yield next(long_minibatches if number % recipe.long_every == 0 else short_minibatches)


def encoded_conversations(
    tokenizer: PreTrainedTokenizerFast, seed: int, turns: Sequence[int], row_length: int
) -> Iterator[tuple[list[int], list[int]]]:
    """Encode conversations without end as (inputs, targets), cut to whole messages in a row."""
    for messages in build_conversations(seed, turns=turns):
        inputs, targets = encode_conversation(tokenizer, messages)
        kept = min(len(inputs), row_length)
        while kept and inputs[kept - 1] != EOS_TOKEN_ID:
            kept -= 1
        # The last token has nothing to predict.
        if kept > 1:
            yield inputs[: kept - 1], targets[: kept - 1]


def encode_conversation(tokenizer: PreTrainedTokenizerFast, messages: Conversation) -> tuple[list[int], list[int]]:
    """Give the token ids of a conversation and, one step ahead, the targets.

    A target is IGNORED unless it belongs to a response; the response's `</s>` does. The
    template's prefix property makes the pieces fit: each message's ids follow the ids before it.
    """
    spoken = [{"role": message["role"], "content": message["content"]} for message in messages]
    ids: list[int] = []
    is_response: list[bool] = []
    for end, message in enumerate(spoken, start=1):
        if message["role"] == "system":
            continue
        text = tokenizer.apply_chat_template(spoken[:end], tokenize=False)
        longer = tokenizer.encode(text, add_special_tokens=False)
        new = len(longer) - len(ids)
        is_response += [message["role"] == "assistant"] * new
        ids = longer
    shifted = zip(ids[1:], is_response[1:], strict=True)
    targets = [token if counts else IGNORED for token, counts in shifted]
    return ids, [*targets, IGNORED]


def pack(conversations: Iterator[tuple[list[int], list[int]]], row_count: int, row_length: int) -> Iterator[Minibatch]:
    """Fill rows with whole conversations, each into the first row that has room for it."""
    rows: list[list[tuple[list[int], list[int]]]] = [[] for _ in range(row_count)]
    used = [0] * row_count
    for inputs, targets in conversations:
        fitting = [row for row in range(row_count) if used[row] + len(inputs) <= row_length]
        if not fitting:
            yield stack_rows(rows, row_length)
            rows, used, fitting = [[] for _ in range(row_count)], [0] * row_count, [0]
        rows[fitting[0]].append((inputs, targets))
        used[fitting[0]] += len(inputs)


def stack_rows(rows: list[list[tuple[list[int], list[int]]]], row_length: int) -> Minibatch:
    """Make tensors (rows, row_length) of packed conversations and pad the ends."""
    shape = (len(rows), row_length)
    inputs = torch.full(shape, PAD_TOKEN_ID)
    targets = torch.full(shape, IGNORED)
    positions = torch.zeros(shape, dtype=torch.long)
    conversation = torch.zeros(shape, dtype=torch.long)
    for row, packed in enumerate(rows):
        start = 0
        for number, (ids, wanted) in enumerate(packed, start=1):
            here = slice(start, start + len(ids))
            inputs[row, here] = torch.tensor(ids)
            targets[row, here] = torch.tensor(wanted)
            positions[row, here] = torch.arange(len(ids))
            conversation[row, here] = number
            start = here.stop
    return Minibatch(inputs, targets, positions, conversation)


def response_loss(model: LlamaForCausalLM, minibatch: Minibatch) -> Tensor:
    """Give the mean cross entropy over the response tokens, in nats."""
    length = minibatch.inputs.shape[1]
    same = minibatch.conversation[:, :, None] == minibatch.conversation[:, None, :]
    earlier = torch.ones(length, length, dtype=torch.bool).tril()
    mask = (same & earlier)[:, None]  # (rows, 1, length, length), true where a token may look
    hidden = model.model(
        input_ids=minibatch.inputs,
        position_ids=minibatch.positions,
        attention_mask=mask,
        use_cache=False,
    ).last_hidden_state  # (rows, length, hidden)
    spoken = minibatch.targets != IGNORED
    logits = model.lm_head(hidden[spoken])  # (response tokens, vocabulary)
    return functional.cross_entropy(logits, minibatch.targets[spoken])
