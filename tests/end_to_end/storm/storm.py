"""One storm from beginning to end: stage, load, weather, calm, and the counts of what was found."""

import random
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from app.database import Database
from app.models import WorkState
from app.settings import Settings
from contract.checkpoint_files import inspect_checkpoint
from model_worker.sampling.lorem import LoremSampler
from tests.end_to_end.storm import audit
from tests.end_to_end.storm.folders import make_checkpoint_folder
from tests.end_to_end.storm.load import Load, count_unfinished, make_batch, promote
from tests.end_to_end.storm.stage import Stage, StageError, Terms
from tests.end_to_end.storm.weather import Weather

# After a storm the queue must go on shrinking; how fast is the machine's business.
_STUCK_S = 90.0
_FIRST_PAIR_S = 180.0
_CHECKPOINTS = ("first", "second", "third")


@dataclass(frozen=True)
class Counts:
    """What a storm was like, and what it did."""

    seed: int
    seconds: float
    """From the first process to the last check."""
    jobs: int
    done: int
    failed: int
    cancelled: int
    hand_outs: int
    handed_over: int
    """Jobs that were handed out more than once."""
    most_attempts: int
    checkpoints: int
    """How many checkpoints the finished responses are of: it is promoted in the middle of the storm."""
    late_answers_refused: int
    told_to_drop: int
    happenings: dict[str, int]
    answers: dict[str, int]
    wrongs: list[str]


def storm(
    folder: Path,
    settings: Settings,
    database: Database,
    *,
    seed: int,
    seconds: float,
    every_s: float = 0.7,
    keep: int = 40,
    terms: Terms | None = None,
) -> Counts:
    """Let a storm rage over a migrated, empty database, wait for the calm, and check everything.

    Args:
        folder: For logs and tokens.
        settings: Of the app; where its database is.
        database: The same database, for the load and the checks.
        seed: Draws what happens and when. What it does depends on the machine, too.
        seconds: How long the storm rages; starting, calming down and checking come on top.
        every_s: The mean time between two things that happen.
        keep: How many unfinished jobs there are at least while it rages.
        terms: What the processes are told.

    """
    began = time.monotonic()
    generator = random.Random(seed)
    library = [make_checkpoint_folder(folder / "library" / name) for name in _CHECKPOINTS]
    files = [inspect_checkpoint(each) for each in library]
    batch_id = make_batch(database, files[0])
    with Stage(folder, settings, database, terms or Terms(), library) as stage:
        ledger = stage.network.ledger
        weather = Weather(stage, generator)
        with Load(database, batch_id, random.Random(seed + 1), keep=keep) as load:
            _wait_for_the_first_pair(stage)
            for turn, promoted in enumerate(files[1:], start=1):
                weather.after(seconds * turn / len(files), partial(promote, database, promoted))
            weather.rage(seconds, every_s=every_s, enough=lambda: ledger.late_answers() > 0)
        weather.calm_down()
        stage.wait_for_apps()
        _wait_until_all_is_done(database, stage)
        asked_to_stop = stage.stop_workers()
        told = audit.stories(database, load.asked)
        sampler = LoremSampler(max_pairs=len(told), word_s=0, checkpoints=tuple(files))
        redrawn = audit.redraw(sampler, told)
        sampler.close(0)
        wrongs = [
            *audit.wrongs_of_jobs(database, told, load.asked, redrawn),
            *audit.wrongs_of_exchanges(ledger, told),
            *audit.wrongs_of_processes(stage, asked_to_stop),
        ]
    attempts = [story.job.attempt for story in told]
    states = [story.job.state for story in told]
    return Counts(
        seed=seed,
        seconds=round(time.monotonic() - began, 1),
        jobs=len(told),
        done=states.count(WorkState.DONE),
        failed=states.count(WorkState.FAILED),
        cancelled=states.count(WorkState.CANCELLED),
        hand_outs=sum(attempts),
        handed_over=sum(attempt > 1 for attempt in attempts),
        most_attempts=max(attempts),
        checkpoints=audit.count_checkpoints(told),
        late_answers_refused=ledger.late_answers(),
        told_to_drop=ledger.drops(),
        happenings=dict(sorted(weather.counts.items())),
        answers=ledger.statuses(),
        wrongs=wrongs,
    )


def _wait_for_the_first_pair(stage: Stage) -> None:
    deadline = time.monotonic() + _FIRST_PAIR_S
    while not stage.network.ledger.accepted():
        if time.monotonic() > deadline:
            msg = f"No worker delivers anything.\n{stage.workers[0].said()[-3000:]}"
            raise StageError(msg)
        time.sleep(0.1)


def _wait_until_all_is_done(database: Database, stage: Stage) -> None:
    fewest = count_unfinished(database)
    deadline = time.monotonic() + _STUCK_S
    while (left := count_unfinished(database)) > 0:
        if left < fewest:
            fewest, deadline = left, time.monotonic() + _STUCK_S
        if time.monotonic() > deadline:
            said = "\n".join(f"{worker.log.name}: {worker.said()[-800:]}" for worker in stage.at_work())
            msg = f"{left} jobs are left and nothing has ended for {_STUCK_S} s.\n{said}"
            raise StageError(msg)
        time.sleep(0.1)
