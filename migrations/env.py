"""Runs the migrations; the database's URL comes from the caller, or from the app's settings."""

from typing import Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import Connection

from app.database import connect
from app.models import Base
from app.models.base import UtcDateTime
from app.settings import Settings


def render_item(kind: str, item: object, _context: AutogenContext) -> str | Literal[False]:
    """Write times as plain SQLAlchemy types, so that a migration does not depend on the app's code."""
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    return False


def _let_tables_be_copied(connection: Connection) -> None:
    """Turn SQLite's foreign keys off: Alembic drops a table after copying it, which would break references to it.

    It must be said before the transaction begins, and to the driver: SQLAlchemy would begin one.
    """
    if connection.dialect.name == "sqlite":
        driver = connection.connection.driver_connection
        driver.execute("PRAGMA foreign_keys=OFF")  # type: ignore[union-attr]


def _require_sound_references(connection: Connection) -> None:
    """Refuse to commit a migration after which a SQLite row refers to nothing."""
    if connection.dialect.name == "sqlite":
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        if broken:
            msg = f"The migration would leave {len(broken)} rows that refer to nothing, the first in {broken[0][0]}."
            raise RuntimeError(msg)


def run() -> None:
    """Apply the migrations, or compare the models with the database, in one transaction."""
    url = context.config.attributes.get("url") or Settings().database_url
    database = connect(url)
    with database.writing.connect() as connection:
        _let_tables_be_copied(connection)
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            # SQLite cannot alter a table in place; batch mode copies it.
            render_as_batch=connection.dialect.name == "sqlite",
            render_item=render_item,
            autogenerate_plugins=["alembic.autogenerate.*", "alembic.ext.checkconstraint_byname"],
        )
        with context.begin_transaction():
            context.run_migrations()
            _require_sound_references(connection)
    database.dispose()


run()
