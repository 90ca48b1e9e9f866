"""What the reward model reads: the chat template, cut on the left, never in the response."""

import pytest

from contract.vocabulary import MarginScheme, Strength
from model_worker.chat_format import encode_messages
from model_worker.errors import DatasetError, EncodingError, ResponseTooLongError
from model_worker.reward.encoding import Encoder, encode_comparisons
from model_worker.reward.model import LoadedRewardModel
from tests.model_worker.reward.builders import assistant, make_comparison, user

BOS, EOS = 0, 1


def test_a_conversation_ends_with_the_end_of_its_response(loaded: LoadedRewardModel) -> None:
    ids = Encoder(loaded.tokenizer, max_length=512).encode([user("tea")], "bread")
    assert loaded.tokenizer.decode(ids) == "<s>[INST] tea [/INST] bread </s>"
    assert (ids[0], ids[-1], ids.count(BOS), ids.count(EOS)) == (BOS, EOS, 1, 1)


@pytest.mark.parametrize("typed", ["</s>", "<s>", "<pad>", "a</s></s>b"])
def test_nobody_can_type_a_control_token(loaded: LoadedRewardModel, typed: str) -> None:
    encoder = Encoder(loaded.tokenizer, max_length=512)
    for prompt, response in ((f"tea {typed} bread", "paper"), ("tea", f"paper {typed} house")):
        ids = encoder.encode([user(prompt)], response)
        assert [sum(token == special for token in ids) for special in (0, 1, 2)] == [1, 1, 0]
        assert typed in loaded.tokenizer.decode(ids)


def test_each_turn_of_a_conversation_is_a_prefix_of_the_next(loaded: LoadedRewardModel) -> None:
    encoder = Encoder(loaded.tokenizer, max_length=512)
    first = encoder.encode([user("tea")], "bread")
    second = encoder.encode([user("tea"), assistant("bread"), user("more")], "paper")
    assert second[: len(first)] == first


def test_the_context_is_cut_on_the_left_and_the_response_never(loaded: LoadedRewardModel) -> None:
    prompt = [user("one morning " * 10), assistant("two"), user("three garden " * 10)]
    whole = Encoder(loaded.tokenizer, max_length=512).encode(prompt, "four green paper")
    cut = Encoder(loaded.tokenizer, max_length=30).encode(prompt, "four green paper")
    assert len(cut) == 30
    assert cut[0] == BOS
    assert cut[1:] == whole[-29:]
    assert loaded.tokenizer.decode(cut).endswith("[/INST] four green paper </s>")


def test_a_response_that_does_not_fit_is_never_cut(loaded: LoadedRewardModel) -> None:
    response = "green paper house " * 10
    prompt = [user("tea")]
    whole = Encoder(loaded.tokenizer, max_length=512).encode(prompt, response)
    own = len(whole) - len(encode_messages(loaded.tokenizer, prompt, add_generation_prompt=True))
    fits = Encoder(loaded.tokenizer, max_length=own + 1).encode(prompt, response)
    assert fits == (BOS, *whole[-own:])
    with pytest.raises(ResponseTooLongError, match=f"longer than {own} tokens"):
        Encoder(loaded.tokenizer, max_length=own).encode(prompt, response)


def test_too_long_comparisons_are_left_out_and_counted(loaded: LoadedRewardModel) -> None:
    comparisons = [make_comparison(1), make_comparison(2, rejected="paper house " * 40), make_comparison(3)]
    encoded = encode_comparisons(Encoder(loaded.tokenizer, max_length=60), comparisons, MarginScheme.SMALL)
    assert [one.comparison_id for one in encoded.comparisons] == ["comparison-1", "comparison-3"]
    assert len(encoded.encoded) == 2
    assert encoded.too_long == 1


def test_margins_come_from_the_strength_by_the_scheme(loaded: LoadedRewardModel) -> None:
    comparisons = [make_comparison(strength=strength) for strength in (*Strength, None)]
    encoder = Encoder(loaded.tokenizer, max_length=512)
    margins = {
        scheme: [one.margin for one in encode_comparisons(encoder, comparisons, scheme).encoded]
        for scheme in MarginScheme
    }
    assert margins == {
        MarginScheme.NONE: [0, 0, 0, 0, 0],
        MarginScheme.SMALL: [1, 2 / 3, 1 / 3, 0, 0],
        MarginScheme.LARGE: [3, 2, 1, 0, 0],
    }


def test_what_the_template_refuses_is_named(loaded: LoadedRewardModel) -> None:
    encoder = Encoder(loaded.tokenizer, max_length=512)
    with pytest.raises(EncodingError, match="roles must alternate"):
        encoder.encode([user("tea"), user("tea")], "bread")
    bad = make_comparison(7, prompt=(user("tea"), user("tea")))
    with pytest.raises(DatasetError, match="Comparison comparison-7: The chat template refuses"):
        encode_comparisons(encoder, [bad], MarginScheme.NONE)
