"""The command ``preferably-worker``. Commands that need torch are imported when they are called."""

import pkgutil
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from contract.errors import ContractError
from contract.sampling import PROTOCOL_VERSION
from model_worker.logs import configure_logs
from model_worker.service import run_worker, worker_version
from model_worker.settings import WorkerSettings, read_settings

# The exit code of an expected failure; 1 is left for the ones nobody expected.
EXIT_REFUSED: Final = 2

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="The model worker of Preferably: draws responses and trains reward models for a web app that it calls.",
)

# The settings by what they are about, in the order of the help.
_PANELS: Final = {
    "The worker": ("url", "token_file", "name", "can_sample", "can_train", "output_dir"),
    "Checkpoints": ("checkpoints", "library", "max_checkpoints"),
    "Sampling": ("engine", "max_pairs", "device", "dtype", "max_length", "attention", "cuda_graphs", "lorem_word_s"),
    "An OpenAI-compatible server": (
        *("openai_url", "openai_model", "openai_dialect"),
        *("openai_timeout_s", "openai_retries", "openai_accepts_unseeded"),
    ),
    "Running": (*("claim_wait_s", "drain_s", "metrics_port", "metrics_host", "progress", "log_format"),),
}

_ELSEWHERE: Final[dict[str, Any]] = {
    "add_help_option": False,
    "context_settings": {"ignore_unknown_options": True, "allow_extra_args": True},
}


def _option(setting: str, *names: str, metavar: str | None = None) -> Any:
    """An option that sets a setting: its help is the setting's own text, and its panel says what it is about."""
    field = WorkerSettings.model_fields[setting]
    meaning = " ".join((field.description or "").split())
    # Where there is no plain default, such as no folder or the host's name, the text itself says what holds.
    default = {True: "yes", False: "no"}.get(field.default) if isinstance(field.default, bool) else field.default
    text = f"{meaning} Default: {default}." if isinstance(default, (str, int, float, Path)) else meaning
    panel = _panel_of(setting)
    return typer.Option(*names, help=text, rich_help_panel=panel, show_default=False, metavar=metavar)


def _panel_of(setting: str) -> str:
    return next(panel for panel, settings in _PANELS.items() if setting in settings)


@app.command(
    epilog="Every option can be given in the environment as PREFERABLY_WORKER_ and the name of the setting, such as "
    "PREFERABLY_WORKER_MAX_PAIRS. Two settings only there, so that no other user reads them in the list of processes: "
    "PREFERABLY_WORKER_TOKEN, the worker's API token, and PREFERABLY_WORKER_OPENAI_API_KEY, the key of an "
    "OpenAI-compatible server."
)
def run(  # noqa: PLR0913, PLR0917 - one parameter for each setting
    url: Annotated[str | None, _option("url")] = None,
    token_file: Annotated[Path | None, _option("token_file")] = None,
    name: Annotated[str | None, _option("name")] = None,
    can_sample: Annotated[bool | None, _option("can_sample", "--sample/--no-sample")] = None,
    can_train: Annotated[bool | None, _option("can_train", "--train/--no-train")] = None,
    output_dir: Annotated[Path | None, _option("output_dir")] = None,
    checkpoints: Annotated[list[Path] | None, _option("checkpoints", "--checkpoint", metavar="<path>")] = None,
    library: Annotated[Path | None, _option("library")] = None,
    max_checkpoints: Annotated[int | None, _option("max_checkpoints")] = None,
    engine: Annotated[str | None, _option("engine")] = None,
    max_pairs: Annotated[int | None, _option("max_pairs")] = None,
    device: Annotated[str | None, _option("device")] = None,
    dtype: Annotated[str | None, _option("dtype")] = None,
    max_length: Annotated[int | None, _option("max_length")] = None,
    attention: Annotated[str | None, _option("attention")] = None,
    cuda_graphs: Annotated[bool | None, _option("cuda_graphs", "--cuda-graphs/--no-cuda-graphs")] = None,
    openai_url: Annotated[str | None, _option("openai_url")] = None,
    openai_model: Annotated[str | None, _option("openai_model")] = None,
    openai_dialect: Annotated[str | None, _option("openai_dialect")] = None,
    openai_timeout_s: Annotated[float | None, _option("openai_timeout_s")] = None,
    openai_retries: Annotated[int | None, _option("openai_retries")] = None,
    openai_accepts_unseeded: Annotated[
        bool | None, _option("openai_accepts_unseeded", "--openai-accepts-unseeded/--no-openai-accepts-unseeded")
    ] = None,
    lorem_word_s: Annotated[float | None, _option("lorem_word_s")] = None,
    claim_wait_s: Annotated[float | None, _option("claim_wait_s")] = None,
    drain_s: Annotated[float | None, _option("drain_s")] = None,
    metrics_port: Annotated[int | None, _option("metrics_port")] = None,
    metrics_host: Annotated[str | None, _option("metrics_host")] = None,
    progress: Annotated[bool | None, _option("progress", "--progress/--no-progress")] = None,
    log_format: Annotated[str | None, _option("log_format")] = None,
) -> None:
    """Serve a web app until SIGTERM or Ctrl-C.

    The API token comes from the environment, PREFERABLY_WORKER_TOKEN, or from a file.
    """
    options = dict(locals())
    options["checkpoints"] = tuple(checkpoints) if checkpoints else None
    settings = read_settings(options)
    console = Console(stderr=True)
    configure_logs(log_format=settings.log_format, console=console)
    run_worker(settings, _stop_on_signals(), console)


@app.command(**_ELSEWHERE)
def train(ctx: typer.Context) -> None:
    """Train a reward model from preference datasets."""
    _call_elsewhere("model_worker.reward.commands:train", ctx)


@app.command(**_ELSEWHERE)
def score(ctx: typer.Context) -> None:
    """Score responses with a reward model."""
    _call_elsewhere("model_worker.reward.commands:score", ctx)


@app.command("demo-checkpoint", **_ELSEWHERE)
def demo_checkpoint(ctx: typer.Context) -> None:
    """Train the small demo chat model, in minutes on a processor."""
    _call_elsewhere("model_worker.checkpoint_commands:demo_checkpoint", ctx)


@app.command("tiny-checkpoint", **_ELSEWHERE)
def tiny_checkpoint(ctx: typer.Context) -> None:
    """Write a tiny random chat checkpoint, in under a second."""
    _call_elsewhere("model_worker.checkpoint_commands:tiny_checkpoint", ctx)


@app.command()
def version() -> None:
    """Print the versions of this program and of the worker protocol."""
    typer.echo(f"preferably-worker {worker_version()}, protocol {PROTOCOL_VERSION}")


def main() -> None:
    """Run the command line; an expected failure is one line on standard error and exit code 2."""
    try:
        app()
    except ContractError as error:
        message = " ".join(str(error).split())
        Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(message, style="red")
        sys.exit(EXIT_REFUSED)


def _call_elsewhere(target: str, ctx: typer.Context) -> None:
    """Run the function that ``target`` names as a command of its own, with this command's arguments."""
    command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    command.command()(pkgutil.resolve_name(target))
    command(args=ctx.args, prog_name=ctx.command_path)


def _stop_on_signals() -> threading.Event:
    """Set the event on the first SIGTERM or SIGINT; a second one ends the process at once."""
    stopping = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        stopping.set()
        signal.signal(number, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    return stopping


if __name__ == "__main__":
    main()
