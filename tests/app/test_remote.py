"""Datasets fetched from a real server that cuts transfers: they go on where they stopped, and damage is named."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import cli
from app.accounts import service as accounts
from app.database import Database
from app.datasets import remote
from app.datasets import service as datasets
from app.external import service as external
from app.external.drafts import Wanted
from app.main import create_app
from app.models import PreferenceDataset, TokenScope
from app.settings import Settings
from app.training_sets import service as training_sets
from app.training_sets.service import SetWanted
from tests import factories as make

FILE = "helpfulness/train-00000-of-00001.parquet"
AT_ONCE = 700
_LONG_S = 3600.0
Run = Callable[..., tuple[int, str, str]]


@dataclass
class Cutting:
    """Serves the app, and lets transfers of Parquet files end early as long as it is told to."""

    app: ASGIApp
    cuts: int = 0
    """So many transfers are cut off after some bytes."""
    hangs: bool = False
    """Instead of an end, nothing more comes."""
    no_ranges: bool = False
    busy: int = 0
    """So many requests for files are answered that the server is busy."""
    ranges: list[str] = field(default_factory=list)
    """What was asked for, of each file."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, but for what is told above."""
        if scope["type"] != "http" or not scope["path"].endswith(".parquet"):
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        self.ranges.append(headers.get(b"range", b"all").decode())
        if self.no_ranges:
            scope = scope | {"headers": [(name, value) for name, value in scope["headers"] if name != b"range"]}
        if self.busy:
            self.busy -= 1
            await send({"type": "http.response.start", "status": 503, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body"})
            return
        if self.cuts:
            self.cuts -= 1
            await self.app(scope, receive, self._cutting(send))
            return
        await self.app(scope, receive, send)

    def _cutting(self, send: Send) -> Send:
        async def send_some(message: Message) -> None:
            if message["type"] == "http.response.body" and message.get("body"):
                await send(message | {"body": message["body"][:AT_ONCE], "more_body": True})
                if self.hangs:
                    await asyncio.sleep(_LONG_S)
                reason = "the connection is cut"
                raise ConnectionAbortedError(reason)
            await send(message)

        return send_some


@dataclass(frozen=True)
class Elsewhere:
    """Another installation, and how to ask it."""

    cutting: Cutting
    options: tuple[str, ...]


@pytest.fixture
def frozen(database: Database, settings: Settings) -> PreferenceDataset:
    with database.write() as session:
        batch = make.make_week(session, make.make_person(session), conversations=4)
    return make.freeze(database, batch, settings)


@pytest.fixture
def elsewhere(
    settings: Settings, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Elsewhere]:
    monkeypatch.setattr(remote, "_FIRST_PAUSE_S", 0.01)
    with database.write() as session:
        (tmp_path / "token").write_text(accounts.create_api_token(session, "laptop", TokenScope.DATASETS))
    cutting = Cutting(create_app(settings))
    config = uvicorn.Config(cutting, host="127.0.0.1", port=0, log_level="critical", ws="none", lifespan="on")
    # Lifespan messages pass the cutting by, since they are not of the type http.
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    yield Elsewhere(cutting, ("--url", url, "--token-file", str(tmp_path / "token")))
    server.should_exit = True
    thread.join()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs ``preferably dataset ...`` on a machine without an installation of its own."""
    monkeypatch.setenv("PREFERABLY_DATA_DIR", str(tmp_path / "nothing"))

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["preferably", "dataset", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_listing_and_describing(frozen: PreferenceDataset, elsewhere: Elsewhere, run: Run) -> None:
    status, out, _ = run("list", *elsewhere.options)
    assert (status, frozen.manifest_sha256 in out) == (0, True)
    status, out, _ = run("describe", "batch-001", *elsewhere.options)
    assert status == 0
    assert FILE in out
    status, _, err = run("describe", "batch-999", *elsewhere.options)
    assert (status, err) == (2, "There is no dataset batch-999.\n")


def test_a_cut_transfer_goes_on_where_it_stopped(
    frozen: PreferenceDataset, elsewhere: Elsewhere, settings: Settings, run: Run, tmp_path: Path
) -> None:
    elsewhere.cutting.cuts = 3
    elsewhere.cutting.busy = 2
    status, _, err = run("export", "batch-001", "--to", tmp_path / "copy", *elsewhere.options)
    assert status == 0, err
    assert files_of(tmp_path / "copy") == files_of(datasets.folder_of(frozen, settings))
    assert elsewhere.cutting.ranges[:6] == [
        "all", "all", "all", f"bytes={AT_ONCE}-", f"bytes={2 * AT_ONCE}-", f"bytes={3 * AT_ONCE}-"
    ]  # fmt: skip
    assert [path.name for path in tmp_path.glob(".copy*")] == []


def test_a_server_without_ranges_sends_all_of_it_again(
    frozen: PreferenceDataset, elsewhere: Elsewhere, settings: Settings, run: Run, tmp_path: Path
) -> None:
    elsewhere.cutting.cuts = 1
    elsewhere.cutting.no_ranges = True
    status, _, err = run("export", "batch-001", "--to", tmp_path / "copy", *elsewhere.options)
    assert status == 0, err
    assert files_of(tmp_path / "copy") == files_of(datasets.folder_of(frozen, settings))


def test_a_killed_download_goes_on_where_it_stopped(
    frozen: PreferenceDataset, elsewhere: Elsewhere, settings: Settings, run: Run, tmp_path: Path
) -> None:
    elsewhere.cutting.cuts, elsewhere.cutting.hangs = 1, True
    command = [sys.executable, "-c", "from app.cli import main; main()", "dataset", "export", "batch-001"]
    process = subprocess.Popen([*command, "--to", tmp_path / "copy", *elsewhere.options], env=dict(os.environ))
    part = tmp_path / ".copy.partial" / f"{FILE}.part"
    while not part.is_file() or part.stat().st_size < AT_ONCE:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    elsewhere.cutting.hangs = False
    assert not (tmp_path / "copy").exists()
    status, _, err = run("export", "batch-001", "--to", tmp_path / "copy", *elsewhere.options)
    assert status == 0, err
    assert elsewhere.cutting.ranges[:2] == ["all", f"bytes={AT_ONCE}-"]
    assert files_of(tmp_path / "copy") == files_of(datasets.folder_of(frozen, settings))


def test_a_transfer_that_never_goes_on_is_given_up_and_kept(
    frozen: PreferenceDataset, elsewhere: Elsewhere, run: Run, tmp_path: Path
) -> None:
    assert frozen.rows
    elsewhere.cutting.busy = 1000
    status, _, err = run("export", "batch-001", "--to", tmp_path / "copy", *elsewhere.options)
    assert (status, err.count("\n")) == (2, 1)
    assert "it is busy (503)" in err
    assert "the same command goes on from there" in err
    assert len(elsewhere.cutting.ranges) == remote._TRIES


@pytest.mark.parametrize("damage", ["changed", "longer"])
def test_a_damaged_part_is_named_and_fetched_anew(
    damage: str, frozen: PreferenceDataset, elsewhere: Elsewhere, settings: Settings, run: Run, tmp_path: Path
) -> None:
    stored = datasets.folder_of(frozen, settings)
    part = tmp_path / ".copy.partial" / f"{FILE}.part"
    part.parent.mkdir(parents=True)
    content = (stored / FILE).read_bytes()
    part.write_bytes(b"x" * 500 if damage == "changed" else content + b"and more")
    (tmp_path / ".copy.partial" / "manifest.json").write_bytes((stored / "manifest.json").read_bytes())
    status, _, err = run("export", "batch-001", "--to", tmp_path / "copy", *elsewhere.options)
    assert status == 0, err
    if damage == "changed":
        assert f"batch-001: the part of {FILE} that was here already was damaged." in err
    assert files_of(tmp_path / "copy") == files_of(stored)


def test_what_another_dataset_left_behind_is_not_used(
    frozen: PreferenceDataset, elsewhere: Elsewhere, settings: Settings, run: Run, tmp_path: Path
) -> None:
    part = tmp_path / ".copy.partial" / f"{FILE}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 100)
    (tmp_path / ".copy.partial" / "manifest.json").write_text("{}")
    status, _, err = run("export", "batch-001", "--to", tmp_path / "copy", *elsewhere.options)
    assert (status, "damaged" in err) == (0, False)
    assert elsewhere.cutting.ranges[0] == "all"
    assert files_of(tmp_path / "copy") == files_of(datasets.folder_of(frozen, settings))


def import_pairs(settings: Settings, database: Database) -> None:
    file = settings.data_dir / "pairs.jsonl"
    rows: list[Any] = [{"prompt": f"Tea {number}?", "chosen": "Yes.", "rejected": "No."} for number in range(50)]
    file.write_text("\n".join(json.dumps(row) for row in rows))
    draft = external.check(Wanted(name="pairs"), file, file.name, settings)
    with database.write() as session:
        external.confirm(session, draft, settings)


def test_a_training_set_is_the_same_here_and_there(
    frozen: PreferenceDataset,
    elsewhere: Elsewhere,
    settings: Settings,
    database: Database,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    import_pairs(settings, database)
    described = training_sets.define(
        database, SetWanted(name="mixed", frozen=[frozen.name], external=["pairs"]), settings
    )
    elsewhere.cutting.cuts = 2
    status, out, err = run("download-set", "mixed", "--to", tmp_path / "there", *elsewhere.options)
    assert (status, described.digest in out) == (0, True), err
    status, out, _ = run("sets", *elsewhere.options)
    assert (status, described.digest in out) == (0, True)
    status, out, _ = run("external", *elsewhere.options)
    assert (status, "pairs" in out) == (0, True)
    monkeypatch.setenv("PREFERABLY_DATABASE_URL", settings.database_url)
    monkeypatch.setenv("PREFERABLY_DATA_DIR", str(settings.data_dir))
    status, _, err = run("download-set", "mixed", "--to", tmp_path / "here")
    assert status == 0, err
    assert files_of(tmp_path / "here") == files_of(tmp_path / "there")
    assert sorted(files_of(tmp_path / "here")) == [
        "README.md", "manifest.json", "test-00000-of-00001.parquet", "train-00000-of-00001.parquet"
    ]  # fmt: skip
    assert [path.name for path in tmp_path.glob(".there*")] == []
    assert [run(command)[0] for command in ("sets", "external", "list")] == [0, 0, 0]
    status, _, err = run("download-set", "mixed", "--to", tmp_path / "here")
    assert (status, "exists already" in err) == (2, True)


def test_importing_by_command(
    settings: Settings, database: Database, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert database.writing
    monkeypatch.setenv("PREFERABLY_DATABASE_URL", settings.database_url)
    monkeypatch.setenv("PREFERABLY_DATA_DIR", str(settings.data_dir))
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"prompt": "Tea?", "chosen": "Yes.", "rejected": "No."}\n{"chosen": 1}\n')
    status, _, err = run("import", file, "--name", "pairs")
    assert status == 2
    assert "pairs.jsonl, line 2: chosen: Should be text" in err
    assert "pairs.jsonl cannot be imported: 1 row is malformed." in err
    file.write_text('{"prompt": "Tea?", "chosen": "Yes.", "rejected": "No."}\n' * 3)
    status, out, _ = run("import", file, "--name", "pairs", "--dry-run")
    assert (status, "exact copies, kept once: 2" in out, "imported" in out) == (0, True, False)
    status, out, _ = run("import", file, "--name", "pairs", "--objective", "safety")
    assert (status, "pairs: 1 rows imported." in out) == (0, True)
    for arguments, words in (
        ((file, "--name", "pairs"), "there is an external dataset pairs already"),
        ((file, "--name", "../x"), "name: Value error, use up to 100 letters"),
        ((tmp_path / "no", "--name", "x"), "There is no file"),
    ):
        status, _, err = run("import", *arguments)
        assert (status, words in err) == (2, True), err
    assert list((settings.datasets_root / "external" / ".imports").iterdir()) == []
