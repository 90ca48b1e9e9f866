"""The storm itself: at moments drawn from a seed, something happens to a worker, an app process or the network."""

import random
import time
from collections import Counter
from collections.abc import Callable

from tests.end_to_end.storm.stage import Actor, Stage

_SLOW_BYTES_PER_S = (2_000.0, 20_000.0)
# Of the length of a lease: long enough for others to take the work over.
_AWAY = (1.5, 2.5)
_MOST_STRETCHED = 6


class Weather:
    """Draws what happens next. Every kind comes once, in an order of its own, before anything comes again."""

    def __init__(self, stage: Stage, generator: random.Random) -> None:
        self.counts: Counter[str] = Counter()
        self._stage = stage
        self._generator = generator
        self._kinds: dict[str, Callable[[Actor], None]] = {
            "worker killed": self._kill_worker,
            "worker killed, name used again": self._kill_worker_and_reuse_its_name,
            "worker stopped": self._stop_worker,
            "worker frozen": self._freeze,
            "worker frozen, name used again": self._freeze_and_reuse_its_name,
            "app killed": self._kill_app,
            "line cut": self._cut,
            "line dark": self._black_out,
            "delivery late": self._delay_delivery,
            "line slow": self._slow_down,
            "answer to claim broken off": lambda worker: self._swallow(worker, "claim"),
            "answer to events broken off": lambda worker: self._swallow(worker, "events"),
            "answer to finish broken off": lambda worker: self._swallow(worker, "finish"),
        }
        self._coming: list[str] = []
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._names = stage.terms.workers

    def rage(self, seconds: float, *, every_s: float, enough: Callable[[], bool]) -> None:
        """Let things happen, one about every ``every_s`` seconds.

        Lasts for ``seconds``, and on a slow machine longer: until everything has happened once and it is ``enough``.
        """
        began = following = time.monotonic()
        while (at := time.monotonic()) < began + seconds * _MOST_STRETCHED:
            if at >= began + seconds and len(self.counts) == len(self._kinds) and enough():
                return
            self._do_what_is_due(at)
            if at >= following:
                self._happen()
                following = at + self._generator.uniform(0.5, 1.5) * every_s
            time.sleep(0.02)

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        """Let something happen later, and in any case before the calm."""
        self._later.append((time.monotonic() + seconds, do))

    def calm_down(self) -> None:
        """Give everything back that the storm held: frozen processes, dark and slow lines."""
        while self._later:
            self._do_what_is_due(float("inf"))
        for worker in self._stage.workers:
            if worker.line is not None:
                self._stage.network.call(worker.line.calm)

    def _happen(self) -> None:
        if not self._coming:
            self._coming = self._generator.sample(sorted(self._kinds), len(self._kinds))
        present = self._stage.at_work()
        if not present:
            return
        kind = self._coming.pop()
        self._kinds[kind](self._generator.choice(present))
        self.counts[kind] += 1

    def _do_what_is_due(self, at: float) -> None:
        due = [one for one in self._later if one[0] <= at]
        self._later = [one for one in self._later if one[0] > at]
        for _, do in due:
            do()

    def _away_s(self) -> float:
        return self._generator.uniform(*_AWAY) * self._stage.terms.lease_s

    def _hire_new(self) -> None:
        self._stage.hire(f"worker {self._names}")
        self._names += 1

    # What happens -----------------------------------------------------------------------------------------------

    def _kill_worker(self, worker: Actor) -> None:
        worker.kill()
        self._hire_new()

    def _kill_worker_and_reuse_its_name(self, worker: Actor) -> None:
        worker.kill()
        self._stage.hire(worker.name)

    def _stop_worker(self, worker: Actor) -> None:
        worker.ask_to_stop()
        self._hire_new()

    def _freeze(self, worker: Actor) -> None:
        worker.freeze()
        self.after(self._away_s(), worker.thaw)

    def _freeze_and_reuse_its_name(self, worker: Actor) -> None:
        """Two workers of one name, such as a container that is replaced and comes back."""
        worker.freeze()
        self._stage.hire(worker.name)

        def come_back() -> None:
            worker.thaw()
            self.after(self._stage.terms.lease_s, worker.ask_to_stop)

        self.after(self._away_s(), come_back)

    def _kill_app(self, _worker: Actor) -> None:
        self._stage.replace_app(self._generator.randrange(len(self._stage.apps)))

    def _cut(self, worker: Actor) -> None:
        if worker.line is not None:
            self._stage.network.call(worker.line.cut)

    def _black_out(self, worker: Actor) -> None:
        if worker.line is not None:
            self._stage.network.call(worker.line.black_out, self._away_s())

    def _delay_delivery(self, worker: Actor) -> None:
        """Its next delivery comes only after others have taken the work over."""
        if worker.line is not None:
            self._stage.network.call(worker.line.black_out_at, "finish", self._away_s())

    def _slow_down(self, worker: Actor) -> None:
        if worker.line is not None:
            speed = self._generator.uniform(*_SLOW_BYTES_PER_S)
            self._stage.network.call(worker.line.slow_down, self._away_s(), speed)

    def _swallow(self, worker: Actor, verb: str) -> None:
        if worker.line is not None:
            self._stage.network.call(worker.line.swallow, verb, self._generator.randint(1, 3))
