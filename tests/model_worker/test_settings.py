"""The worker's settings and their messages."""

from pathlib import Path

import pytest

from model_worker.settings import SettingsError, read_settings

VALID = {"url": "http://127.0.0.1:8000", "engine": "lorem"}


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFERABLY_WORKER_TOKEN", "  secret\n")


def test_environment_and_options_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFERABLY_WORKER_CHECKPOINTS", "/a, /b")
    monkeypatch.setenv("PREFERABLY_WORKER_MAX_PAIRS", "3")
    settings = read_settings({"url": "https://example.org/app", "max_pairs": 5, "name": None})
    assert settings.checkpoints == (Path("/a"), Path("/b"))
    assert settings.max_pairs == 5
    assert settings.read_token() == "secret"
    assert "secret" not in repr(settings)


def test_the_token_may_be_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFERABLY_WORKER_TOKEN")
    (tmp_path / "token").write_text("from-file\n")
    assert read_settings(VALID | {"token_file": tmp_path / "token"}).read_token() == "from-file"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"url": None}, "url is missing: give --url or set PREFERABLY_WORKER_URL"),
        ({"url": "not an address"}, "url: Input should be a valid URL"),
        ({"token_file": "/nowhere/token"}, "give the worker's API token"),
        ({"can_sample": False}, "nothing to do"),
        ({"engine": "slots"}, "name at least one checkpoint folder"),
        ({"engine": "best"}, "engine: Input should be 'slots', 'openai' or 'lorem'"),
        ({"device": "gpu"}, "device: String should match"),
        ({"max_pairs": 0}, "max_pairs: Input should be greater than or equal to 1"),
    ],
)
def test_what_makes_no_sense_is_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read_settings(VALID | changes)


def test_a_missing_token_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFERABLY_WORKER_TOKEN")
    with pytest.raises(SettingsError, match="PREFERABLY_WORKER_TOKEN"):
        read_settings(VALID)
    with pytest.raises(SettingsError, match="/nowhere/token cannot be read"):
        read_settings(VALID | {"token_file": "/nowhere/token"})
