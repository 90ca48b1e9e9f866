"""Sampling in a storm: processes killed, stopped and frozen, lines cut, dark and slow. Nothing may be lost.

    python -m benchmarks.storm [--seconds 300] [--database sqlite|postgresql] [--seed N] [--quick]

Two app processes and three model workers (the engine ``lorem``, whose text is a pure function of what was asked)
talk through a proxy of ours. While jobs keep coming in and some are cancelled, and checkpoints are promoted, something
happens about every 0.7 seconds: ``tests/end_to_end/storm/weather.py`` lists what. Afterwards everything is checked:
each job is done exactly once, or failed with a reason, or cancelled; each response is drawn again and must be equal to
what is stored; the logs hold no error.

Prints what was found wrong and, as its last line, one JSON object with the counts. Exits with 1 where anything is.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from alembic import command

from app.database import alembic_config, connect
from app.settings import Settings
from benchmarks.annotator_cycle import postgresql_url, sqlite_url
from tests.end_to_end.storm.storm import Counts, storm

_QUICK_S = 10.0
_DATABASES = {"sqlite": sqlite_url, "postgresql": postgresql_url}


def main() -> None:
    """Read the arguments, let the storm rage, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300.0, help="how long the storm rages")
    parser.add_argument("--database", choices=_DATABASES, default="sqlite")
    parser.add_argument("--seed", type=int, help="draws what happens and when; by default another one each time")
    parser.add_argument("--quick", action="store_true", help=f"a storm of {_QUICK_S:.0f} seconds")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(10**6)
    seconds = _QUICK_S if arguments.quick else arguments.seconds
    print(f"storm of {seconds:.0f} s on {arguments.database}, seed {seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="preferably-storm-"))
    counts = rage(folder, arguments.database, seed=seed, seconds=seconds)
    for wrong in counts.wrongs:
        print(wrong)
    if counts.wrongs:
        print(f"The logs are kept in {folder}.")
    else:
        shutil.rmtree(folder)
    print(json.dumps({"database": arguments.database} | asdict(counts) | {"wrongs": len(counts.wrongs)}))
    sys.exit(bool(counts.wrongs))


def rage(folder: Path, database_kind: str, *, seed: int, seconds: float) -> Counts:
    """One storm over a new database, which is gone afterwards."""
    data_dir = folder / "var"
    data_dir.mkdir()
    with _DATABASES[database_kind](data_dir) as url:
        settings = Settings(data_dir=data_dir, database_url=url)
        settings.ensure_secrets()
        command.upgrade(alembic_config(url), "head")
        database = connect(url)
        try:
            return storm(folder, settings, database, seed=seed, seconds=seconds)
        finally:
            database.dispose()


if __name__ == "__main__":
    main()
