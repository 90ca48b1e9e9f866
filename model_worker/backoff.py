"""How long to wait before a failed request is tried again."""

import random
from dataclasses import dataclass, field


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
