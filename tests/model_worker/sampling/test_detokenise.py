"""Text from tokens as they come: nothing half a character long is shown."""

import pytest

from model_worker.checkpoint import Checkpoint
from model_worker.sampling.detokenise import Detokeniser, readable


@pytest.mark.parametrize(
    "text", ["Hello there, cat!", "naïve café - 日本語 🙂👩‍👩‍👧 مرحبا", "a\n\n  b\n\tcode()", "   leading", "🙂"]
)
def test_pieces_join_to_the_text_and_no_character_is_split(tiny: Checkpoint, text: str) -> None:
    detokeniser = Detokeniser(tiny.decode)
    pieces = [detokeniser.push(token) for token in tiny.tokenizer.encode(text, add_special_tokens=False)]
    assert not any("\ufffd" in piece for piece in pieces)
    assert "".join(pieces) + detokeniser.finish() == text.lstrip()


def test_a_character_that_never_becomes_whole_is_not_waited_for(tiny: Checkpoint) -> None:
    first_byte = tiny.tokenizer.encode("🙂", add_special_tokens=False)[0]
    after = tiny.tokenizer.encode(" and then", add_special_tokens=False)
    detokeniser = Detokeniser(tiny.decode)
    text = "".join(detokeniser.push(token) for token in [first_byte] * 9 + after) + detokeniser.finish()
    assert text == tiny.decode([first_byte] * 9 + after)
    assert text.endswith("and then")


def test_what_is_held_back_comes_at_the_end(tiny: Checkpoint) -> None:
    detokeniser = Detokeniser(tiny.decode)
    assert detokeniser.push(tiny.tokenizer.encode("🙂", add_special_tokens=False)[0]) == ""
    assert detokeniser.finish() == "\ufffd"


def test_readable_trims_and_drops_the_character_that_databases_refuse() -> None:
    assert readable(" \n a\0b \n") == "a\ufffdb"
