"""Rules that are executable: imports, roles of routes, commits, templates, migrations."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from alembic import command
from fastapi.dependencies.models import Dependant
from jinja2 import nodes

from app.database import alembic_config
from app.main import create_app
from app.paths import ROOT, TEMPLATES
from app.settings import Settings
from app.web.access import Access, MetricsAccess, Public, TokenAccess
from app.web.templating import make_environment
from tests.routes import api_routes


def test_the_app_starts_without_torch() -> None:
    heavy = "torch transformers tokenizers safetensors model_worker"
    program = f"import sys, app.main, app.cli; print(sorted(set('{heavy}'.split()) & set(sys.modules)))"
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60
    )
    assert answer.stdout.strip() == "[]"


def test_every_route_says_who_may_call_it(tmp_path: Path) -> None:
    app = create_app(Settings(data_dir=tmp_path))
    routes = list(api_routes(app.routes))
    assert len(routes) > 20
    undeclared = [route.path for route in routes if not any(_is_access(call) for call in _calls(route.dependant))]
    assert undeclared == []


def test_no_route_hides_another(tmp_path: Path) -> None:
    app = create_app(Settings(data_dir=tmp_path))
    seen: list[tuple[str, re.Pattern[str], set[str]]] = []
    hidden = []
    for route in api_routes(app.routes):
        methods = set(route.methods or ())
        example = re.sub(r"\{[^}]*\}", "x1", route.path)
        hidden += [
            f"{route.path} by {path}"
            for path, pattern, earlier in seen
            if methods & earlier and pattern.match(example) and path != route.path and "{" not in route.path
        ]
        seen.append((route.path, route.path_regex, methods))
    assert hidden == []


def test_only_the_edge_commits() -> None:
    edge = {"database.py", "writers.py"}
    offenders = [
        str(file.relative_to(ROOT))
        for file in (ROOT / "app").rglob("*.py")
        if file.name not in edge and re.search(r"\.(commit|rollback)\(", file.read_text(encoding="utf-8"))
    ]
    assert offenders == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(file.relative_to(ROOT))
        for folder in ("app", "contract", "model_worker", "benchmarks", "tests")
        for file in (ROOT / folder).rglob("*.py")
        if not file.read_text(encoding="utf-8").startswith(('"""', 'r"""'))
    ]
    assert silent == []


def test_every_template_compiles_and_escapes() -> None:
    environment = make_environment()
    names = environment.list_templates(extensions=["html"])
    assert len(names) > 5
    for name in names:
        source = (TEMPLATES / name).read_text(encoding="utf-8")
        environment.get_template(name)
        tree = environment.parse(source)
        filters = {node.name for node in tree.find_all(nodes.Filter)}
        assert "safe" not in filters, f"{name} marks text as safe"
        assert not re.search(r"\s(style|on[a-z]+|hx-on[^=]*)=", source), f"{name} has inline style or script"


def test_migrations_are_complete(tmp_path: Path) -> None:
    config = alembic_config(f"sqlite:///{tmp_path / 'check.db'}")
    command.upgrade(config, "head")
    command.check(config)


def test_vendored_files_name_their_version_and_carry_their_licence() -> None:
    folders = [folder for folder in (ROOT / "app/web/static/vendor").iterdir() if folder.is_dir()]
    assert folders
    for folder in folders:
        assert re.search(r"@\d+\.\d+", folder.name), folder.name
        assert any(file.name.upper().startswith("LICENSE") for file in folder.iterdir()), folder.name


def _calls(dependant: Dependant) -> Iterator[object]:
    for dependency in dependant.dependencies:
        yield dependency.call
        yield from _calls(dependency)


def _is_access(call: object) -> bool:
    return isinstance(call, Access | TokenAccess | MetricsAccess | Public)
