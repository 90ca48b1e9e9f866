"""The commands that make checkpoints for trying the system out."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from model_worker.demo.tiny import make_tiny_checkpoint
from model_worker.demo.train import TrainingProgress, train_demo_checkpoint


def demo_checkpoint(
    out: Annotated[Path, typer.Argument(help="The folder to write.")],
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps; fewer make a worse model.")] = 3000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same model.")] = 0,
) -> None:
    """Train the small demo chat model, in minutes on a processor."""
    console = Console(stderr=True)
    columns = (
        TextColumn("Training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=steps)

        def show(point: TrainingProgress) -> None:
            bar.update(task, completed=point.step, description=f"loss {point.loss:.3f}")

        train_demo_checkpoint(out, steps=steps, seed=seed, progress=show)
    console.print(f"wrote {out}", style="green", markup=False)


def tiny_checkpoint(
    out: Annotated[Path, typer.Argument(help="The folder to write.")],
    seed: Annotated[int, typer.Option(help="The same seed gives the same model.")] = 0,
) -> None:
    """Write a tiny random chat checkpoint, in under a second."""
    make_tiny_checkpoint(out, seed=seed)
    Console(stderr=True).print(f"wrote {out}", style="green", markup=False)
