"""When pairs arrive, and when their responses begin and end, for `benchmarks.sampling`."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import Protocol

from benchmarks._sampling_workload import Pair

Figures = dict[str, float | int | str | bool]


@dataclass(frozen=True)
class Timing:
    """When a response began and ended, by `time.perf_counter`."""

    pair: Pair
    response: int
    first_token_at: float
    ended_at: float
    tokens: int


class Clock:
    """Real time, less the time in which nobody waited for anything."""

    def __init__(self) -> None:
        self.started_at = time.perf_counter()

    def now(self) -> float:
        """Seconds since the run began."""
        return time.perf_counter() - self.started_at

    def skip_to(self, moment: float) -> None:
        """Let time pass at once. Nothing may be under way."""
        self.started_at -= max(0.0, moment - self.now())


@dataclass
class Run:
    """What one way of sampling did with all pairs."""

    arrivals: Mapping[int, float]
    """When each pair is asked for, by its number."""
    first_token_s: list[float] = field(default_factory=list)
    """From the pair's arrival to the first token of a response, for each response."""
    ended_at: dict[int, float] = field(default_factory=dict)
    """When the later response of a pair ended, by the pair's number."""
    tokens: int = 0
    cpu_s: float = 0.0

    def add(self, timing: Timing, clock: Clock) -> None:
        """Take note of a response that ended."""
        number, ended_at = timing.pair.number, timing.ended_at - clock.started_at
        self.first_token_s.append(timing.first_token_at - clock.started_at - self.arrivals[number])
        self.ended_at[number] = max(ended_at, self.ended_at.get(number, 0.0))
        self.tokens += timing.tokens

    def figures(self) -> Figures:
        """Throughput, and how long people waited."""
        waited = [ended_at - self.arrivals[number] for number, ended_at in self.ended_at.items()]
        wall_s = max(self.ended_at.values())
        return {
            "pairs_per_s": round(len(waited) / wall_s, 4),
            "tokens_per_s": round(self.tokens / wall_s, 1),
            "tokens_per_cpu_s": round(self.tokens / self.cpu_s, 1),
            "wall_s": round(wall_s, 2),
            "cpu_s": round(self.cpu_s, 2),
            "new_tokens": self.tokens,
            **_spread("first_token_s", self.first_token_s),
            **_spread("pair_s", waited),
        }


class Engine(Protocol):
    """A way of sampling that takes pairs while others are under way."""

    def has_room(self) -> bool:
        """Whether it wants another pair now."""

    def submit(self, pair: Pair) -> None:
        """Start a pair, or queue it."""

    def ended(self, timeout_s: float | None) -> Sequence[Timing]:
        """Wait for responses that ended; none where the time was up first."""


def run_engine(engine: Engine, pairs: Sequence[Pair], arrivals: Mapping[int, float]) -> Run:
    """Hand over each pair when it arrives and there is room for it."""
    run, clock, waiting, live = Run(arrivals), Clock(), list(pairs), 0
    cpu_started = time.process_time()
    while waiting or live:
        if not live and waiting:
            clock.skip_to(arrivals[waiting[0].number])
        while waiting and arrivals[waiting[0].number] <= clock.now() and engine.has_room():
            engine.submit(waiting.pop(0))
            live += 2
        until_next = arrivals[waiting[0].number] - clock.now() if waiting else 0.0
        for timing in engine.ended(until_next if until_next > 0 else None):
            run.add(timing, clock)
            live -= 1
    run.cpu_s = time.process_time() - cpu_started
    return run


def run_in_groups(
    sample: Callable[[Sequence[Pair]], Sequence[Timing]],
    most: int,
    pairs: Sequence[Pair],
    arrivals: Mapping[int, float],
) -> Run:
    """Whenever nothing is under way, sample as many of the waiting pairs as are allowed at once."""
    run, clock, waiting = Run(arrivals), Clock(), list(pairs)
    cpu_started = time.process_time()
    while waiting:
        clock.skip_to(arrivals[waiting[0].number])
        now = clock.now()
        group = [pair for pair in waiting if arrivals[pair.number] <= now][:most]
        del waiting[: len(group)]
        for timing in sample(group):
            run.add(timing, clock)
    run.cpu_s = time.process_time() - cpu_started
    return run


def _spread(name: str, seconds: Sequence[float]) -> Figures:
    ordered = sorted(seconds)
    return {
        f"{name}_mean": round(mean(ordered), 3),
        f"{name}_p50": round(ordered[len(ordered) // 2], 3),
        f"{name}_p95": round(ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))], 3),
    }
