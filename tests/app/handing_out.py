"""A process that works as several annotators: python -m tests.app.handing_out URL SEED NAME...

Each annotator takes what is handed out and judges it, skips it, gives it back, or goes away without a word, until
nothing is left for them. Prints one line for every hand-out: comparison, annotator, and what became of it.
"""

import random
import sys
import threading
from datetime import timedelta
from uuid import UUID

from app.annotation import desk, judging, service
from app.annotation.answers import Answer
from app.comparisons import handout
from app.database import Database, connect
from app.models import Person, PersonRole, SkipReason, now
from contract.vocabulary import Strength
from tests import factories

_MINUTES = 30.0
_GONE = timedelta(minutes=_MINUTES + 1)


def main() -> None:
    """Work as every annotator named, each in a thread of its own."""
    url, seed, *names = sys.argv[1:]
    database = connect(url)
    threads = [threading.Thread(target=work, args=(database, name, f"{seed}/{name}")) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    database.dispose()


def work(database: Database, name: str, seed: str) -> None:
    """Take what is handed out until there is nothing more."""
    moods = random.Random(seed)
    with database.write() as session:
        annotator = factories.make_person(session, name, PersonRole.ANNOTATOR)
    while True:
        with database.write() as session:
            focus = desk.next_step(session, annotator, minutes=_MINUTES).focus
        if focus is None:
            return
        done = treat(database, annotator, focus, moods.random())
        sys.stdout.write(f"{focus}\t{name}\t{done}\n")


def treat(database: Database, annotator: Person, comparison_id: UUID, mood: float) -> str:
    """Judge a comparison most of the time."""
    if mood < 0.1:
        with database.write() as session:
            handout.give_back(session, annotator)
        return "given_back"
    if mood < 0.15:
        # Half an hour later somebody looks who has gone; those who hold something now have gone as well.
        handout.expire(database, now() + _GONE)
        return "expired"
    with database.write() as session:
        try:
            if mood < 0.2:
                reason = SkipReason.CANNOT_JUDGE
                judging.skip(session, annotator, comparison_id, reason, minutes=_MINUTES)
                return "skipped"
            held = service.locked_held(session, annotator, comparison_id)
            answer = Answer(held.comparison.responses[0], Strength.BETTER)
            judging.annotate(session, annotator, service.batch_of(session, held), held, answer, minutes=_MINUTES)
        except service.MovedOnError:
            # Somebody saw that this annotator had been away, and somebody else has the place now.
            return "lost"
    return "judged"


if __name__ == "__main__":
    main()
