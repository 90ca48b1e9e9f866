"""External datasets, training sets; API tokens expire and say when they were used last."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    """Move the schema forward."""
    op.create_table('external_datasets',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('name', sa.String(length=100), nullable=False),
    sa.Column('source_format', sa.Enum('jsonl', 'parquet', name='fileformat', native_enum=False, create_constraint=True, length=40), nullable=False),
    sa.Column('source_sha256', sa.String(length=64), nullable=False),
    sa.Column('manifest_sha256', sa.String(length=64), nullable=False),
    sa.Column('manifest', sa.JSON(), nullable=False),
    sa.Column('rows', sa.Integer(), nullable=False),
    sa.Column('objective', sa.Enum('helpfulness', 'safety', name='objective', native_enum=False, create_constraint=True, length=40), nullable=True),
    sa.Column('licence', sa.String(length=200), nullable=False),
    sa.Column('source', sa.Text(), nullable=False),
    sa.Column('created_by', sa.Uuid(), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.CheckConstraint('rows > 0', name=op.f('ck_external_datasets_there_are_rows')),
    sa.ForeignKeyConstraint(['created_by'], ['people.id'], name=op.f('fk_external_datasets_created_by_people')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_external_datasets')),
    sa.UniqueConstraint('name', name=op.f('uq_external_datasets_name'))
    )
    op.create_table('training_sets',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('name', sa.String(length=100), nullable=False),
    sa.Column('digest', sa.String(length=64), nullable=False),
    sa.Column('definition', sa.JSON(), nullable=False),
    sa.Column('counts', sa.JSON(), nullable=False),
    sa.Column('created_by', sa.Uuid(), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['created_by'], ['people.id'], name=op.f('fk_training_sets_created_by_people')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_training_sets')),
    sa.UniqueConstraint('name', name=op.f('uq_training_sets_name'))
    )
    moment = "DATETIME" if op.get_bind().dialect.name == "sqlite" else "TIMESTAMP WITH TIME ZONE"
    op.execute(f"ALTER TABLE api_tokens ADD COLUMN expires_at {moment}")
    op.execute(f"ALTER TABLE api_tokens ADD COLUMN last_used_at {moment}")


def downgrade() -> None:
    """Move the schema back."""
    op.execute("ALTER TABLE api_tokens DROP COLUMN last_used_at")
    op.execute("ALTER TABLE api_tokens DROP COLUMN expires_at")
    op.drop_table('training_sets')
    op.drop_table('external_datasets')
