"""Setting up and starting: what a first start makes, what a second one keeps, and how mistakes are told."""

import os
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import func, select

from app import local
from app.accounts import service as accounts
from app.checkpoints import service as checkpoints
from app.database import Database, connect
from app.models import Batch, Checkpoint, Person
from app.settings import Settings, WeakSecretError
from contract.checkpoint_files import inspect_checkpoint
from model_worker.demo.tiny import make_tiny_checkpoint


@pytest.fixture(scope="module")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny-chat")


def preferably(data_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a person would."""
    program = str(Path(sys.executable).with_name("preferably"))
    environment = os.environ | {"PREFERABLY_DATA_DIR": str(data_dir)}
    return subprocess.run(
        [program, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_second_start_keeps_everything_and_gives_fresh_links(
    database: Database, settings: Settings, tiny_checkpoint: Path
) -> None:
    token_file = settings.data_dir / "worker.token"
    files = inspect_checkpoint(tiny_checkpoint)
    first = local.prepare(database, settings, files, token_file)
    token = token_file.read_text()
    second = local.prepare(database, settings, files, token_file)
    assert first.keys() == second.keys() == {"Demo annotator", "Demo admin", "Demo trainer"}
    assert not set(first.values()) & set(second.values())
    assert token_file.read_text() == token
    assert stat.S_IMODE(token_file.stat().st_mode) == 0o600
    with database.read() as session:
        assert session.scalar(select(func.count(Person.id))) == 3
        assert session.scalar(select(func.count(Batch.id))) == 1
        assert session.scalars(select(Checkpoint.name)).all() == ["tiny-chat"]
        assert accounts.find_api_token(session, token) is not None


def test_another_checkpoint_is_drawn_from_at_once(
    database: Database, settings: Settings, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    token_file = settings.data_dir / "worker.token"
    other = make_tiny_checkpoint(tmp_path / "other-chat", seed=1)
    for folder in (tiny_checkpoint, other, tiny_checkpoint):
        local.prepare(database, settings, inspect_checkpoint(folder), token_file)
        with database.read() as session:
            newest = select(Checkpoint.name).order_by(Checkpoint.promoted_at.desc()).limit(1)
            assert session.scalars(newest).one() == folder.name


def test_what_was_promoted_out_of_the_library_stays_over_a_restart(
    database: Database, settings: Settings, tiny_checkpoint: Path
) -> None:
    token_file = settings.data_dir / "worker.token"
    first = inspect_checkpoint(tiny_checkpoint)
    local.prepare(database, settings, first, token_file)
    folder = make_tiny_checkpoint(settings.data_dir / "checkpoints" / "week-2", seed=1)
    with database.write() as session:
        second = checkpoints.register(session, inspect_checkpoint(folder))
        checkpoints.promote(session, second, for_open_batch=False)
    local.prepare(database, settings, first, token_file)
    assert _current(database) == "week-2"
    # Without its folder nobody could sample from it.
    folder.rename(folder.with_name(".week-2"))
    local.prepare(database, settings, first, token_file)
    assert _current(database) == "tiny-chat"


def _current(database: Database) -> str | None:
    with database.read() as session:
        checkpoint = checkpoints.current(session)
        return checkpoint.name if checkpoint is not None else None


def test_a_port_in_use_is_told(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(local.PortInUseError, match=f"PORT={port + 1}"):
            local.require_free_port(port)
        answer = preferably(tmp_path, "up", "--port", str(port), "--data-dir", str(tmp_path))
    assert answer.returncode == 2
    assert f"Port {port} is in use" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_wrong_checkpoint_is_told(tmp_path: Path, tiny_checkpoint: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(tiny_checkpoint, bare)
    (bare / "chat_template.jinja").unlink()
    for folder, words in ((tmp_path / "nowhere", "is not a folder"), (bare, "has no chat template")):
        answer = preferably(tmp_path, "up", "--port", "0", "--data-dir", str(tmp_path), "--checkpoint", str(folder))
        assert answer.returncode == 2
        assert words in answer.stderr
        assert "Traceback" not in answer.stderr


def test_a_database_behind_its_migrations_is_told_and_migrated(tmp_path: Path) -> None:
    connect(f"sqlite:///{tmp_path / 'preferably.db'}").dispose()
    for command in (["serve"], ["invite", "Ann"], ["reconcile"]):
        answer = preferably(tmp_path, *command)
        assert answer.returncode == 2
        assert "preferably migrate" in answer.stderr
    assert preferably(tmp_path, "migrate").returncode == 0
    link = preferably(tmp_path, "invite", "Ann", "--role", "admin")
    assert link.returncode == 0
    assert link.stdout.startswith("http://127.0.0.1:8000/sign-in/")


def test_a_database_that_does_not_answer_is_told() -> None:
    environment = os.environ | {"PREFERABLY_DATABASE_URL": "postgresql://127.0.0.1:1/none"}
    program = str(Path(sys.executable).with_name("preferably"))
    answer = subprocess.run([program, "reconcile"], env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 2
    assert "does not answer" in answer.stderr


def test_secrets_are_made_once_and_short_ones_refused(tmp_path: Path) -> None:
    first, second = Settings(data_dir=tmp_path), Settings(data_dir=tmp_path)
    first.ensure_secrets()
    second.ensure_secrets()
    assert first.pseudonym_secret == second.pseudonym_secret
    (key,) = tmp_path.iterdir()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    with pytest.raises(WeakSecretError, match="at least 32 characters"):
        Settings(data_dir=tmp_path, pseudonym_secret=SecretStr("1234")).ensure_secrets()


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("PREFERABLY_LEASE_S", "soon", "PREFERABLY_LEASE_S: Input should be a valid number"),
        ("PREFERABLY_PSEUDONYM_SECRET", "1234", "PREFERABLY_PSEUDONYM_SECRET must have at least 32 characters"),
    ],
)
def test_a_wrong_setting_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    assert preferably(tmp_path, "migrate").returncode == 0
    monkeypatch.setenv(name, value)
    answer = preferably(tmp_path, "reconcile")
    assert answer.returncode == 2
    assert told in answer.stderr
    assert "Traceback" not in answer.stderr
