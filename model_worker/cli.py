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
from model_worker.settings import read_settings

# The exit code of an expected failure; 1 is left for the ones nobody expected.
EXIT_REFUSED: Final = 2

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="The model worker of Preferably: draws responses and trains reward models for a web app that it calls.",
)

_ELSEWHERE: Final[dict[str, Any]] = {
    "add_help_option": False,
    "context_settings": {"ignore_unknown_options": True, "allow_extra_args": True},
}


@app.command()
def run(  # noqa: PLR0913, PLR0917 - one parameter for each option
    url: Annotated[str | None, typer.Option(help="Where the web app is.")] = None,
    token_file: Annotated[Path | None, typer.Option(help="A file that holds the worker's API token.")] = None,
    checkpoint: Annotated[
        list[Path] | None, typer.Option(help="Folder of a chat checkpoint; repeat it to serve several.")
    ] = None,
    engine: Annotated[str | None, typer.Option(help="pair, or lorem: words without a model.")] = None,
    name: Annotated[str | None, typer.Option(help="The worker's name, unique in the app.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32, bfloat16 or float16.")] = None,
    max_pairs: Annotated[int | None, typer.Option(help="How many prompts are worked on at once.")] = None,
    output_dir: Annotated[Path | None, typer.Option(help="Where reward models and datasets go.")] = None,
    sample: Annotated[bool | None, typer.Option("--sample/--no-sample", help="Draw responses.")] = None,
    train: Annotated[bool | None, typer.Option("--train/--no-train", help="Take training runs.")] = None,
    drain_s: Annotated[float | None, typer.Option(help="Seconds that responses may run on at the end.")] = None,
) -> None:
    """Serve a web app until SIGTERM or Ctrl-C.

    Every option can be given as PREFERABLY_WORKER_... in the environment; the API token must be, or in a file.
    """
    options = {
        "url": url,
        "token_file": token_file,
        "checkpoints": tuple(checkpoint) if checkpoint else None,
        "engine": engine,
        "name": name,
        "device": device,
        "dtype": dtype,
        "max_pairs": max_pairs,
        "output_dir": output_dir,
        "can_sample": sample,
        "can_train": train,
        "drain_s": drain_s,
    }
    configure_logs()
    run_worker(read_settings(options), _stop_on_signals())


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
