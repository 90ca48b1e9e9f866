"""Turns tokens into text one by one, holding back what is not a whole character yet."""

from collections.abc import Callable, Sequence
from typing import Final

Decode = Callable[[Sequence[int]], str]

_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"
# A character has at most four bytes and hence four tokens: a longer wait means bytes that are no text.
_LONGEST_WAIT: Final = 4


def readable(text: str) -> str:
    """The text of a whole response: without outer white space, as chat templates trim it, and without NUL.

    PostgreSQL and browsers refuse the NUL character, which a byte-level tokenizer can spell.
    """
    return text.replace("\0", _REPLACEMENT).strip()


class Detokeniser:
    """The growing text of one response.

    A token is decoded together with those before it, since tokenizers treat the start of a text
    in their own way. Leading white space is left out, as in :func:`readable`.
    """

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._context = 0  # where the decoded window starts
        self._said = 0  # up to where tokens have become text
        self._has_text = False

    @property
    def pushed(self) -> int:
        """How many tokens were added."""
        return len(self._ids)

    def push(self, *token_ids: int) -> str:
        """Add tokens and return the text they complete: one makes a word, a part of it, or nothing yet."""
        self._ids.extend(token_ids)
        return self._grow(is_last=False)

    def finish(self) -> str:
        """Return what was held back."""
        return self._grow(is_last=True)

    def _grow(self, *, is_last: bool) -> str:
        end = len(self._ids) if is_last else self._whole_end()
        before = self._decode(self._ids[self._context : self._said])
        now = self._decode(self._ids[self._context : end])
        if len(now) <= len(before):
            return ""
        self._context, self._said = self._said, end
        text = now[len(before) :].replace("\0", _REPLACEMENT)
        if not self._has_text:
            text = text.lstrip()
            self._has_text = bool(text)
        return text

    def _whole_end(self) -> int:
        """Up to which token the text is made of whole characters."""
        for held in range(_LONGEST_WAIT):
            end = len(self._ids) - held
            if end <= self._said:
                return self._said
            if not self._decode(self._ids[self._context : end]).endswith(_REPLACEMENT):
                return end
        return len(self._ids)
