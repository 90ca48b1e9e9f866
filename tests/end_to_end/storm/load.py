"""The load of a storm: comparisons that are asked for, more of them all the time, and some given up."""

import random
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from uuid import UUID

from sqlalchemy import func, select

from app.batches.service import VariantSettings
from app.checkpoints import service as checkpoints
from app.comparisons.asking import ask
from app.database import Database
from app.models import Batch, Comparison, ComparisonState, Response, SamplingJob, WorkState
from app.sampling import service as sampling
from contract.checkpoint_files import CheckpointFiles
from tests import factories

_LOOK_EVERY_S = 0.1
_AT_ONCE = 20
_CANCELS_PER_LOOK = 0.08
_MOST_CANCELLED_AT_ONCE = 3
_MAX_NEW_TOKENS = 24
_UNFINISHED = (WorkState.QUEUED, WorkState.LEASED)
# Letters of several scripts and widths, so that text which is cut in a wrong place shows.
_ENDINGS = ("?", " naïve?", " 日本の茶?", " 🍵?")


@dataclass(frozen=True)
class Asked:
    """A response as it was asked for."""

    comparison_id: UUID
    response_id: UUID
    seed: int


def make_batch(database: Database, files: CheckpointFiles) -> UUID:
    """An open batch with two variants of a checkpoint, which is promoted."""
    variants = (VariantSettings(temperature=0.7, top_p=0.95), VariantSettings(temperature=1.2, top_p=0.95))
    promote(database, files)
    with database.write() as session:
        return factories.make_open_batch(session, variants=variants, max_new_tokens=_MAX_NEW_TOKENS).id


def promote(database: Database, files: CheckpointFiles) -> None:
    """Draw from a checkpoint from now on, in the open batch too."""
    with database.write() as session:
        checkpoints.promote(session, checkpoints.register(session, files), for_open_batch=True)


class Load:
    """A thread that never lets the queue run dry while the storm lasts, and gives some comparisons up."""

    def __init__(self, database: Database, batch_id: UUID, generator: random.Random, *, keep: int) -> None:
        self.asked: list[Asked] = []
        self._database = database
        self._batch_id = batch_id
        self._generator = generator
        self._keep = keep
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load")
        self._error: Exception | None = None
        self._prompts = 0

    def __enter__(self) -> Self:
        self._ask(self._keep)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._is_over.set()
        self._thread.join()
        if error is None:
            if self._error is not None:
                raise self._error
            # Something is left for the calm, and for the checkpoint that was promoted last.
            self._ask(_AT_ONCE)

    def _run(self) -> None:
        try:
            while not self._is_over.wait(_LOOK_EVERY_S):
                if count_unfinished(self._database) < self._keep:
                    self._ask(_AT_ONCE)
                if self._generator.random() < _CANCELS_PER_LOOK:
                    self._cancel(self._generator.randint(1, _MOST_CANCELLED_AT_ONCE))
        except Exception as error:  # noqa: BLE001 - raised when the load ends
            self._error = error

    def _ask(self, count: int) -> None:
        asked = []
        with self._database.write() as session:
            batch = session.get_one(Batch, self._batch_id)
            for _ in range(count):
                self._prompts += 1
                prompt = f"What is tea {self._prompts}{_ENDINGS[self._prompts % len(_ENDINGS)]}"
                comparison = ask(
                    session, batch, factories.make_conversation(session, batch, None), turn=1, prompt=prompt
                )
                asked.append(comparison.id)
            session.flush()
            rows = session.scalars(select(Response).where(Response.comparison_id.in_(asked)))
            self.asked += [Asked(row.comparison_id, row.id, row.seed) for row in rows]

    def _cancel(self, count: int) -> None:
        """Give comparisons up, as the end of a batch does."""
        with self._database.write() as session:
            live = session.scalars(
                select(Comparison)
                .join(SamplingJob, SamplingJob.comparison_id == Comparison.id)
                .where(SamplingJob.state.in_(_UNFINISHED))
                .order_by(SamplingJob.queued_at)
                # The oldest: workers hold them.
                .limit(self._keep)
            ).all()
            chosen = {one.id: one for one in self._generator.sample(live, min(count, len(live)))}
            sampling.cancel(session, list(chosen.values()))
            session.flush()
            cancelled = session.scalars(
                select(SamplingJob.comparison_id).where(
                    SamplingJob.comparison_id.in_(chosen), SamplingJob.state == WorkState.CANCELLED
                )
            )
            for comparison_id in cancelled:
                chosen[comparison_id].state = ComparisonState.ABANDONED


def count_unfinished(database: Database) -> int:
    """How many jobs are queued or handed out."""
    with database.read() as session:
        return session.scalars(select(func.count()).where(SamplingJob.state.in_(_UNFINISHED))).one()
