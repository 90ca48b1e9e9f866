"""The words in which two responses differ."""

import random
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.annotation.difference import Piece, differences

WORDS = st.lists(
    st.sampled_from(
        ["the", "a", "tea", "cup", ",", ".", " ", "\n", "  ", "\u732b", "\u72ac", "\u306f", "e\u0301", "\U0001f600"]
    ),
    max_size=40,
)
TEXTS = st.text(max_size=60) | WORDS.map(" ".join) | WORDS.map("".join)


def marked(pieces: list[Piece]) -> str:
    return "".join(f"[{piece.text}]" if piece.is_only_here else piece.text for piece in pieces)


@given(TEXTS, TEXTS)
@settings(max_examples=500, deadline=None)
def test_the_pieces_joined_are_the_texts_and_swapping_mirrors(a: str, b: str) -> None:
    pieces_a, pieces_b = differences(a, b)
    assert "".join(piece.text for piece in pieces_a) == a
    assert "".join(piece.text for piece in pieces_b) == b
    assert differences(b, a) == (pieces_b, pieces_a)
    same_a, same_b = (
        "".join("".join(piece.text for piece in pieces if piece.is_same).split()) for pieces in (pieces_a, pieces_b)
    )
    assert same_a == same_b
    for pieces in (pieces_a, pieces_b):
        kinds = [piece.is_same for piece in pieces]
        assert all(kind != following for kind, following in pairwise(kinds))
        assert all(piece.text for piece in pieces)


@given(TEXTS)
def test_a_text_does_not_differ_from_itself(text: str) -> None:
    assert differences(text, text) == (([Piece(text, is_same=True)] * bool(text)),) * 2


@pytest.mark.parametrize(
    ("a", "b", "marked_a", "marked_b"),
    [
        ("", "", "", ""),
        ("", "tea", "", "[tea]"),
        ("Boil the water.", "Boil some water.", "Boil [the] water.", "Boil [some] water."),
        ("one two three", "one three", "one [two] three", "one three"),
        ("one\ntwo", "one two", "one\ntwo", "one two"),
        ("it is hot", "it is hot, very", "it is hot", "it is hot[, very]"),
        ("don't go", "do go", "[don't] go", "[do] go"),
        ("Tea (green)", "Tea (black)", "Tea ([green])", "Tea ([black])"),
        ("x = 12", "x = 13", "x = [12]", "x = [13]"),
        # Scripts without spaces, by character.
        ("\u79c1\u306f\u732b\u304c\u597d\u304d", "\u79c1\u306f\u72ac\u304c\u597d\u304d", "\u79c1\u306f[\u732b]\u304c\u597d\u304d", "\u79c1\u306f[\u72ac]\u304c\u597d\u304d"),  # noqa: E501
        ("\u0e04\u0e23\u0e31\u0e1a", "\u0e04\u0e48\u0e30", "[\u0e04\u0e23\u0e31\u0e1a]", "[\u0e04\u0e48\u0e30]"),
        # A letter and its mark, and the parts of an emoji, stay together.
        ("cafe\u0301", "cafe", "[cafe\u0301]", "[cafe]"),
        ("\U0001f468\u200d\U0001f467 x", "\U0001f468\u200d\U0001f466 x", "[\U0001f468\u200d\U0001f467] x", "[\U0001f468\u200d\U0001f466] x"),  # noqa: E501
    ],
)  # fmt: skip
def test_differences_are_words(a: str, b: str, marked_a: str, marked_b: str) -> None:
    assert [marked(pieces) for pieces in differences(a, b)] == [marked_a, marked_b]


def test_a_common_word_between_long_differences_is_part_of_them() -> None:
    a, b = differences("Start: red big pots the size of barns. End", "Start: many good tools the kitchen can hold. End")
    assert marked(a) == "Start: [red big pots the size of barns]. End"
    assert marked(b) == "Start: [many good tools the kitchen can hold]. End"
    near, _ = differences("red the size", "many the kitchen")
    assert marked(near) == "[red] the [size]"


def test_no_repetition_takes_long() -> None:
    chance = random.Random(1)
    few = "the be to of and a in that have I".split()
    pairs = [
        ("the " * 3000, "the " * 1500 + "a " * 1500),
        ("the " * 3000, " ".join(map(str, range(3000)))),
        *((" ".join(chance.choices(few, k=3000)), " ".join(chance.choices(few, k=3000))) for _ in range(2)),
        ("a b " * 1500, "b a " * 1500),
    ]
    for a, b in pairs:
        started_at = time.thread_time()
        pieces, _ = differences(a, b)
        # A tenth of this where nothing else runs.
        assert time.thread_time() - started_at < 0.5
        assert "".join(piece.text for piece in pieces) == a


def test_texts_too_long_for_words_are_compared_by_lines_or_not_at_all() -> None:
    lines_a = "".join(f"line {number} of a long text\n" for number in range(4000))
    lines_b = lines_a.replace("line 2000 of", "line two of")
    a, b = differences(lines_a, lines_b)
    assert [piece.text for piece in a if piece.is_only_here] == ["line 2000 of a long text\n"]
    assert [piece.text for piece in b if piece.is_only_here] == ["line two of a long text\n"]
    started_at = time.thread_time()
    assert marked(differences("a\n" * 20_000, "b\n" * 20_000)[0]) == "[" + "a\n" * 20_000 + "]"
    assert time.thread_time() - started_at < 2
