"""The annotator's workspace: places at comparisons, drafts, the prompt pool, overlap, further feedback."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

_RISKS = "'illicit_activities', 'harmful_activities', 'unqualified_advice'"
_VECTORS = "'psychological', 'logic', 'syntactic', 'semantic', 'perspective', 'non_english', 'other'"
# Written as SQL that both databases take: SQLite can add a column with its constraints in place, but not a
# constraint alone, for which Alembic would copy the whole table and lose its CHECKs.
_COLUMNS = {
    "annotation_revisions": ("chosen_quality INTEGER", "rejected_quality INTEGER", "edited_text TEXT"),
    "annotations": (
        "chosen_quality INTEGER",
        "rejected_quality INTEGER CONSTRAINT ck_annotations_quality_is_from_1_to_7 CHECK ("
        "chosen_quality BETWEEN 1 AND 7 AND rejected_quality BETWEEN 1 AND 7 "
        "OR chosen_quality IS NULL AND rejected_quality IS NULL)",
        "edited_text TEXT",
    ),
    "batches": (
        "pool_share {double} DEFAULT 0 NOT NULL CONSTRAINT ck_batches_pool_share_is_a_share "
        "CHECK (pool_share >= 0 AND pool_share <= 1)",
        "overlap_share {double} DEFAULT 0 NOT NULL CONSTRAINT ck_batches_overlap_share_is_a_share "
        "CHECK (overlap_share >= 0 AND overlap_share <= 1)",
        "overlap_annotations INTEGER DEFAULT 3 NOT NULL CONSTRAINT ck_batches_overlap_is_of_two_or_more "
        "CHECK (overlap_annotations >= 2)",
        "skip_policy VARCHAR(40) DEFAULT 'retire' NOT NULL CONSTRAINT ck_batches_skippolicy "
        "CHECK (skip_policy IN ('retire', 'hand_on'))",
        "response_display VARCHAR(40) DEFAULT 'together' NOT NULL CONSTRAINT ck_batches_responsedisplay "
        "CHECK (response_display IN ('together', 'as_made'))",
        "rationale_mode VARCHAR(40) DEFAULT 'optional' NOT NULL CONSTRAINT ck_batches_rationalemode "
        "CHECK (rationale_mode IN ('off', 'optional', 'required'))",
        "asks_edit BOOLEAN DEFAULT FALSE NOT NULL",
        "asks_quality BOOLEAN DEFAULT FALSE NOT NULL",
    ),
    "comparisons": (
        f"risk_category VARCHAR(40) CONSTRAINT ck_comparisons_riskcategory CHECK (risk_category IN ({_RISKS}))",
        f"attack_vector VARCHAR(40) CONSTRAINT ck_comparisons_attackvector CHECK (attack_vector IN ({_VECTORS})) "
        "CONSTRAINT ck_comparisons_only_safety_has_risks "
        "CHECK (objective = 'safety' OR risk_category IS NULL AND attack_vector IS NULL)",
        "annotations_wanted INTEGER DEFAULT 1 NOT NULL",
        "open_places INTEGER DEFAULT 0 NOT NULL CONSTRAINT ck_comparisons_open_places_are_wanted "
        "CHECK (open_places >= 0 AND open_places <= annotations_wanted)",
    ),
    "people": ("last_seen_at {moment}",),
}


def upgrade() -> None:
    """Move the schema forward."""
    _create_tables()
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    types = {"double": "DOUBLE" if is_sqlite else "DOUBLE PRECISION"}
    types |= {"moment": "DATETIME" if is_sqlite else "TIMESTAMP WITH TIME ZONE"}
    for table, columns in _COLUMNS.items():
        for column in columns:
            op.execute(f"ALTER TABLE {table} ADD COLUMN {column.format_map(types)}")
    op.create_index(
        "ix_comparisons_open_places",
        "comparisons",
        ["batch_id", "id"],
        unique=False,
        sqlite_where=sa.text("open_places > 0"),
        postgresql_where=sa.text("open_places > 0"),
    )
    _let_the_pool_own_conversations()
    _give_everybody_their_place()
    op.execute("ALTER TABLE comparisons DROP COLUMN shown_at")


def _let_the_pool_own_conversations() -> None:
    with op.batch_alter_table("conversations") as conversations:
        conversations.add_column(sa.Column("pool_prompt_id", sa.Uuid(), nullable=True))
        conversations.alter_column("annotator_id", existing_type=sa.Uuid(), nullable=True)
        conversations.create_foreign_key(
            op.f("fk_conversations_pool_prompt_id_pool_prompts"), "pool_prompts", ["pool_prompt_id"], ["id"]
        )


def _give_everybody_their_place() -> None:
    """Every comparison so far was its author's, and what they did counts for their days (in UTC)."""
    op.execute(
        "INSERT INTO assignments (comparison_id, annotator_id, state, shown_at, created_at) "
        "SELECT comparisons.id, conversations.annotator_id, "
        "CASE comparisons.state WHEN 'annotated' THEN 'done' WHEN 'skipped' THEN 'skipped' WHEN 'abandoned' THEN 'given_back' ELSE 'held' END, "
        "comparisons.shown_at, comparisons.created_at "
        "FROM comparisons JOIN conversations ON conversations.id = comparisons.conversation_id"
    )
    in_utc = "" if op.get_bind().dialect.name == "sqlite" else " AT TIME ZONE 'UTC'"
    done = "SELECT annotator_id, batch_id, objective, day, SUM(annotated), SUM(annotated), SUM(skipped), SUM(seconds), 0"
    op.execute(
        "INSERT INTO work_days (annotator_id, batch_id, objective, day, annotations, comparisons, skips, seconds, "
        f"pool_prompts) {done} FROM ("
        f"SELECT annotations.annotator_id, batch_id, comparisons.objective, DATE(annotations.created_at{in_utc}) AS day, "
        "1 AS annotated, 0 AS skipped, seconds FROM annotations JOIN comparisons ON comparisons.id = comparison_id "
        "WHERE is_primary UNION ALL "
        f"SELECT skips.annotator_id, batch_id, comparisons.objective, DATE(skips.at{in_utc}), 0, 1, 0 "
        "FROM skips JOIN comparisons ON comparisons.id = comparison_id) AS done "
        "GROUP BY annotator_id, batch_id, objective, day"
    )


