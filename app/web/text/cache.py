"""Remembers what was rendered: a page shows the same texts as the page before it."""

from collections import OrderedDict
from collections.abc import Callable
from sys import getsizeof
from threading import Lock

from markupsafe import Markup


class TextCache:
    """The latest results of a function of a text, bounded by the memory that they take; safe to share by threads."""

    def __init__(self, function: Callable[[str], Markup], max_bytes: int) -> None:
        self._function = function
        self._max_bytes = max_bytes
        self._results: OrderedDict[str, Markup] = OrderedDict()
        self._lock = Lock()
        self.size = 0

    def __call__(self, text: str) -> Markup:
        """The function's result, remembered or new."""
        with self._lock:
            known = self._results.get(text)
            if known is not None:
                self._results.move_to_end(text)
                return known
        # Two threads may do the same work; neither waits for the other.
        result = self._function(text)
        with self._lock:
            if text not in self._results:
                self._results[text] = result
                self.size += _size(text, result)
            while self.size > self._max_bytes:
                self.size -= _size(*self._results.popitem(last=False))
        return result


def _size(text: str, result: Markup) -> int:
    return getsizeof(text) + getsizeof(result)
