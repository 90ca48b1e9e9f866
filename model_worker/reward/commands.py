"""The commands `train` and `score` of `preferably-worker`, for a person and for the worker that supervises a run."""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn, TextIO

import typer
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from contract.base import Contract
from contract.conversation import Message
from contract.errors import ContractError
from contract.external import explain
from contract.recipe import Recipe
from contract.training import AccuracyCell, EvaluationReport, TrainingPoint
from contract.vocabulary import MarginScheme, Objective, Role
from model_worker.errors import DatasetError, TrainingError
from model_worker.reward.score import Score, Scorer
from model_worker.reward.train import TrainedRewardModel, TrainingRequest, train_reward_model
from model_worker.training_child import TrainingResult

_EXPECTED_FAILURE = 2
# What a shell reports for a process that SIGTERM ended.
_TERMINATED = 128 + signal.SIGTERM
# How long a process whose supervisor died may tidy up before it is ended for good, in seconds.
_TIDY_UP_S = 10.0


class _ScoreRow(Contract):
    prompt: tuple[Message, ...]
    response: str


_SCORE_ROW = TypeAdapter(_ScoreRow)


def train(  # noqa: PLR0913 the command's options are what they are.
    *,
    checkpoint: Annotated[Path, typer.Option(help="Folder of the chat checkpoint to start from.")],
    output: Annotated[Path, typer.Option(help="Folder of the reward model; must not exist, or be empty.")],
    dataset: Annotated[list[Path] | None, typer.Option(help="Folder of a preference dataset; repeatable.")] = None,
    external: Annotated[list[Path] | None, typer.Option(help="JSONL(.gz) to train on too; repeatable.")] = None,
    external_test: Annotated[list[Path] | None, typer.Option(help="JSONL(.gz) to evaluate on; repeatable.")] = None,
    previous: Annotated[Path | None, typer.Option(help="The last reward model, evaluated before training.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="Recipe as JSON; options below override its fields.")] = None,
    objective: Annotated[Objective | None, typer.Option(help="Which rows of the datasets to train on.")] = None,
    margin_scheme: Annotated[MarginScheme | None, typer.Option(help="Margins by preference strength.")] = None,
    safety_loss_weight: Annotated[float | None, typer.Option(help="Weight of the auxiliary safety loss.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the data; Llama 2 makes one.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Largest learning rate.")] = None,
    pairs_per_step: Annotated[int | None, typer.Option(help="Comparisons per optimiser step.")] = None,
    pairs_per_minibatch: Annotated[int | None, typer.Option(help="Comparisons computed at once.")] = None,
    max_length: Annotated[int | None, typer.Option(help="Longest sequence, in tokens.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the head and of the order of the data.")] = None,
    progress: Annotated[Path | None, typer.Option(help="Write one JSON line per optimiser step here.")] = None,
    result: Annotated[Path | None, typer.Option(help="Write digest and evaluations here, as JSON.")] = None,
    watch_stdin: Annotated[bool, typer.Option("--watch-stdin", help="Stop when standard input closes.")] = False,
) -> None:
    """Train a reward model from a chat checkpoint and preference datasets, and evaluate it on the held-out splits."""
    options = {
        "objective": objective,
        "margin_scheme": margin_scheme,
        "safety_loss_weight": safety_loss_weight,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "pairs_per_step": pairs_per_step,
        "pairs_per_minibatch": pairs_per_minibatch,
        "max_length": max_length,
        "seed": seed,
    }
    with _expected_failures(), _terminable():
        if watch_stdin:
            _end_with_stdin()
        request = TrainingRequest(
            checkpoint=checkpoint,
            recipe=read_recipe(recipe, {name: value for name, value in options.items() if value is not None}),
            output=output,
            datasets=tuple(dataset or ()),
            external=tuple(external or ()),
            external_test=tuple(external_test or ()),
            previous=previous,
        )
        with ExitStack() as stack:
            on_point = stack.enter_context(_progress_writers(progress))
            trained = train_reward_model(request, on_point=on_point, should_stop=lambda: False, on_note=_say)
        if result is not None:
            _write_result(result, trained)
    _print_report(trained)


def score(
    model_dir: Annotated[Path, typer.Argument(help="Folder of a reward model.")],
    *,
    file: Annotated[Path | None, typer.Option(help='JSONL with {"prompt": [messages], "response": "..."}.')] = None,
    prompt: Annotated[str | None, typer.Option(help="One prompt.")] = None,
    response: Annotated[str | None, typer.Option(help="The response to it.")] = None,
) -> None:
    """Print reward and sigmoid of responses, one JSON line each, in the order they come in."""
    with _expected_failures():
        if file is not None and prompt is None and response is None:
            rows = _read_score_rows(file)
        elif file is None and prompt is not None and response is not None:
            rows = [_ScoreRow(prompt=(Message(role=Role.USER, content=prompt),), response=response)]
        else:
            msg = "Give either --file, or --prompt and --response."
            raise TrainingError(msg)
        scores = Scorer.load(model_dir).score([(row.prompt, row.response) for row in rows])
    for one in scores:
        typer.echo(_score_line(one))


def read_recipe(path: Path | None, options: dict[str, Any]) -> Recipe:
    """The recipe of a file, or the paper's, with single fields overridden by options.

    Raises:
        TrainingError: The file is no recipe, or a value is not allowed; the message names file and field.

    """
    content: dict[str, Any] = {}
    where = "The options"
    if path is not None:
        where = str(path)
        try:
            content = TypeAdapter(dict[str, Any]).validate_json(path.read_bytes())
        except OSError as error:
            msg = f"{path} cannot be read: {error.strerror}."
            raise TrainingError(msg) from None
        except ValidationError as error:
            msg = f"{path} must hold a JSON object: {explain(error)}"
            raise TrainingError(msg) from None
    try:
        return Recipe.model_validate(content | options)
    except ValidationError as error:
        msg = f"{where}: recipe field {explain(error)}"
        raise TrainingError(msg) from None


def _read_score_rows(path: Path) -> list[_ScoreRow]:
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}."
        raise DatasetError(msg) from None
    rows: list[_ScoreRow] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows.append(_SCORE_ROW.validate_json(line))
        except ValidationError as error:
            msg = f"{path}, line {number}: {explain(error)}"
            raise DatasetError(msg) from None
    return rows


def _score_line(one: Score) -> str:
    return json.dumps({"reward": one.reward, "sigmoid": one.sigmoid})


def _say(note: str) -> None:
    Console(stderr=True).print(f"Note: {note}", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _expected_failures() -> Iterator[None]:
    """End with status 2 and the reason as the last line of standard error, without a traceback."""
    try:
        yield
    except ContractError as error:
        typer.echo(" ".join(str(error).split()), err=True)
        raise typer.Exit(_EXPECTED_FAILURE) from None


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM unwind the stack, so that a draft of the output is removed."""

    def stop(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(_TERMINATED)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end_with_stdin() -> None:
    """End this process when standard input closes: whoever started it is dead, and nobody waits for the result."""

    def watch() -> None:
        # Not sys.stdin: its lock, held by a thread that waits, would crash the interpreter when it ends.
        while os.read(sys.stdin.fileno(), 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        # A long computation in C does not let the signal through at once.
        threading.Event().wait(_TIDY_UP_S)
        os._exit(_TERMINATED)

    threading.Thread(target=watch, name="watch-stdin", daemon=True).start()


@contextmanager
def _progress_writers(path: Path | None) -> Iterator[Callable[[TrainingPoint], None]]:
    """Writes each point to the progress file, and to a bar if a person is looking."""
    with ExitStack() as stack:
        stream = stack.enter_context(_open_progress(path)) if path is not None else None
        console = Console(stderr=True)
        bar = stack.enter_context(_progress_bar(console)) if console.is_terminal else None
        task = bar.add_task("", total=None) if bar is not None else None

        def write(point: TrainingPoint) -> None:
            if stream is not None:
                stream.write(point.model_dump_json() + "\n")
                stream.flush()
            if bar is not None and task is not None:
                figures = f"loss {point.loss:.4f}  accuracy {point.accuracy:.3f}"
                bar.update(task, completed=point.step, total=point.total_steps, description=figures)

        yield write


def _open_progress(path: Path) -> TextIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("w", encoding="utf-8")
    except OSError as error:
        msg = f"{path} cannot be written: {error.strerror}."
        raise TrainingError(msg) from None


def _progress_bar(console: Console) -> Progress:
    return Progress(
        TextColumn("Training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
        console=console,
    )


def _write_result(path: Path, trained: TrainedRewardModel) -> None:
    """Write the result in one step: whoever finds the file finds all of it."""
    content = TrainingResult(digest=trained.digest, evaluations=trained.evaluations).model_dump_json(indent=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(content + "\n", encoding="utf-8")
    draft.replace(path)


def _print_report(trained: TrainedRewardModel) -> None:
    console = Console()
    for evaluation in trained.evaluations:
        console.print(_table(evaluation))
    console.print(f"Reward model: {trained.folder}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"Digest: {trained.digest}", markup=False, highlight=False, soft_wrap=True)


def _table(evaluation: EvaluationReport) -> Table:
    """Accuracy by strength, as in Llama 2's Table 8, with the baselines below."""
    table = Table(title=f"{evaluation.dataset}, {evaluation.split.value} split, {evaluation.kind.replace('_', ' ')}")
    for heading in ("", "accuracy", "95 % interval", "comparisons", "ties"):
        table.add_column(heading, justify="left" if not heading else "right")
    for cell in (*evaluation.by_strength, *evaluation.by_safety_bin, evaluation.overall):
        table.add_row(*_cells(cell))
    table.add_section()
    for cell in (evaluation.longer_wins, evaluation.a_wins):
        table.add_row(*_cells(cell))
    return table


def _cells(cell: AccuracyCell) -> tuple[str, ...]:
    if cell.accuracy is None or cell.low is None or cell.high is None:
        return (cell.name.replace("_", " "), "-", "-", "0", "0")
    interval = f"{cell.low:.1%} to {cell.high:.1%}"
    return (cell.name.replace("_", " "), f"{cell.accuracy:.1%}", interval, str(cell.n), str(cell.ties))
