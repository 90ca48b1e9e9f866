"""Writers of SQLite take turns: every one gets through, a killed process is in nobody's way, and waiting has an end."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from app import database as database_module
from app.database import Database, connect
from app.writers import WritersQueue

ADD_ONES = """
import sys
from sqlalchemy import text
from app.database import connect
database = connect(sys.argv[1])
for _ in range(int(sys.argv[2])):
    with database.write() as session:
        number = session.execute(text("SELECT number FROM counter")).scalar_one()
        session.execute(text("UPDATE counter SET number = :number"), {"number": number + 1})
"""
HOLD_THE_TURN = """
import sys, time
from sqlalchemy import text
from app.database import connect
with connect(sys.argv[1]).write() as session:
    session.execute(text("UPDATE counter SET number = -1"))
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'counter.db'}"
    counter = connect(url)
    with counter.write() as session:
        session.execute(text("CREATE TABLE counter (number INTEGER)"))
        session.execute(text("INSERT INTO counter VALUES (0)"))
    counter.dispose()
    return url


def run(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True)


def count(database: Database) -> int:
    with database.read() as session:
        return session.execute(text("SELECT number FROM counter")).scalar_one()


def add_one(database: Database) -> None:
    with database.write() as session:
        number = session.execute(text("SELECT number FROM counter")).scalar_one()
        session.execute(text("UPDATE counter SET number = :number"), {"number": number + 1})


def test_threads_and_processes_lose_no_write(url: str) -> None:
    processes = [run(ADD_ONES, url, "200") for _ in range(2)]
    database = connect(url)
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(add_one, database) for _ in range(400)]:
            done.result()
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    assert count(database) == 800
    database.dispose()


def test_a_failed_transaction_lets_the_next_one_go_on(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "_SQLITE_BUSY_S", 2.0)
    database = connect(url)

    def fail() -> None:
        with database.write() as session:
            session.execute(text("UPDATE counter SET number = 7"))
            raise ZeroDivisionError

    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            fail()
    add_one(database)
    assert count(database) == 1
    database.dispose()


def test_a_closed_connection_gives_its_turn_up(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "_SQLITE_BUSY_S", 2.0)
    database = connect(url)
    with database.writing.connect() as connection:
        connection.execute(text("UPDATE counter SET number = 7"))
        connection.invalidate()
    add_one(database)
    assert count(database) == 1
    database.dispose()


def test_waiting_has_an_end_and_the_queue_works_on(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "_SQLITE_BUSY_S", 0.2)
    writing, other = connect(url), connect(url)
    with writing.write() as session:
        session.execute(text("UPDATE counter SET number = 7"))
        # Another thread of this process, and what another process would see: a queue of its own on the same file.
        for late in (writing, other):
            started = time.monotonic()
            with pytest.raises(OperationalError, match="has been writing for"):
                ThreadPoolExecutor(1).submit(add_one, late).result()
            assert time.monotonic() - started < 2
    for database in (other, writing, other):
        add_one(database)
    assert count(writing) == 10
    writing.dispose()
    other.dispose()


def test_what_other_programs_lock_is_respected(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "_SQLITE_BUSY_S", 0.2)
    database = connect(url)
    program = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    program.execute("BEGIN IMMEDIATE")
    with pytest.raises(OperationalError, match="locked"):
        add_one(database)
    program.execute("ROLLBACK")
    program.close()
    add_one(database)
    assert count(database) == 1
    database.dispose()


def test_a_killed_process_is_in_nobodys_way(url: str) -> None:
    process = run(HOLD_THE_TURN, url)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    database = connect(url)
    waiting = threading.Thread(target=add_one, args=(database,))
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    waiting.join(5)
    assert not waiting.is_alive()
    assert count(database) == 1
    database.dispose()


def test_a_turn_that_came_too_late_is_given_back(tmp_path: Path) -> None:
    file = tmp_path / "turns"
    first, second, third = (WritersQueue(file, wait_s=0.1) for _ in range(3))
    first.enter()
    with pytest.raises(sqlite3.OperationalError):
        second.enter()
    first.leave()
    # The thread of the one that gave up gets the lock now; it must not keep it.
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            third.enter()
        except sqlite3.OperationalError:
            continue
        break
    third.leave()
    second.enter()
    second.leave()
