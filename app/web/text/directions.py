"""Gives each block its own direction, so that an answer in two scripts shows each paragraph as it is read."""

from typing import Final
from unicodedata import bidirectional

from markdown_it.rules_core import StateCore
from markdown_it.token import Token

# These hold the text themselves, and a browser finds its direction.
_TEXT: Final = frozenset({"paragraph_open", "heading_open", "th_open", "td_open"})
# These hold other blocks. A browser that looks for their direction passes over each block that has its own, so it is
# found here: on it depends where a list's marks, a quotation's bar and a table's first column stand.
_CONTAINERS: Final = frozenset(
    {"blockquote_open", "bullet_list_open", "ordered_list_open", "list_item_open", "table_open"}
)
_DIRECTIONS: Final = {"L": "ltr", "R": "rtl", "AL": "rtl"}


def add_directions(state: StateCore) -> None:
    """Mark the parsed blocks; a step of the parser."""
    waiting: list[Token] = []
    for token in state.tokens:
        if token.type in _TEXT:
            token.attrs["dir"] = "auto"
        elif token.type in _CONTAINERS:
            waiting.append(token)
        elif token.type == "inline" and waiting:
            direction = _direction(token)
            if direction:
                for container in waiting:
                    container.attrs["dir"] = direction
                waiting.clear()
        elif waiting and token.nesting < 0 and token.type == waiting[-1].type.replace("_open", "_close"):
            # It held no letter, and what comes after it is not its own.
            waiting.pop()


def _direction(token: Token) -> str | None:
    """The direction of the first letter; code and formulas have their own."""
    for child in token.children or ():
        if child.type == "text":
            for character in child.content:
                direction = _DIRECTIONS.get(bidirectional(character))
                if direction:
                    return direction
    return None
