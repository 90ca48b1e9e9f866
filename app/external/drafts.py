"""Imports that wait to be confirmed: checked, written, and nowhere to be seen yet."""

import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, BinaryIO, Final
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from app.accounts.forms import StorableText
from app.external.normalising import Normalised, normalise
from app.models import new_id, now
from app.waiting_imports import WaitingImports
from contract.training_set import set_name
from contract.vocabulary import Objective

_SOURCE: Final = "source"


def _none_if_empty(typed: object) -> object:
    return None if typed == "" else typed


class Wanted(BaseModel):
    """What somebody says about the file that they want to import."""

    name: Annotated[str, AfterValidator(str.strip), AfterValidator(set_name)]
    objective: Annotated[Objective | None, BeforeValidator(_none_if_empty)] = None
    licence: StorableText = Field(default="", max_length=200)
    source: StorableText = Field(default="", max_length=2000)


class Draft(BaseModel):
    """A checked file that can be imported, if no row of it is malformed."""

    id: UUID
    wanted: Wanted
    source_file: str
    normalised: Normalised
    checked_at: datetime

    @property
    def is_importable(self) -> bool:
        """Whether every row is well-formed and some are usable."""
        return self.normalised.problem_count == 0 and self.normalised.rows > 0


def check(
    root: Path,
    wanted: Wanted,
    source: Path | BinaryIO,
    source_file: str,
    on_row: Callable[[], None] = lambda: None,
) -> Draft:
    """Check a file, and keep its usable rows until somebody confirms the import, for a day at most.

    Raises:
        SourceFileError: The file as a whole cannot be read.

    """
    draft_id = new_id()
    with _waiting(root).new(draft_id) as folder:
        # An upload is written down first: Parquet is read from its end.
        place = source if isinstance(source, Path) else _write_down(source, folder / _SOURCE)
        normalised = normalise(place, folder, on_row)
        (folder / _SOURCE).unlink(missing_ok=True)
        draft = Draft(id=draft_id, wanted=wanted, source_file=source_file, normalised=normalised, checked_at=now())
        _waiting(root).keep(draft)
    return draft


def get(root: Path, draft_id: UUID) -> Draft:
    """An import that waits to be confirmed.

    Raises:
        NoSuchImportError: There is none, or none any more.

    """
    return _waiting(root).get(draft_id)


def discard(root: Path, draft_id: UUID) -> None:
    """Throw away an import; nothing happens if there is none."""
    _waiting(root).discard(draft_id)


def file_of(root: Path, draft: Draft, name: str) -> Path:
    """Where a file of an import lies until it is confirmed."""
    return _waiting(root).folder(draft.id) / name


def _waiting(root: Path) -> WaitingImports[Draft]:
    return WaitingImports(root / ".imports", Draft)


def _write_down(source: BinaryIO, place: Path) -> Path:
    source.seek(0)
    with place.open("wb") as stream:
        shutil.copyfileobj(source, stream)
    return place
