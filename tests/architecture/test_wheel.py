"""The installed wheel, away from the checkout: everything that the programs read is in it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.paths import ROOT

SOURCES = ("app", "contract", "model_worker", "templates", "migrations")
FILES = ("pyproject.toml", "setup.py", "README.md", "LICENSE")
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")

# Runs in the installed copy. Every template compiles, the pages that need no data show, and files are served.
PROGRAM = """
from pathlib import Path
import app.paths, contract, model_worker
from alembic import command
from app.database import alembic_config
from app.local import DEMO_CHECKPOINT
from app.main import create_app
from app.settings import Settings
from app.web.templating import make_environment, static_url
from contract.checkpoint_files import inspect_checkpoint
from fastapi.testclient import TestClient

installed = Path({installed!r})
for module in (app.paths, contract, model_worker):
    assert Path(module.__file__).is_relative_to(installed), module.__file__
environment = make_environment()
names = environment.list_templates(extensions=["html"])
for name in names:
    environment.get_template(name)
settings = Settings(reconcile_every_s=0)
command.check(alembic_config(settings.database_url))
with TestClient(create_app(settings)) as client:
    assert "Sign in" in client.get("/sign-in").text
    assert client.get(static_url("app.css")).status_code == 200
    assert client.get(static_url("vendor/htmx.org@4.0.1/htmx.min.js")).status_code == 200
assert inspect_checkpoint(DEMO_CHECKPOINT).weight_bytes > 100_000
print(len(names), len(list((installed / "model_worker/demo/corpus").glob("*.toml"))))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources so that no old build is in it, and installed in a folder."""
    folder = tmp_path_factory.mktemp("wheel")
    source, target = folder / "source", folder / "installed"
    source.mkdir()
    for name in SOURCES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, source)
    build = (*PIP, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(folder), str(source))
    subprocess.run(build, check=True, timeout=60)
    (wheel,) = folder.glob("*.whl")
    install = (*PIP, "install", "--no-deps", "--no-index", "--no-compile", "--target", str(target), str(wheel))
    subprocess.run(install, check=True, timeout=60)
    return target


def test_the_wheel_holds_every_file_of_the_packages(installed: Path) -> None:
    places = {"templates": installed / "app/bundled/templates", "migrations": installed / "app/bundled/migrations"}
    for name in SOURCES:
        wanted = {path.relative_to(ROOT / name) for path in (ROOT / name).rglob("*") if path.is_file()}
        wanted = {path for path in wanted if "__pycache__" not in path.parts}
        place = places.get(name, installed / name)
        missing = {str(path) for path in wanted if not (place / path).is_file()}
        assert missing == set(), name


def test_the_wheel_runs_away_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFERABLY_")}
    environment |= {"PYTHONPATH": str(installed), "PREFERABLY_DATA_DIR": str(tmp_path / "var")}

    def run(program: str, *arguments: str) -> str:
        command = [sys.executable, "-c", program, *arguments]
        answer = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert answer.returncode == 0, answer.stderr
        return answer.stdout

    assert "up to date" in run("from app.cli import main; main()", "migrate")
    templates, topics = map(int, run(PROGRAM.format(installed=str(installed))).split()[-2:])
    assert templates == len(list((ROOT / "templates").rglob("*.html")))
    assert topics == len(list((ROOT / "model_worker/demo/corpus").glob("*.toml")))
