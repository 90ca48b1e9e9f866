"""The commands that make checkpoints for trying the system out."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from model_worker.demo.tiny import make_tiny_checkpoint
from model_worker.demo.train import train_demo_checkpoint


def demo_checkpoint(
    out: Annotated[Path, typer.Argument(help="The folder to write.")],
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps; fewer make a worse model.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same model.")] = 0,
) -> None:
    """Train the small demo chat model, in minutes on a processor."""
    console = Console(stderr=True)
    chosen = {} if steps is None else {"steps": steps}
    train_demo_checkpoint(out, seed=seed, progress=console.print, **chosen)
    console.print(f"wrote {out}", style="green")


def tiny_checkpoint(
    out: Annotated[Path, typer.Argument(help="The folder to write.")],
    seed: Annotated[int, typer.Option(help="The same seed gives the same model.")] = 0,
) -> None:
    """Write a tiny random chat checkpoint, in under a second."""
    make_tiny_checkpoint(out, seed=seed)
    Console(stderr=True).print(f"wrote {out}", style="green")
