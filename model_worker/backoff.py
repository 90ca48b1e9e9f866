"""How long to wait before a failed request is tried again, and when to try it no more."""

import random
import time
from dataclasses import dataclass, field

from model_worker.client import AppFailedError, AppUnavailableError


@dataclass
class Backoff:
    """Doubles from ``first_s`` to ``longest_s`` seconds; jitter keeps many workers from returning all at once."""

    first_s: float = 0.25
    longest_s: float = 10.0
    _failures: int = field(default=0, init=False)

    def next_delay(self) -> float:
        """Seconds to wait after one more failure: between half and the whole of the doubled delay."""
        whole = min(self.longest_s, self.first_s * 2.0**self._failures)
        self._failures = min(self._failures + 1, 32)
        return whole * random.uniform(0.5, 1.0)  # noqa: S311 - not a secret

    def reset(self) -> None:
        """Start over, after a success."""
        self._failures = 0


@dataclass
class Patience:
    """With one request: an app that is away is waited for without end, one that fails on it only for a while."""

    _failing_since: float | None = field(default=None, init=False)

    def is_over(self, error: AppUnavailableError, *, limit_s: float) -> bool:
        """Note how a try ended; whether the app has now failed on the request for ``limit_s`` seconds."""
        if not isinstance(error, AppFailedError):
            self._failing_since = None
            return False
        at = time.monotonic()
        self._failing_since = self._failing_since if self._failing_since is not None else at
        return at - self._failing_since >= limit_s
