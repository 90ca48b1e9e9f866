"""Runs the migrations; the database's URL comes from the caller, or from the app's settings."""

from typing import Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext

from app.database import connect
from app.models import Base
from app.models.base import UtcDateTime
from app.settings import Settings


def render_item(kind: str, item: object, _context: AutogenContext) -> str | Literal[False]:
    """Write times as plain SQLAlchemy types, so that a migration does not depend on the app's code."""
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    return False


def run() -> None:
    """Apply the migrations, or compare the models with the database, in one transaction."""
    url = context.config.attributes.get("url") or Settings().database_url
    database = connect(url)
    with database.writing.connect() as connection:
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
    database.dispose()


run()
