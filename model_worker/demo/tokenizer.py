"""Trains the byte-level BPE tokenizer of the demo and tiny checkpoints."""

from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from model_worker.demo.template import (
    BOS_TOKEN,
    CHAT_TEMPLATE,
    EOS_TOKEN,
    PAD_TOKEN,
    SPECIAL_TOKENS,
)

# All 256 bytes are pieces, so text in any script survives encoding and decoding.
BYTE_PIECES = 256


def train_tokenizer(texts: Iterable[str], *, vocabulary_size: int, context_length: int) -> PreTrainedTokenizerFast:
    """Learn at most `vocabulary_size` pieces from `texts`; the special tokens come first.

    There is no unknown token, because every byte has a piece. Nothing is added around plain text:
    `<s>` and `</s>` are written by the chat template alone.

    Raises ValueError where the size leaves no room for the bytes and the special tokens.
    """
    smallest = BYTE_PIECES + len(SPECIAL_TOKENS)
    if vocabulary_size < smallest:
        message = f"vocabulary_size must be at least {smallest}, not {vocabulary_size}"
        raise ValueError(message)
    bpe = Tokenizer(BPE())
    bpe.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=True)
    bpe.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=vocabulary_size,
        initial_alphabet=sorted(ByteLevel.alphabet()),
        special_tokens=[AddedToken(token, special=True) for token in SPECIAL_TOKENS],
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return chat_tokenizer(bpe, context_length=context_length)


def chat_tokenizer(bpe: Tokenizer, *, context_length: int) -> PreTrainedTokenizerFast:
    """Give a trained tokenizer its special tokens and the chat template."""
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=bpe,
        bos_token=BOS_TOKEN,
        eos_token=EOS_TOKEN,
        pad_token=PAD_TOKEN,
        model_max_length=context_length,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
