"""The production set-up: the compose file fits its specification, starts in order, and holds no secret.

No container runs here: these are checks of the files.
"""

import fnmatch
import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from app.paths import ROOT
from app.settings import Settings
from model_worker.settings import WorkerSettings

SCHEMA = Path(__file__).parent / "compose_spec" / "compose-spec.json"
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
VARIABLE = re.compile(r"\$\{(\w+)(:?[-?])?([^}]*)\}")
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN$")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def test_it_fits_the_compose_specification(compose: dict[str, Any]) -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    faults = [f"{list(fault.path)}: {fault.message}" for fault in Draft202012Validator(schema).iter_errors(compose)]
    assert faults == []


def test_the_schema_finds_faults(compose: dict[str, Any]) -> None:
    broken = compose | {"services": {"app": {"imagee": "x"}}}
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    assert not Draft202012Validator(schema).is_valid(broken)


def test_services_start_in_order(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert "pg_isready" in services["postgres"]["healthcheck"]["test"]
    assert services["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert services["app"]["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}
    assert services["proxy"]["depends_on"] == {"app": {"condition": "service_healthy"}}
    assert services["app"]["deploy"]["replicas"] == 2
    # Several replicas cannot publish one port: only the proxy is reachable from outside.
    assert [name for name, service in services.items() if service.get("ports")] == ["proxy"]
    named = {target for service in services.values() for target in service.get("depends_on", {})}
    assert named <= services.keys()


def test_all_app_processes_share_their_data_and_secrets(compose: dict[str, Any]) -> None:
    app, migrate = compose["services"]["app"], compose["services"]["migrate"]
    assert app["volumes"] == migrate["volumes"] == ["data:/data"]
    assert app["environment"] == migrate["environment"]
    assert "data" in compose["volumes"]


def test_workers_start_only_when_asked_for(compose: dict[str, Any]) -> None:
    gpu, cpu = compose["services"]["worker"], compose["services"]["worker-cpu"]
    assert gpu["profiles"] == ["gpu"]
    assert cpu["profiles"] == ["cpu"]
    (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia"
    assert device["capabilities"] == ["gpu"]
    assert gpu["environment"]["PREFERABLY_WORKER_NAME"] != cpu["environment"]["PREFERABLY_WORKER_NAME"]
    for worker in (gpu, cpu):
        assert set(worker["secrets"]) <= compose["secrets"].keys()
        assert not set(worker["environment"]) & set(compose["services"]["app"]["environment"])


def test_the_inference_server_and_its_worker_fit_together(compose: dict[str, Any]) -> None:
    server, worker = compose["services"]["vllm"], compose["services"]["worker-vllm"]
    assert server["profiles"] == worker["profiles"] == ["vllm"]
    name, _, version = server["image"].partition(":")
    assert name == "vllm/vllm-openai"
    assert re.fullmatch(r"v\d+\.\d+\.\d+", version), "pinned: the client follows the wire format of one version"
    assert "ports" not in server, "its development mode lets anybody who reaches it run anything"
    options = dict(zip(server["command"][::2], server["command"][1::2], strict=True))
    told = worker["environment"]
    assert told["PREFERABLY_WORKER_ENGINE"] == "openai"
    assert told["PREFERABLY_WORKER_OPENAI_DIALECT"] == "vllm"
    assert told["PREFERABLY_WORKER_OPENAI_URL"] == f"http://vllm:{options['--port']}/v1"
    assert told["PREFERABLY_WORKER_OPENAI_MODEL"] == options["--served-model-name"]
    assert told["PREFERABLY_WORKER_CHECKPOINTS"] == options["--model"], "the same folder, by the same path"
    assert [volume for volume in worker["volumes"] if volume in server["volumes"]], "from the same disk"
    assert options["--generation-config"] == "vllm", "the checkpoint's own sampling parameters must not count"
    assert worker["depends_on"] == {"vllm": {"condition": "service_healthy"}}
    assert server["healthcheck"]["test"][-1].endswith("/health")
    (device,) = server["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


def test_no_secret_is_in_the_file(compose: dict[str, Any]) -> None:
    """Every secret comes from outside, and compose says so where it is missing."""
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            if SECRET.search(name):
                (variable,) = VARIABLE.findall(str(value))
                assert variable[1] == ":?", f"{name} has a default or none is demanded"
    for name, operator, rest in VARIABLE.findall(COMPOSE.read_text(encoding="utf-8")):
        if SECRET.search(name):
            assert operator == ":?", name
            assert rest.startswith(f"set {name}"), f"the message for {name} does not name it"


def test_variables_are_settings_that_exist(compose: dict[str, Any]) -> None:
    known = {f"PREFERABLY_{field.upper()}" for field in Settings.model_fields}
    known |= {f"PREFERABLY_WORKER_{field.upper()}" for field in WorkerSettings.model_fields}
    used = {name for service in compose["services"].values() for name in service.get("environment", {})}
    assert {name for name in used if name.startswith("PREFERABLY_")} <= known


def test_builds_name_files_that_exist(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        if "build" in service:
            assert (ROOT / service["build"]["dockerfile"]).is_file()
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./docker"):
                assert (ROOT / source).is_file()


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda file: file.name)
def test_images_copy_what_exists_and_is_not_ignored(dockerfile: Path) -> None:
    sources = [source for words in _instructions(dockerfile, "COPY") for source in words[:-1]]
    assert sources
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(source == entry or source.startswith(f"{entry}/") for entry in kept), f"{source} is ignored"


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda file: file.name)
def test_images_do_not_run_as_root(dockerfile: Path) -> None:
    (user,) = _instructions(dockerfile, "USER")
    assert user != ["root"]
    text = dockerfile.read_text(encoding="utf-8")
    assert text.index("\nUSER ") < text.index("\nCMD ")


def test_the_app_image_has_what_the_app_reads_beside_its_packages() -> None:
    (dockerfile,) = (file for file in DOCKERFILES if file.name == "app.Dockerfile")
    sources = {source for words in _instructions(dockerfile, "COPY") for source in words[:-1]}
    assert {"app", "contract", "migrations", "templates", "pyproject.toml"} <= sources
    assert "--editable" in dockerfile.read_text(encoding="utf-8")
    assert "[worker]" not in dockerfile.read_text(encoding="utf-8")


def test_nothing_private_reaches_the_build_context() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    first = next(line for line in lines if line and not line.startswith("#"))
    assert first == "*"
    kept = [line[1:] for line in lines if line.startswith("!")]
    for private in ("var/worker.token", ".env", "compose.env", ".git", ".venv"):
        assert not any(fnmatch.fnmatch(private, pattern) or private.startswith(f"{pattern}/") for pattern in kept)


def _instructions(dockerfile: Path, name: str) -> list[list[str]]:
    text = dockerfile.read_text(encoding="utf-8").replace("\\" + os.linesep, " ")
    return [shlex.split(line)[1:] for line in text.splitlines() if line.startswith(f"{name} ")]
