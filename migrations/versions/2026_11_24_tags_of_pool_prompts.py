"""Prompts of the pool have tags of the admin's own."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    """Move the schema forward."""
    op.add_column("pool_prompts", sa.Column("tags", sa.JSON(), server_default="[]", nullable=False))


def downgrade() -> None:
    """Move the schema back."""
    op.execute("ALTER TABLE pool_prompts DROP COLUMN tags")
