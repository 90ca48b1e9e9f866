"""Imports that wait to be confirmed: checked, written down, and nowhere to be seen yet."""

import shutil
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Generic, Protocol, Self, TypeVar
from uuid import UUID

from app.errors import NotFoundError

_REPORT: Final = "report.json"
_KEPT_S: Final = 24 * 3600


class NoSuchImportError(NotFoundError):
    """An import was confirmed or discarded already, or nobody confirmed it in time."""


class Report(Protocol):
    """What was found in a file; a Pydantic model with the import's id."""

    id: UUID

    def model_dump_json(self) -> str:
        """The report as JSON."""

    @classmethod
    def model_validate_json(cls, json_data: bytes) -> Self:
        """The report again."""


ReportT = TypeVar("ReportT", bound=Report)


class WaitingImports(Generic[ReportT]):
    """A folder of imports, each kept until somebody confirms or discards it, for a day at most."""

    def __init__(self, root: Path, report: type[ReportT]) -> None:
        self._root = root
        self._report = report

    @contextmanager
    def new(self, import_id: UUID) -> Generator[Path]:
        """An empty folder for what is to be kept; removed again if the block fails."""
        self._remove_old()
        folder = self.folder(import_id)
        folder.mkdir(parents=True)
        try:
            yield folder
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def keep(self, report: ReportT) -> None:
        """Write the report down; from now on the import can be confirmed."""
        (self.folder(report.id) / _REPORT).write_text(report.model_dump_json(), encoding="utf-8")

    def get(self, import_id: UUID) -> ReportT:
        """An import that waits to be confirmed.

        Raises:
            NoSuchImportError: There is none, or none any more.

        """
        try:
            content = (self.folder(import_id) / _REPORT).read_bytes()
        except FileNotFoundError:
            msg = (
                "This import was confirmed or discarded already, or has waited for more than a day. "
                "Upload the file again."
            )
            raise NoSuchImportError(msg) from None
        return self._report.model_validate_json(content)

    def discard(self, import_id: UUID) -> None:
        """Throw away an import; nothing happens if there is none."""
        shutil.rmtree(self.folder(import_id), ignore_errors=True)

    def folder(self, import_id: UUID) -> Path:
        """Where the files of an import lie until it is confirmed."""
        return self._root / import_id.hex

    def _remove_old(self) -> None:
        for folder in self._root.glob("*"):
            if time.time() - folder.stat().st_mtime > _KEPT_S:
                shutil.rmtree(folder, ignore_errors=True)
