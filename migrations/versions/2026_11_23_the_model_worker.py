"""The model worker: how it stands, what it can serve and what it refuses; provenance; generations of checkpoints."""

from collections.abc import Sequence

from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

# As in 0002: SQL that both databases take, since SQLite cannot add a constraint without its column.
_COLUMNS = {
    "batch_variants": (
        "generation VARCHAR(40) DEFAULT 'newest' NOT NULL CONSTRAINT ck_batch_variants_generation "
        "CHECK (generation IN ('newest', 'previous'))",
    ),
    "responses": (
        "generation VARCHAR(40) DEFAULT 'newest' NOT NULL CONSTRAINT ck_responses_generation "
        "CHECK (generation IN ('newest', 'previous'))",
        "prompt_digest VARCHAR(64)",
        "stop_token_ids JSON",
    ),
    "workers": (
        "available JSON DEFAULT '{braces}' NOT NULL",
        "refused JSON DEFAULT '{braces}' NOT NULL",
        "staging VARCHAR(64)",
        "max_pairs INTEGER DEFAULT 0 NOT NULL",
        "free_pairs INTEGER DEFAULT 0 NOT NULL",
        "tokens_per_s {double} DEFAULT 0 NOT NULL",
        "last_error TEXT",
        "last_error_at {moment}",
        "stopped_at {moment}",
    ),
}


def upgrade() -> None:
    """Move the schema forward."""
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    words = {
        "braces": "{}",
        "double": "DOUBLE" if is_sqlite else "DOUBLE PRECISION",
        "moment": "DATETIME" if is_sqlite else "TIMESTAMP WITH TIME ZONE",
    }
    for table, columns in _COLUMNS.items():
        for column in columns:
            op.execute(f"ALTER TABLE {table} ADD COLUMN {column.format_map(words)}")


def downgrade() -> None:
    """Move the schema back."""
    for table, columns in _COLUMNS.items():
        for column in columns:
            op.execute(f"ALTER TABLE {table} DROP COLUMN {column.split()[0]}")
