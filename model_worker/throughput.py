"""How fast a sampler draws tokens."""

import threading
import time
from collections import deque
from collections.abc import Callable


class TokenRate:
    """Tokens per second over the last ``window_s`` seconds, from a count that only grows."""

    def __init__(
        self, tokens_drawn: Callable[[], int], *, window_s: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tokens_drawn = tokens_drawn
        self._window_s = window_s
        self._clock = clock
        self._lock = threading.Lock()
        self._looks = deque([(clock(), tokens_drawn())])

    def per_s(self) -> float:
        """The rate at present. Whoever asks also looks, so that it is asked at least every few seconds."""
        with self._lock:
            at, tokens = self._clock(), self._tokens_drawn()
            self._looks.append((at, tokens))
            # The last look before the window stays: without it, a window in which nobody looked would be empty.
            while len(self._looks) > 2 and self._looks[1][0] <= at - self._window_s:  # noqa: PLR2004 - first and last
                self._looks.popleft()
            first_at, first_tokens = self._looks[0]
            return (tokens - first_tokens) / (at - first_at) if at > first_at else 0.0
