"""The schedule of batches: weekday, time and template; weeks that are skipped; the share of longer conversations."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    """Move the schema forward."""
    op.create_table(
        "schedules",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("weekday", sa.Integer(), nullable=False),
        sa.Column("opens_at", sa.Time(), nullable=False),
        sa.Column("time_zone", sa.String(length=60), nullable=False),
        sa.Column("follows", sa.Boolean(), nullable=False),
        sa.Column("template", sa.JSON(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_schedules_there_is_one")),
        sa.CheckConstraint("weekday >= 0 AND weekday <= 6", name=op.f("ck_schedules_weekday_is_of_a_week")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedules")),
    )
    op.create_table(
        "skipped_weeks",
        sa.Column("starts_on", sa.Date(), nullable=False),
        sa.Column("opens_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closes_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("time_zone", sa.String(length=60), nullable=False),
        sa.Column("skipped_by", sa.Uuid(), nullable=True),
        sa.Column("skipped_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("closes_at > opens_at", name=op.f("ck_skipped_weeks_closes_after_it_opens")),
        sa.ForeignKeyConstraint(["skipped_by"], ["people.id"], name=op.f("fk_skipped_weeks_skipped_by_people")),
        sa.PrimaryKeyConstraint("starts_on", name=op.f("pk_skipped_weeks")),
    )
    # As in 0002: SQL that both databases take. Until now every conversation could go on.
    double = "DOUBLE" if op.get_bind().dialect.name == "sqlite" else "DOUBLE PRECISION"
    op.execute(
        f"ALTER TABLE batches ADD COLUMN multi_turn_share {double} DEFAULT 1 NOT NULL "
        "CONSTRAINT ck_batches_multi_turn_share_is_a_share CHECK (multi_turn_share >= 0 AND multi_turn_share <= 1)"
    )


def downgrade() -> None:
    """Move the schema back."""
    op.execute("ALTER TABLE batches DROP COLUMN multi_turn_share")
    op.drop_table("skipped_weeks")
    op.drop_table("schedules")
