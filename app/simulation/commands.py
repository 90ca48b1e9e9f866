"""The command ``preferably simulate``: simulated annotators for demonstrations, tests and load."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from app.accounts import service as accounts
from app.database import connect, require_current_schema
from app.models import PersonRole
from app.settings import Settings
from app.simulation.annotator import Habits
from app.simulation.browser import SimulationError
from app.simulation.crowd import Crowd, Summary, run_crowd
from app.simulation.preference import Taste
from app.simulation.prompts import read_prompts

_LINK_HOURS = 1.0
_ERRORS_SHOWN = 10


def simulate(  # noqa: PLR0913 - one parameter for each option
    *,
    annotators: Annotated[int, typer.Option(min=1, max=256, help="How many annotators work at once.")] = 4,
    comparisons: Annotated[int, typer.Option(min=1, help="How many comparisons they judge in all.")] = 100,
    url: Annotated[str, typer.Option(help="Where the app runs.")] = "http://127.0.0.1:8000",
    links: Annotated[
        Path | None,
        typer.Option(help="A file with a sign-in link a line, one for each annotator, to work from elsewhere."),
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Prompts to write: JSON lines with turns, or plain text, a prompt a line.")
    ] = None,
    turns: Annotated[int, typer.Option(min=1, max=20, help="The longest conversation, in turns.")] = 3,
    seed: Annotated[int, typer.Option(help="The same seed writes and prefers the same.")] = 0,
    noise: Annotated[float, typer.Option(min=0.0, help="How unreliable the hidden preference is.")] = 1.0,
    drift: Annotated[float, typer.Option(help="How far the preference has turned; 1 is a quarter turn.")] = 0.0,
    a_bias: Annotated[float, typer.Option(help="Preference for side A whatever stands there, in logits.")] = 0.0,
    skip_share: Annotated[float, typer.Option(min=0.0, max=1.0, help="The share of pairs that are skipped.")] = 0.0,
    safety_share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="The share of conversations for the safety objective.")
    ] = 0.3,
    thinking_s: Annotated[float, typer.Option(min=0.0, help="Seconds that they look at a pair.")] = 0.0,
    patience_s: Annotated[float, typer.Option(min=1.0, help="Seconds that they wait for the responses.")] = 120.0,
) -> None:
    """Let simulated annotators work in the running app.

    They sign in, write prompts and judge pairs over HTTP like people in browsers, by a documented hidden
    preference with noise (app/simulation/preference.py). Their one-time sign-in links come from this machine's
    installation, or from a file. Nothing else is read from the database.

    The exit status is 1 if anything failed or there were fewer comparisons than asked for.
    """
    crowd = Crowd(
        url=url.rstrip("/"),
        links=read_links(links) if links is not None else _make_links(annotators),
        taste=Taste(noise=noise, drift=drift, a_bias=a_bias),
        habits=Habits(
            seed=seed,
            skip_share=skip_share,
            safety_share=safety_share,
            patience_s=patience_s,
            thinking_s=thinking_s,
        ),
        turns=turns,
        scripts=read_prompts(prompts) if prompts is not None else (),
    )
    summary = _run_with_progress(crowd, comparisons)
    print_summary(summary, Console())
    if not summary.is_good:
        raise typer.Exit(1)


def print_summary(summary: Summary, console: Console) -> None:
    """Show what came of a simulation."""
    table = Table(show_header=False, box=None)
    for name, value in (
        ("comparisons", f"{summary.comparisons} of {summary.wanted}"),
        ("skipped", str(summary.skipped)),
        ("prompts without a pair", str(summary.without_pair)),
        ("prompt to judgement", f"p50 {summary.cycle_p50_s:.3f} s, p95 {summary.cycle_p95_s:.3f} s"),
        ("submit to next screen", f"p50 {summary.submit_p50_s:.3f} s, p95 {summary.submit_p95_s:.3f} s"),
        ("strengths", ", ".join(f"{name.replace('_', ' ')} {share:.0%}" for name, share in summary.strengths.items())),
        ("choice A", f"{summary.a_share:.1%}"),
        ("hidden preference followed", f"{summary.agreement:.1%}, expected {summary.ceiling:.1%}"),
        ("errors", str(len(summary.errors))),
    ):
        table.add_row(name, value)
    console.print(table)
    for error in summary.errors[:_ERRORS_SHOWN]:
        console.print(error, style="red", markup=False, highlight=False, soft_wrap=True)
    if summary.is_closed and summary.comparisons < summary.wanted:
        console.print("No batch takes prompts any more, so the annotators stopped early.", style="yellow")


def _run_with_progress(crowd: Crowd, comparisons: int) -> Summary:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("comparisons", total=comparisons)
        return run_crowd(crowd, comparisons, lambda: progress.advance(task))


def _make_links(annotators: int) -> list[str]:
    """One-time links for so many simulated people, from this machine's installation."""
    settings = Settings()
    database = connect(settings.database_url)
    try:
        require_current_schema(database, settings.database_url)
        with database.write() as session:
            people = [
                accounts.get_or_create_person(session, f"simulated {number:03d}", PersonRole.ANNOTATOR)
                for number in range(1, annotators + 1)
            ]
            tokens = [accounts.issue_sign_in_link(session, person, hours=_LINK_HOURS) for person in people]
    finally:
        database.dispose()
    return [f"/sign-in/{token}" for token in tokens]


def read_links(file: Path) -> list[str]:
    """Sign-in links from a file, one a line.

    Raises:
        SimulationError: The file cannot be read, or has none.

    """
    try:
        links = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{file} cannot be read: {error}"
        raise SimulationError(msg) from None
    if not links:
        msg = f"{file} has no sign-in links."
        raise SimulationError(msg)
    return links