def _create_tables() -> None:
    op.create_table('drafts',
    sa.Column('annotator_id', sa.Uuid(), nullable=False),
    sa.Column('form_id', sa.Uuid(), nullable=False),
    sa.Column('kind', sa.Enum('first_prompt', 'next_prompt', 'judgement', name='draftkind', native_enum=False, create_constraint=True, length=40), nullable=False),
    sa.Column('fields', sa.JSON(), nullable=False),
    sa.Column('updated_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['annotator_id'], ['people.id'], name=op.f('fk_drafts_annotator_id_people')),
    sa.PrimaryKeyConstraint('annotator_id', 'form_id', name=op.f('pk_drafts'))
    )
    op.create_table('flags',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('comparison_id', sa.Uuid(), nullable=False),
    sa.Column('annotator_id', sa.Uuid(), nullable=False),
    sa.Column('kind', sa.Enum('names_its_model', 'personal_data', 'guideline_unclear', 'other', name='flagkind', native_enum=False, create_constraint=True, length=40), nullable=False),
    sa.Column('note', sa.Text(), nullable=False),
    sa.Column('at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['annotator_id'], ['people.id'], name=op.f('fk_flags_annotator_id_people')),
    sa.ForeignKeyConstraint(['comparison_id'], ['comparisons.id'], name=op.f('fk_flags_comparison_id_comparisons')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_flags')),
    sa.UniqueConstraint('comparison_id', 'annotator_id', 'kind', name=op.f('uq_flags_comparison_id_annotator_id_kind'))
    )
    op.create_index(op.f('ix_flags_annotator_id'), 'flags', ['annotator_id'], unique=False)
    op.create_table('guideline_reads',
    sa.Column('annotator_id', sa.Uuid(), nullable=False),
    sa.Column('guideline_id', sa.Uuid(), nullable=False),
    sa.Column('at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['annotator_id'], ['people.id'], name=op.f('fk_guideline_reads_annotator_id_people')),
    sa.ForeignKeyConstraint(['guideline_id'], ['guidelines.id'], name=op.f('fk_guideline_reads_guideline_id_guidelines')),
    sa.PrimaryKeyConstraint('annotator_id', 'guideline_id', name=op.f('pk_guideline_reads'))
    )
    op.create_table('pool_prompts',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('objective', sa.Enum('helpfulness', 'safety', name='objective', native_enum=False, create_constraint=True, length=40), nullable=False),
    sa.Column('turns', sa.JSON(), nullable=False),
    sa.Column('digest', sa.String(length=64), nullable=False),
    sa.Column('source', sa.String(length=200), nullable=False),
    sa.Column('risk_category', sa.Enum('illicit_activities', 'harmful_activities', 'unqualified_advice', name='riskcategory', native_enum=False, create_constraint=True, length=40), nullable=True),
    sa.Column('attack_vector', sa.Enum('psychological', 'logic', 'syntactic', 'semantic', 'perspective', 'non_english', 'other', name='attackvector', native_enum=False, create_constraint=True, length=40), nullable=True),
    sa.Column('state', sa.Enum('waiting', 'used', 'retired', name='poolpromptstate', native_enum=False, create_constraint=True, length=40), nullable=False),
    sa.Column('added_by', sa.Uuid(), nullable=True),
    sa.Column('added_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('used_at', sa.DateTime(timezone=True), nullable=True),
    sa.CheckConstraint("objective = 'safety' OR risk_category IS NULL AND attack_vector IS NULL", name=op.f('ck_pool_prompts_only_safety_has_risks')),
    sa.ForeignKeyConstraint(['added_by'], ['people.id'], name=op.f('fk_pool_prompts_added_by_people')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_pool_prompts')),
    sa.UniqueConstraint('objective', 'digest', name=op.f('uq_pool_prompts_objective_digest'))
    )
    op.create_index('ix_pool_prompts_objective_state', 'pool_prompts', ['objective', 'state', 'id'], unique=False)

    op.create_table('work_days',
    sa.Column('annotator_id', sa.Uuid(), nullable=False),
    sa.Column('batch_id', sa.Uuid(), nullable=False),
    sa.Column('objective', sa.Enum('helpfulness', 'safety', name='objective', native_enum=False, create_constraint=True, length=40), nullable=False),
    sa.Column('day', sa.Date(), nullable=False),
    sa.Column('annotations', sa.Integer(), nullable=False),
    sa.Column('comparisons', sa.Integer(), nullable=False),
    sa.Column('skips', sa.Integer(), nullable=False),
    sa.Column('seconds', sa.Double(), nullable=False),
    sa.Column('pool_prompts', sa.Integer(), nullable=False),
    sa.CheckConstraint('comparisons <= annotations', name=op.f('ck_work_days_comparisons_are_annotated')),
    sa.ForeignKeyConstraint(['annotator_id'], ['people.id'], name=op.f('fk_work_days_annotator_id_people')),
    sa.ForeignKeyConstraint(['batch_id'], ['batches.id'], name=op.f('fk_work_days_batch_id_batches')),
    sa.PrimaryKeyConstraint('annotator_id', 'batch_id', 'objective', 'day', name=op.f('pk_work_days'))
    )
    op.create_index('ix_work_days_batch_id', 'work_days', ['batch_id'], unique=False)

    op.create_table('assignments',
    sa.Column('comparison_id', sa.Uuid(), nullable=False),
    sa.Column('annotator_id', sa.Uuid(), nullable=False),
    sa.Column('state', sa.Enum('held', 'done', 'skipped', 'given_back', name='assignmentstate', native_enum=False, create_constraint=True, length=40), nullable=False),
    sa.Column('held_until', sa.DateTime(timezone=True), nullable=True),
    sa.Column('shown_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.CheckConstraint("held_until IS NULL OR state = 'held'", name=op.f('ck_assignments_only_held_places_expire')),
    sa.ForeignKeyConstraint(['annotator_id'], ['people.id'], name=op.f('fk_assignments_annotator_id_people')),
    sa.ForeignKeyConstraint(['comparison_id'], ['comparisons.id'], name=op.f('fk_assignments_comparison_id_comparisons')),
    sa.PrimaryKeyConstraint('comparison_id', 'annotator_id', name=op.f('pk_assignments'))
    )
    op.create_index('ix_assignments_annotator_id_state', 'assignments', ['annotator_id', 'state'], unique=False)
    op.create_index('ix_assignments_held_until', 'assignments', ['held_until'], unique=False, sqlite_where=sa.text('held_until IS NOT NULL'), postgresql_where=sa.text('held_until IS NOT NULL'))


def downgrade() -> None:
    """Move the schema back."""
    msg = "Annotations by several annotators, drafts and pool prompts have no place in the schema before this one."
    raise NotImplementedError(msg)
