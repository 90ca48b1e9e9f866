"""Finds the words in which two responses differ, so that they can be marked on both sides."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from rapidfuzz.distance import LCSseq

# One bit of memory for each pair of words: at most 25 MB, for a fraction of a second.
_MAX_PAIRS = 200_000_000
# So many words in common between two longer differences are chance, such as a single "the".
_MAX_ISLAND = 2
# A difference is long if it has so many times the words of the island beside it.
_LONG = 3

_MARKS = "\u0300-\u036f\u20d0-\u20ff\u3099\u309a\ufe00-\ufe0f\U000e0100-\U000e01ef"
# Vowels and tones of Thai, Lao, Burmese and Khmer stand with the letter before them.
_VOWELS = "\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ece\u102b-\u103e\u1056-\u1059\u17b4-\u17d3"
# Scripts that put no space between words: Thai to Lao, Burmese, Khmer, kana and Chinese characters.
_WITHOUT_SPACES = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
# Not the zero-width joiners among them: these hold the parts of an emoji, or of a Persian word, together.
_PUNCTUATION = r"!-&(-/:-@\[-`{-~\u00a1-\u00a9\u00ab-\u00b1\u00b4-\u00b8\u00bb-\u00bf\u2010-\u2018\u201a-\u2027"
_PUNCTUATION += "\u2030-\u205e\u3001-\u3003\u3008-\u3020\u30fb\uff01-\uff0f\uff1a-\uff20"
_WORD: Final = re.compile(
    rf"\s+|[{_PUNCTUATION}][{_MARKS}]*|[{_WITHOUT_SPACES}][{_MARKS}{_VOWELS}]*|[^\s{_PUNCTUATION}{_WITHOUT_SPACES}]+"
)
_LINE: Final = re.compile(r"[^\n]*\n|[^\n]+")


@dataclass(frozen=True)
class Piece:
    """A part of a response: the same on both sides, or only here."""

    text: str
    is_same: bool

    @property
    def is_only_here(self) -> bool:
        """Whether the other response lacks this part."""
        return not self.is_same


class _Span(NamedTuple):
    """What stands in the same place on both sides, counted in words."""

    is_same: bool
    a_start: int
    a_end: int
    b_start: int
    b_end: int

    @property
    def length(self) -> int:
        """The words of the longer side."""
        return max(self.a_end - self.a_start, self.b_end - self.b_start)


class _Words(NamedTuple):
    """A text cut into words, each with the white space before it."""

    spaces: list[str]
    words: list[str]
    ending: str


def differences(a: str, b: str) -> tuple[list[Piece], list[Piece]]:
    """Both texts in pieces, alike or only on one side. Spaces and line breaks alone make no difference.

    The pieces of a side, joined, are its text. Swapping the texts swaps the pieces.
    """
    # There may be several longest common sequences; the order makes it the same one for (a, b) and (b, a).
    if a > b:
        pieces_b, pieces_a = differences(b, a)
        return pieces_a, pieces_b
    cut_a, cut_b = _cut(a, _WORD), _cut(b, _WORD)
    if len(cut_a.words) * len(cut_b.words) > _MAX_PAIRS:
        cut_a, cut_b = _cut(a, _LINE), _cut(b, _LINE)
    spans = _without_islands(_spans(cut_a.words, cut_b.words), cut_a.words)
    return (
        _pieces(cut_a, ((span.is_same, span.a_start, span.a_end) for span in spans)),
        _pieces(cut_b, ((span.is_same, span.b_start, span.b_end) for span in spans)),
    )


def _cut(text: str, pattern: re.Pattern[str]) -> _Words:
    spaces: list[str] = []
    words: list[str] = []
    waiting = ""
    for part in pattern.findall(text):
        if part.isspace():
            waiting += part
        else:
            spaces.append(waiting)
            words.append(part)
            waiting = ""
    return _Words(spaces, words, waiting)


def _spans(a: Sequence[str], b: Sequence[str]) -> list[_Span]:
    """The texts side by side, by the longest sequence of words that both have."""
    if len(a) * len(b) > _MAX_PAIRS:
        return [_Span(False, 0, len(a), 0, len(b))]
    numbers: dict[str, int] = {}
    codes_a = [numbers.setdefault(word, len(numbers)) for word in a]
    codes_b = [numbers.setdefault(word, len(numbers)) for word in b]
    spans: list[_Span] = []
    for step in LCSseq.opcodes(codes_a, codes_b):
        _append(spans, _Span(step.tag == "equal", step.src_start, step.src_end, step.dest_start, step.dest_end))
    return spans


def _append(spans: list[_Span], span: _Span) -> None:
    """Add a span to those before it, as one with the last if they are of a kind."""
    if spans and spans[-1].is_same == span.is_same:
        last = spans.pop()
        span = _Span(span.is_same, last.a_start, span.a_end, last.b_start, span.b_end)
    spans.append(span)


def _without_islands(spans: Sequence[_Span], a: Sequence[str]) -> list[_Span]:
    """Few words in common between long differences become a part of these, which are easier to read so."""
    kept: list[_Span] = []
    for index, span in enumerate(spans):
        is_island = (
            span.is_same
            and 0 < index < len(spans) - 1
            and (size := _letters(a[span.a_start : span.a_end])) <= _MAX_ISLAND
            and min(kept[-1].length, spans[index + 1].length) >= max(_LONG * size, 1)
        )
        _append(kept, span._replace(is_same=False) if is_island else span)
    return kept


def _letters(words: Iterable[str]) -> int:
    """How many words are not punctuation."""
    return sum(any(character.isalnum() for character in word) for word in words)


def _pieces(cut: _Words, spans: Iterable[tuple[bool, int, int]]) -> list[Piece]:
    """The words joined again. White space between two pieces stays out of the one that will be marked."""
    pieces: list[Piece] = []
    for is_same, start, end in spans:
        if start == end:
            continue
        before, *spaces = cut.spaces[start:end]
        first, *words = cut.words[start:end]
        text = first + "".join(space + word for space, word in zip(spaces, words, strict=True))
        if is_same or not pieces:
            _add(pieces, before + text, is_same=is_same)
        else:
            _add(pieces, before, is_same=True)
            _add(pieces, text, is_same=False)
    _add(pieces, cut.ending, is_same=True)
    return pieces


def _add(pieces: list[Piece], text: str, *, is_same: bool) -> None:
    """Add a piece; where the other side alone has more, two of the same kind are one."""
    if pieces and pieces[-1].is_same == is_same:
        text = pieces.pop().text + text
    if text:
        pieces.append(Piece(text, is_same))
