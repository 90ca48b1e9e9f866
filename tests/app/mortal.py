"""A process that moves the week along and is killed: ``python -m tests.app.mortal URL FOLDER MOMENT COMMITS``.

It dies by SIGKILL when it would commit for the time after COMMITS: all of that step is written, none of it is kept.
"""

import os
import signal
import sys
from datetime import datetime
from pathlib import Path

from sqlalchemy import event

from app.batches.reconciler import reconcile
from app.database import connect
from app.settings import Settings


def main() -> None:
    url, folder, moment, commits = sys.argv[1:]
    database = connect(url)
    settings = Settings(database_url=url, data_dir=Path(folder))
    left = iter(range(int(commits)))

    def die(_connection: object) -> None:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(database.writing, "commit", die)
    while reconcile(database, settings, datetime.fromisoformat(moment)):
        pass


if __name__ == "__main__":
    main()
