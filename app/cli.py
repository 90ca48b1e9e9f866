"""The ``preferably`` command: set up, run, invite, register checkpoints, export datasets, simulate."""

import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from alembic import command
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from rich.console import Console
from sqlalchemy.exc import OperationalError

from app import local, serving
from app.accounts import service as accounts
from app.batches.reconciler import reconcile as reconcile_batches
from app.checkpoints import service as checkpoints
from app.database import Database, alembic_config, connect, require_current_schema
from app.datasets.commands import commands as dataset_commands
from app.errors import AppError
from app.external.commands import import_dataset, list_external
from app.models import PersonRole, TokenScope, now
from app.pool.commands import commands as prompt_commands
from app.settings import Settings
from app.simulation.commands import simulate
from app.training_sets.commands import download_set, list_sets
from contract.checkpoint_files import inspect_checkpoint
from contract.errors import ContractError

cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
# The packages of external datasets and training sets know that of datasets; their commands join its own here.
dataset_commands.command("import")(import_dataset)
dataset_commands.command("external")(list_external)
dataset_commands.command("sets")(list_sets)
dataset_commands.command("download-set")(download_set)
cli.add_typer(dataset_commands, name="dataset")
cli.add_typer(prompt_commands, name="prompts")
cli.command()(simulate)

_EXIT_EXPECTED = 2
_CONSOLE = Console(soft_wrap=True, highlight=False)


@cli.command()
def up(
    port: Annotated[int, typer.Option(help="Where the web app listens.")] = 8000,
    data_dir: Annotated[Path, typer.Option(help="Where everything is kept.")] = Path("var"),
    checkpoint: Annotated[
        Path | None, typer.Option(help="A chat checkpoint to sample from; without one, the demo checkpoint.")
    ] = None,
) -> None:
    """Run a whole installation on this machine, and print sign-in links."""
    settings = Settings(data_dir=data_dir, public_url=f"http://127.0.0.1:{port}")
    local.run(settings, port=port, checkpoint=checkpoint, console=_CONSOLE)


@cli.command()
def migrate() -> None:
    """Bring the database up to this version."""
    settings = Settings()
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    command.upgrade(alembic_config(settings.database_url), "head")
    _CONSOLE.print("The database is up to date.")


@cli.command()
def serve(
    host: Annotated[str, typer.Option()] = "127.0.0.1",
    port: Annotated[int, typer.Option()] = 8000,
    processes: Annotated[int, typer.Option(min=1, help="How many processes serve it; one per core is good.")] = 1,
) -> None:
    """Run the web app. The database must be migrated."""
    _ready_database()
    local.require_free_port(port)
    serving.serve("app.main:create_served_app", host=host, port=port, processes=processes)


@cli.command()
def invite(
    name: Annotated[str, typer.Argument(help="How the person is called.")],
    role: Annotated[PersonRole, typer.Option(help="What the person is here for.")] = PersonRole.ANNOTATOR,
) -> None:
    """Print a one-time sign-in link for somebody, who is added if there is no such person yet."""
    settings, database = _ready_database()
    with database.write() as session:
        person = accounts.get_or_create_person(session, name, role)
        token = accounts.issue_sign_in_link(session, person, hours=settings.sign_in_link_hours)
    _CONSOLE.print(f"{settings.public_url}/sign-in/{token}")


@cli.command()
def token(
    name: Annotated[str, typer.Argument(help="What the token is for.")],
    scope: Annotated[TokenScope, typer.Option(help="What it may do.")],
    days: Annotated[
        int | None, typer.Option(min=1, max=3650, help="For how long it is valid; otherwise until it is revoked.")
    ] = None,
) -> None:
    """Print a new API token; it is shown only now."""
    _, database = _ready_database()
    with database.write() as session:
        expires_in = timedelta(days=days) if days is not None else None
        _CONSOLE.print(accounts.create_api_token(session, name, scope, expires_in=expires_in))


@cli.command()
def checkpoint(
    folder: Annotated[Path, typer.Argument(help="A chat checkpoint in Hugging Face format.")],
    name: Annotated[str | None, typer.Option(help="Its name; without one, the folder's.")] = None,
    *,
    promote: Annotated[bool, typer.Option("--promote", help="Draw the next batch from it.")] = False,
    open_batch: Annotated[bool, typer.Option("--open-batch", help="Draw the open batch from it too.")] = False,
) -> None:
    """Register a chat checkpoint, and promote it if asked."""
    files = inspect_checkpoint(folder, name=name)
    _, database = _ready_database()
    with database.write() as session:
        row = checkpoints.register(session, files)
        if promote:
            checkpoints.promote(session, row, for_open_batch=open_batch)
        _CONSOLE.print(f"{row.name}  {row.digest}{'  promoted' if promote else ''}")


@cli.command()
def reconcile() -> None:
    """Take the due steps of the weekly cycle now, as every app process does by itself."""
    settings, database = _ready_database()
    settings.ensure_secrets()
    steps = 0
    while taken := reconcile_batches(database, settings, now()):
        steps += taken
    _CONSOLE.print(f"{steps} step{'' if steps == 1 else 's'} taken.")


def main() -> None:
    """Run a command; an expected failure is one clear message and exit status 2, without a traceback."""
    try:
        cli()
    except (AppError, ContractError) as error:
        _refuse(str(error))
    except ValidationError as error:
        _refuse("\n".join(_setting_problem(detail) for detail in error.errors()))
    except OperationalError as error:
        _refuse(f"The database does not answer: {error.orig}")


def _ready_database() -> tuple[Settings, Database]:
    settings = Settings()
    database = connect(settings.database_url)
    require_current_schema(database, settings.database_url)
    return settings, database


def _setting_problem(detail: ErrorDetails) -> str:
    name = "_".join(str(part) for part in detail["loc"]).upper()
    return f"PREFERABLY_{name}: {detail['msg']}."


def _refuse(message: str) -> None:
    Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(message, style="red")
    sys.exit(_EXIT_EXPECTED)
