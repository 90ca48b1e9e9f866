"""``preferably dataset import``: bring in preference data that was collected elsewhere."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.table import Table

from app.datasets.console import (
    ERR,
    OUT,
    TokenFileOption,
    UrlOption,
    UsageError,
    installation,
    remote_of,
    row_progress,
    show,
)
from app.datasets.download import EXTERNAL
from app.external import service
from app.external.api import ExternalEntry
from app.external.drafts import Draft, Wanted
from contract.external import explain
from contract.vocabulary import Objective


def import_dataset(
    file: Annotated[Path, typer.Argument(help="Parquet, or a JSON object a line, gzipped or not.")],
    name: Annotated[str, typer.Option(help="What training sets call it; it cannot be changed later.")],
    objective: Annotated[Objective | None, typer.Option(help="What its authors judged.")] = None,
    licence: Annotated[str, typer.Option(help="For example MIT.")] = "",
    source: Annotated[str, typer.Option(help="Where it comes from.")] = "",
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what the file holds.")] = False,
) -> None:
    """Import a file of preference data: all usable rows of it or, where a row is malformed, nothing."""
    if not file.is_file():
        msg = f"There is no file {file}."
        raise UsageError(msg)
    try:
        wanted = Wanted(name=name, objective=objective, licence=licence, source=source)
    except ValidationError as error:
        raise UsageError(explain(error)) from None
    with installation() as (settings, database):
        with database.read() as session:
            service.require_free_name(session, name)
        with row_progress(name) as on_rows:
            draft = service.check(wanted, file, file.name, settings, lambda: on_rows(1))
        try:
            _report(draft)
            if dry_run:
                return
            with database.write() as session:
                dataset = service.confirm(session, draft, settings)
                OUT.print(f"{dataset.name}: {dataset.rows:,} rows imported. Digest {dataset.manifest_sha256}")
        finally:
            service.discard(draft.id, settings)


def list_external(url: UrlOption = None, token_file: TokenFileOption = None) -> None:
    """Show the external datasets."""
    remote = remote_of(url, token_file)
    if remote is None:
        with installation() as (_, database), database.read() as session:
            entries = [ExternalEntry.of(dataset) for dataset in service.all_datasets(session)]
    else:
        entries = remote.parsed(list[ExternalEntry], EXTERNAL)
    table = Table("name", "objective", "rows", "licence", "sha256 of the manifest")
    for entry in entries:
        table.add_row(
            entry.name, entry.objective or "unknown", f"{entry.rows:,}", entry.licence or "-", entry.manifest_sha256
        )
    show(table)


def _report(draft: Draft) -> None:
    found = draft.normalised
    OUT.print(f"{draft.source_file}: {found.rows:,} usable rows, sha256 {found.source_sha256}")
    for form, count in found.forms.items():
        OUT.print(f"  {form.replace('_', ' ')}: {count:,}")
    if found.duplicates:
        OUT.print(f"  exact copies, kept once: {found.duplicates:,}")
    for reason, count in found.left_out.items():
        OUT.print(f"  left out, {reason}: {count:,}")
    for problem in found.problems:
        ERR.print(f"{draft.source_file}, {problem}", style="red")
    if found.problem_count > len(found.problems):
        ERR.print(f"... and {found.problem_count - len(found.problems):,} more.", style="red")
