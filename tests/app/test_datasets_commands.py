"""``preferably dataset``: list, export from here and from elsewhere, verify."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvicorn

from app import cli
from app.accounts import service as accounts
from app.database import Database
from app.datasets import service as datasets
from app.main import create_app
from app.models import PreferenceDataset, TokenScope
from app.settings import Settings
from tests import factories as make

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs ``preferably dataset ...`` on the test's installation: exit status, output, errors."""
    monkeypatch.setenv("PREFERABLY_DATABASE_URL", settings.database_url)
    monkeypatch.setenv("PREFERABLY_DATA_DIR", str(settings.data_dir))

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["preferably", "dataset", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


@pytest.fixture
def frozen(database: Database, settings: Settings) -> PreferenceDataset:
    with database.write() as session:
        batch = make.make_week(session, make.make_person(session), conversations=2)
    return make.freeze(database, batch, settings)


@pytest.fixture
def url(settings: Settings) -> Iterator[str]:
    """The test's installation, served over HTTP."""
    config = uvicorn.Config(create_app(settings), host="127.0.0.1", port=0, log_level="warning", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_listing_exporting_and_verifying(
    frozen: PreferenceDataset, settings: Settings, run: Run, tmp_path: Path
) -> None:
    status, out, _ = run("list")
    assert status == 0
    assert "batch-001" in out
    target = tmp_path / "new" / "copy"
    status, out, _ = run("export", "batch-001", "--to", target)
    assert (status, out.split(",")[0]) == (0, "batch-001: 6 rows in 4 files")
    assert files_of(target) == files_of(datasets.folder_of(frozen, settings))
    status, out, _ = run("describe", "batch-001")
    assert status == 0
    assert "helpfulness/train-00000-of-00001.parquet" in out
    status, out, _ = run("verify", target, "--sha256", frozen.manifest_sha256)
    assert (status, out) == (0, "batch-001: 6 rows in 4 files are as they were frozen.\n")
    (target / "safety" / "train-00000-of-00001.parquet").write_bytes(b"")
    status, _, err = run("verify", target)
    assert (status, err.count("\n")) == (1, 1)
    assert "safety/train-00000-of-00001.parquet is damaged: it has 0 bytes" in err
    status, _, err = run("export", "batch-001", "--to", target)
    assert (status, err.count("\n")) == (2, 1)
    assert "exists already" in err


def test_a_damaged_store_is_told_and_made_good(
    frozen: PreferenceDataset, settings: Settings, run: Run, tmp_path: Path
) -> None:
    whole = files_of(datasets.folder_of(frozen, settings))
    shutil.rmtree(datasets.folder_of(frozen, settings))
    status, _, err = run("export", "batch-001", "--to", tmp_path / "copy")
    assert status == 0
    assert "made again from the database" in err
    assert files_of(tmp_path / "copy") == whole


@pytest.mark.usefixtures("frozen")
def test_mistakes_are_one_clear_line(run: Run, tmp_path: Path) -> None:
    for arguments, words in (
        (("export", "batch-999", "--to", tmp_path / "x"), "There is no dataset batch-999."),
        (("export", "batch-001", "--to", tmp_path / "x", "--url", "http://127.0.0.1:1"), "--token-file go together"),
        (
            ("export", "batch-001", "--to", tmp_path / "x", "--url", "http://h", "--token-file", tmp_path / "no"),
            "there is no file",
        ),
    ):
        status, _, err = run(*arguments)
        assert (status, err.count("\n")) == (2, 1), err
        assert words in err
    status, _, err = run("verify", tmp_path)
    assert (status, err.count("\n")) == (1, 1)
    assert "manifest.json is missing" in err
    assert not (tmp_path / "x").exists()


def test_fetching_from_another_installation(
    frozen: PreferenceDataset, database: Database, settings: Settings, run: Run, url: str, tmp_path: Path
) -> None:
    with database.write() as session:
        token = accounts.create_api_token(session, "laptop", TokenScope.DATASETS)
    (tmp_path / "token").write_text(f"{token}\n")
    from_there = ("--url", url, "--token-file", tmp_path / "token")
    status, out, err = run("export", "batch-001", "--to", tmp_path / "copy", *from_there)
    assert (status, "verified" in out) == (0, True), err
    assert files_of(tmp_path / "copy") == files_of(datasets.folder_of(frozen, settings))

    status, _, err = run("export", "batch-999", "--to", tmp_path / "x", *from_there)
    assert (status, err) == (2, "There is no dataset batch-999.\n")
    (tmp_path / "wrong").write_text("guess")
    status, _, err = run(
        "export", "batch-001", "--to", tmp_path / "x", "--url", url, "--token-file", tmp_path / "wrong"
    )
    assert status == 2
    assert "API token" in err
    file = datasets.folder_of(frozen, settings) / "safety" / "train-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[::-1])
    status, _, err = run("export", "batch-001", "--to", tmp_path / "x", *from_there)
    assert status == 2
    assert "arrived damaged: safety/train-00000-of-00001.parquet is damaged: its sha256" in err
    unreachable = ("--url", "http://127.0.0.1:9", "--token-file", tmp_path / "token")
    status, _, err = run("export", "batch-001", "--to", tmp_path / "x", *unreachable)
    assert (status, err.count("\n")) == (2, 1)
    assert "cannot be reached" in err
    # What came of the undamaged files waits for the next try; nothing else is left behind.
    assert [path.name for path in tmp_path.iterdir() if "x" in path.name or "draft" in path.name] == [".x.partial"]


def test_the_help_names_the_commands(run: Run) -> None:
    status, out, _ = run("--help")
    assert status == 0
    words = ("list", "describe", "export", "verify", "import", "external", "sets", "download-set")
    assert all(command in out for command in words)
