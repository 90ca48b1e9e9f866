"""Datasets that are to be written, while they are; the statistics of settled batches."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    """Move the schema forward."""
    op.create_table(
        "freezes",
        sa.Column("batch_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("frozen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("excluded_annotators", sa.JSON(), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("holder", sa.String(length=32), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("rows_written", sa.Integer(), nullable=False),
        sa.Column("rows_expected", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.CheckConstraint("version > 0", name=op.f("ck_freezes_version_counts_from_one")),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name=op.f("fk_freezes_batch_id_batches")),
        sa.PrimaryKeyConstraint("batch_id", name=op.f("pk_freezes")),
    )
    op.create_table(
        "kept_insights",
        sa.Column("batch_id", sa.Uuid(), nullable=False),
        sa.Column("counted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("took_s", sa.Double(), nullable=False),
        sa.Column("statistics", sa.JSON(), nullable=False),
        sa.Column("work", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name=op.f("fk_kept_insights_batch_id_batches")),
        sa.PrimaryKeyConstraint("batch_id", name=op.f("pk_kept_insights")),
    )


def downgrade() -> None:
    """Move the schema back."""
    op.drop_table("kept_insights")
    op.drop_table("freezes")
