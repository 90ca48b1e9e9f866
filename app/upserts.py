"""Adds a row, or changes the one that is there, in one statement that both databases know."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnCollection
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.models import Base


class Upsert:
    """The statement for one table, built once: building one costs more than running it."""

    def __init__(
        self,
        table: type[Base],
        keys: Sequence[str],
        changes: Callable[[ColumnCollection[str, Any]], Mapping[str, Any]],
    ) -> None:
        """Prepare it. ``changes`` gives the new values of a row that is there, from those that were to be added."""
        on_postgresql, on_sqlite = postgresql.insert(table), sqlite.insert(table)
        self._by_dialect = {
            "postgresql": on_postgresql.on_conflict_do_update(
                index_elements=keys, set_=changes(on_postgresql.excluded)
            ),
            "sqlite": on_sqlite.on_conflict_do_update(index_elements=keys, set_=changes(on_sqlite.excluded)),
        }

    def run(self, session: Session, values: Mapping[str, Any]) -> None:
        """Add the row, or change it. All columns must be given; rows that the session holds do not notice."""
        session.connection().execute(self._by_dialect[session.get_bind().dialect.name], dict(values))
