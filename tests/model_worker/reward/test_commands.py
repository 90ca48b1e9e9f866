"""The commands as a person or the worker runs them: real processes with files, exit codes and pipes."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from contract.digests import model_digest
from contract.training import TrainingPoint
from contract.vocabulary import MarginScheme, Objective
from model_worker.errors import TrainingError
from model_worker.reward.commands import read_recipe, score, train
from model_worker.reward.model import LoadedRewardModel, save_reward_model
from model_worker.reward.score import Scorer
from model_worker.training_child import TrainingResult
from tests.model_worker.reward.builders import simulated_comparisons, user, write_dataset

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-m", "model_worker.cli"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "100"}


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
    )


def train_arguments(checkpoint: Path, dataset: Path, output: Path) -> list[str]:
    options = ["--checkpoint", checkpoint, "--dataset", dataset, "--output", output]
    return ["train", *map(str, options)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset") / "week-1"
    return write_dataset(folder, train=simulated_comparisons(12, seed=1), test=simulated_comparisons(4, seed=2))


def test_train_end_to_end(checkpoint: Path, dataset: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({"objective": "helpfulness", "pairs_per_step": 512, "learning_rate": 1e-3}))
    output, progress, result = tmp_path / "rm", tmp_path / "progress.jsonl", tmp_path / "result.json"
    files = ["--recipe", recipe, "--progress", progress, "--result", result]
    done = command(*train_arguments(checkpoint, dataset, output), *files, "--pairs-per-step", 8)
    assert done.returncode == 0, done.stderr
    points = [TrainingPoint.model_validate_json(line) for line in progress.read_text().splitlines()]
    assert [(point.step, point.pairs) for point in points] == [(1, 8), (2, 16), (3, 24)]
    written = TrainingResult.model_validate_json(result.read_bytes())
    assert written.digest == model_digest(output)
    assert written.evaluations[0].overall.n == 8
    assert "significantly better" in done.stdout
    assert "longer wins" in done.stdout
    assert "Note: 24 training comparisons at 8 per step" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["progress.jsonl", "recipe.json", "result.json", "rm"]


def test_one_response_is_scored(loaded: LoadedRewardModel, tmp_path: Path) -> None:
    save_reward_model(loaded, tmp_path)
    app = typer.Typer()
    app.command()(score)
    done = CliRunner().invoke(app, [str(tmp_path), "--prompt", "tea", "--response", "paper"])
    assert done.exit_code == 0, done.output
    (expected,) = Scorer.load(tmp_path).score([((user("tea"),), "paper")])
    assert json.loads(done.stdout) == pytest.approx({"reward": expected.reward, "sigmoid": expected.sigmoid}, abs=1e-5)


def test_a_file_of_conversations_is_scored_in_order(
    loaded: LoadedRewardModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rm").mkdir()
    save_reward_model(loaded, tmp_path / "rm")
    conversations = tmp_path / "conversations.jsonl"
    responses = ["bread", "green paper", "tea \u2028 house"]
    rows = [{"prompt": [{"role": "user", "content": "tea"}], "response": response} for response in responses]
    conversations.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n\n", encoding="utf-8")
    score(tmp_path / "rm", file=conversations)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    expected = [Scorer.load(tmp_path / "rm").score([((user("tea"),), response)])[0] for response in responses]
    assert [line["reward"] for line in lines] == pytest.approx([one.reward for one in expected], abs=1e-5)
    assert [line["sigmoid"] for line in lines] == pytest.approx([one.sigmoid for one in expected], abs=1e-5)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"prompt": [], "respons": "x"}', "line 2: "),
        ('{"prompt": "tea", "response": "x"}', "line 2: prompt: "),
        ("{", "line 2: the row: Invalid JSON"),
    ],
    ids=["missing", "type", "broken"],
)
def test_a_bad_line_to_score_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, complaint: str
) -> None:
    conversations = tmp_path / "conversations.jsonl"
    conversations.write_text('{"prompt": [{"role": "user", "content": "tea"}], "response": "x"}\n' + line)
    with pytest.raises(typer.Exit) as ended:
        score(tmp_path, file=conversations)
    assert ended.value.exit_code == 2
    assert complaint in capsys.readouterr().err


def test_score_wants_a_file_or_a_pair(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        score(tmp_path, prompt="tea")
    assert capsys.readouterr().err == "Give either --file, or --prompt and --response.\n"


def test_a_bad_recipe_ends_with_status_2_and_names_the_field(
    checkpoint: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({"objective": "helpfulness", "pairs_per_step": 0}))
    with pytest.raises(typer.Exit) as ended:
        train(checkpoint=checkpoint, dataset=[dataset], output=tmp_path / "rm", recipe=recipe)
    assert ended.value.exit_code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{recipe}: recipe field pairs_per_step: ")
    assert not (tmp_path / "rm").exists()


def test_the_death_of_the_supervisor_ends_the_run(checkpoint: Path, dataset: Path, tmp_path: Path) -> None:
    progress = tmp_path / "progress.jsonl"
    arguments: Sequence[Any] = [
        *train_arguments(checkpoint, dataset, tmp_path / "rm"),
        *["--objective", "helpfulness", "--epochs", "2000", "--pairs-per-step", "8"],
        *["--progress", progress, "--watch-stdin"],
    ]
    reader, writer = os.pipe()
    with (tmp_path / "errors").open("wb") as errors:
        process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)], cwd=ROOT, env=ENVIRONMENT, stdin=reader, stderr=errors
        )
    os.close(reader)
    try:
        deadline = time.monotonic() + 60
        while not (progress.is_file() and progress.read_text().count("\n") > 2):
            assert process.poll() is None, (tmp_path / "errors").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.close(writer)
        assert process.wait(20) == 143
    finally:
        process.kill()
        process.wait()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["errors", "progress.jsonl"]
    assert "Traceback" not in (tmp_path / "errors").read_text()


def test_options_override_the_recipe_file(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text('{"objective": "safety", "seed": 3}')
    recipe = read_recipe(path, {"margin_scheme": MarginScheme.LARGE, "seed": 4})
    assert (recipe.objective, recipe.margin_scheme, recipe.seed) == (Objective.SAFETY, MarginScheme.LARGE, 4)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('{"objective": "humour"}', "recipe field objective: "),
        ('{"objective": "safety", "learning": 1}', "recipe field learning: "),
        ("[]", "must hold a JSON object"),
        ('{"objective": ', "must hold a JSON object"),
        (None, "cannot be read"),
    ],
    ids=["value", "unknown", "list", "broken", "missing"],
)
def test_a_bad_recipe_is_explained(tmp_path: Path, content: str | None, complaint: str) -> None:
    path = tmp_path / "recipe.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(TrainingError, match=complaint):
        read_recipe(path, {})


def test_without_recipe_the_objective_must_be_said() -> None:
    with pytest.raises(TrainingError, match="The options: recipe field objective: Field required"):
        read_recipe(None, {})
