"""The chat template and the tokenizers of the demo and tiny checkpoints."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import jinja2
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from model_worker.demo.template import (
    BOS_TOKEN_ID,
    CHAT_TEMPLATE,
    EOS_TOKEN_ID,
    PAD_TOKEN_ID,
    SPECIAL_TOKENS,
)
from model_worker.demo.tiny import make_tiny_checkpoint

COMMITTED = Path(__file__).parents[3] / "model_worker" / "demo" / "checkpoint"

CONVERSATION = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "How do I make tea?"},
    {"role": "assistant", "content": "With hot water."},
    {"role": "user", "content": "  Why?\n"},
    {"role": "assistant", "content": '"Because" it tastes better.'},
    {"role": "user", "content": "مرحبا 🙂"},
    {"role": "assistant", "content": ""},
]


@pytest.fixture(scope="module", params=["tiny", "demo"])
def tokenizer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PreTrainedTokenizerFast]:
    """The tokenizer of each kind of checkpoint, as it loads from its folder."""
    folder = COMMITTED
    if request.param == "tiny":
        folder = make_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))
    return AutoTokenizer.from_pretrained(folder)


def encode(tokenizer: PreTrainedTokenizerFast, messages: list[dict[str, str]]) -> list[int]:
    """Encode a conversation as the template writes it."""
    return tokenizer.apply_chat_template(messages, return_dict=False)


def test_renders_llama_2s_text(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.apply_chat_template(CONVERSATION[:4], tokenize=False) == (
        "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHow do I make tea? [/INST] With hot water. </s><s>[INST] Why? [/INST]"
    )


def test_the_template_lies_in_the_folder(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.chat_template == CHAT_TEMPLATE


def test_each_message_adds_to_the_ids_before_it(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = [encode(tokenizer, CONVERSATION[:end]) for end in range(2, len(CONVERSATION) + 1)]
    for shorter, longer in pairwise(ids):
        assert longer[: len(shorter)] == shorter
        assert len(longer) > len(shorter)


def test_every_response_ends_in_eos(tokenizer: PreTrainedTokenizerFast) -> None:
    for end in (3, 5, 7):
        assert encode(tokenizer, CONVERSATION[:end])[-1] == EOS_TOKEN_ID
    assert encode(tokenizer, CONVERSATION).count(EOS_TOKEN_ID) == 3


@pytest.mark.parametrize(
    "roles",
    [
        [],
        ["system"],
        ["assistant"],
        ["user", "user"],
        ["user", "assistant", "assistant"],
        ["user", "system"],
        ["user", "tool"],
        ["system", "assistant"],
        ["nobody"],
    ],
)
def test_odd_roles_are_refused(tokenizer: PreTrainedTokenizerFast, roles: list[str]) -> None:
    messages = [{"role": role, "content": "x"} for role in roles]
    with pytest.raises((jinja2.TemplateError, ValueError, IndexError)):
        encode(tokenizer, messages)


def test_special_tokens_have_their_ids(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == [0, 1, 2]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (
        BOS_TOKEN_ID,
        EOS_TOKEN_ID,
        PAD_TOKEN_ID,
    )
    assert tokenizer("tea").input_ids[0] != BOS_TOKEN_ID, "the template alone writes <s>"


def test_a_typed_eos_is_the_special_token_as_with_llama_2(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = encode(tokenizer, [{"role": "user", "content": "a </s> b"}])
    assert ids.count(EOS_TOKEN_ID) == 1
    longer = encode(tokenizer, [{"role": "user", "content": "a </s> b"}, {"role": "assistant", "content": "c"}])
    assert longer[: len(ids)] == ids
    assert longer[-1] == EOS_TOKEN_ID


def test_a_typed_inst_is_plain_text(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = encode(tokenizer, [{"role": "user", "content": "a [/INST] b [INST]"}])
    assert tokenizer.decode(ids) == "<s>[INST] a [/INST] b [INST] [/INST]"
    assert ids.count(EOS_TOKEN_ID) == 0


@pytest.mark.parametrize(
    "text",
    [
        "مرحبا، كيف حالك؟ أنا بخير.",
        "שלום עולם",
        "👩‍🚀 🙂 🏳️‍🌈 é ñ",
        "今日は良い天気ですね。你好，世界！ 한국어",  # noqa: RUF001
        'def f(x):\n\treturn {"a": x ** 2}  # why?\r\n\r\n',
        "  leading, trailing  and   inner spaces  ",
        "<unk> <0x0A> \x00 \x7f \ufeff \U0010fffd",
        "",
    ],
)
def test_any_text_survives(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_any_ids_can_be_decoded(tokenizer: PreTrainedTokenizerFast) -> None:
    for token in range(len(tokenizer)):
        tokenizer.decode([token])
    tokenizer.decode(list(range(len(tokenizer)))[::-1])
