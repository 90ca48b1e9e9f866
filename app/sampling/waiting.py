"""Waiting for jobs on behalf of many idle workers: one look at the queue serves all who wait for the same."""

import time
from collections.abc import Collection
from dataclasses import dataclass

from fastapi.concurrency import run_in_threadpool

from app.database import Database
from app.sampling import handing_out

LOOK_EVERY_S = 0.1
# A queue full of pairs whose checkpoint nobody has takes long to look through; looking gets this share of the time.
_SHARE_OF_TIME = 0.1
_MOST_JOBS = 64
_MOST_LOOKS = 256


@dataclass
class _Look:
    """What was last seen for one set of checkpoints."""

    jobs: int = 0
    """Jobs that were seen and that nobody has been sent for yet."""
    good_until: float = 0.0
    is_under_way: bool = False


class Lookout:
    """Looks at the queue for all the workers that wait in this process, with one thread and one query at a time each.

    The looks are kept by what the workers can sample from, and as many workers are sent to claim as jobs were seen: a
    hundred idle ones cost no more than one, and a new job does not set all of them running.
    """

    def __init__(self, database: Database) -> None:
        """Look at this database."""
        self._database = database
        self._looks: dict[frozenset[str], _Look] = {}

    async def sees_job(self, digests: Collection[str]) -> bool:
        """Whether it is worth it to claim with these checkpoints now; otherwise ask again after ``LOOK_EVERY_S``."""
        key = frozenset(digests)
        look = self._looks.get(key)
        if look is None:
            look = self._looks[key] = _Look()
        if not look.is_under_way and time.monotonic() >= look.good_until:
            await self._renew(key, look)
        if not look.jobs:
            return False
        look.jobs -= 1
        return True

    async def _renew(self, key: frozenset[str], look: _Look) -> None:
        look.is_under_way = True
        began = time.monotonic()
        try:
            look.jobs = await run_in_threadpool(self._count, key)
        finally:
            took = time.monotonic() - began
            look.good_until = began + max(LOOK_EVERY_S, took / _SHARE_OF_TIME)
            look.is_under_way = False
            self._forget_old()

    def _count(self, key: frozenset[str]) -> int:
        with self._database.read() as session:
            return handing_out.count_due(session, sorted(key), limit=_MOST_JOBS)

    def _forget_old(self) -> None:
        if len(self._looks) > _MOST_LOOKS:
            at = time.monotonic()
            self._looks = {key: look for key, look in self._looks.items() if look.is_under_way or look.good_until > at}
