"""A database with work in it moves to the present schema: nothing is lost, and everybody has their place."""

from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from alembic import command
from sqlalchemy import CheckConstraint, inspect, make_url, select, text
from sqlalchemy.exc import IntegrityError

from app.annotation import desk
from app.database import Database, alembic_config, connect, require_current_schema
from app.models import (
    Annotation,
    Assignment,
    AssignmentState,
    Base,
    Batch,
    Comparison,
    Conversation,
    Person,
    RationaleMode,
    Response,
    ResponseDisplay,
    SkipPolicy,
    WorkDay,
)
from contract.vocabulary import Generation, Objective
from tests.conftest import POSTGRESQL

ANN, BO = 1, 2
BATCH, OLD_BATCH = 10, 11
CHECKPOINT, GUIDELINE, SAFETY_GUIDELINE = 20, 21, 22
STATES = ("sampling", "ready", "annotated", "skipped", "failed", "equal_responses", "abandoned")
LATE = "2026-11-20 23:30:00.000000"
"""Half an hour before midnight in UTC: tomorrow in Tokyo already."""
EARLY = "2026-11-21 00:30:00.000000"


def key(number: int) -> str:
    """An id as both databases take it in SQL."""
    return UUID(int=number).hex


@pytest.fixture(params=["sqlite", "postgresql"])
def old_url(request: pytest.FixtureRequest, tmp_path: Path, worker_id: str) -> Iterator[str]:
    """A database at revision 0001; PostgreSQL's is in a country where the day begins earlier."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'old.db'}"
        command.upgrade(alembic_config(url), "0001")
        yield url
        return
    request.getfixturevalue("postgresql_url")
    name = f"preferably_old_{tmp_path.name[-20:]}_{worker_id}".lower()
    with psycopg.connect(POSTGRESQL, autocommit=True) as server:
        server.execute(f'CREATE DATABASE "{name}"')
        server.execute(f"ALTER DATABASE \"{name}\" SET timezone TO 'Asia/Tokyo'")
    url = make_url(POSTGRESQL).set(database=name).render_as_string(hide_password=False)
    command.upgrade(alembic_config(url), "0001")
    yield url
    with psycopg.connect(POSTGRESQL, autocommit=True) as server:
        server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def upgraded(old_url: str) -> Iterator[Database]:
    """The database after the upgrade, with the work of two annotators in it."""
    old = connect(old_url)
    with old.writing.begin() as connection:
        for statement in old_work(is_postgresql=not old_url.startswith("sqlite")):
            connection.execute(text(statement))
    old.dispose()
    command.upgrade(alembic_config(old_url), "head")
    database = connect(old_url)
    require_current_schema(database, old_url)
    yield database
    database.dispose()


class Rows:
    """Writes INSERT statements."""

    def __init__(self, *, is_postgresql: bool) -> None:
        self._zone = "+00" if is_postgresql else ""
        self.statements: list[str] = []

    def at(self, moment: str) -> str:
        """A moment in UTC, in SQL."""
        return f"'{moment}{self._zone}'"

    def add(self, table: str, values: Mapping[str, object]) -> None:
        """Insert a row, whose values are SQL."""
        self.statements.append(
            f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join(map(str, values.values()))})"
        )


def old_work(*, is_postgresql: bool) -> list[str]:
    """A frozen and an open batch: comparisons in all states, annotations of both objectives, skips."""
    rows = Rows(is_postgresql=is_postgresql)
    late = rows.at(LATE)
    for number, name in ((ANN, "Ann"), (BO, "Bo")):
        person = {"id": f"'{key(number)}'", "name": f"'{name}'", "name_key": f"'{name.lower()}'"}
        rows.add(
            "people", person | {"role": "'annotator'", "is_active": "TRUE", "is_excluded": "FALSE", "created_at": late}
        )
    digests = dict.fromkeys(("digest", "tokenizer_digest", "template_digest"), "'d'")
    checkpoint = {"id": f"'{key(CHECKPOINT)}'", "name": "'chat-1'", "architecture": "'Llama'", "weight_bytes": 1}
    rows.add("checkpoints", checkpoint | digests | {"registered_at": late})
    for number, objective in ((GUIDELINE, "helpfulness"), (SAFETY_GUIDELINE, "safety")):
        guideline = {"id": f"'{key(number)}'", "objective": f"'{objective}'", "version": 1, "text": "'Choose.'"}
        rows.add("guidelines", guideline | {"created_at": late})
    for number, batch, state in ((1, OLD_BATCH, "frozen"), (2, BATCH, "open")):
        _add_batch(rows, number, batch, state)
    for place, state in enumerate(STATES):
        _add_comparison(rows, 100 + 10 * place, OLD_BATCH if state == "abandoned" else BATCH, ANN, "helpfulness", state)
    # Bo's work around midnight, for both objectives and both batches.
    _add_comparison(rows, 300, BATCH, BO, "safety", "annotated", at=LATE)
    _add_comparison(rows, 310, BATCH, BO, "safety", "annotated", at=EARLY)
    _add_comparison(rows, 320, BATCH, BO, "safety", "annotated", at=EARLY)
    _add_comparison(rows, 330, BATCH, BO, "safety", "skipped", at=EARLY)
    _add_comparison(rows, 340, OLD_BATCH, BO, "helpfulness", "annotated", at=EARLY)
    return rows.statements


def _add_batch(rows: Rows, number: int, batch: int, state: str) -> None:
    values = {"id": f"'{key(batch)}'", "number": number, "state": f"'{state}'", "time_zone": "'Asia/Tokyo'"}
    values |= {"opens_at": rows.at("2026-11-16 00:00:00.000000"), "closes_at": rows.at("2026-11-23 00:00:00.000000")}
    values |= {"grace_minutes": 10, "turns_per_conversation": 6, "max_new_tokens": 256, "margin_scheme": "'small'"}
    values |= {"system_prompt": "''", "curriculum": "'Cooking'", "review_share": 0.25}
    rows.add("batches", values | {"held_out_share": 0.1, "held_out_max": 1000})
    rows.add("batch_targets", {"batch_id": f"'{key(batch)}'", "objective": "'safety'", "target": 7})


def _add_comparison(
    rows: Rows, number: int, batch: int, annotator: int, objective: str, state: str, at: str = LATE
) -> None:
    """A conversation with one comparison, its responses, and what was said about it."""
    moment = rows.at(at)
    common = {"batch_id": f"'{key(batch)}'", "objective": f"'{objective}'", "created_at": moment}
    own = {"annotator_id": f"'{key(annotator)}'"}
    conversation = {"id": f"'{key(number)}'", "source": "'written'", "state": "'active'"}
    rows.add("conversations", common | own | conversation)
    comparison = {"id": f"'{key(number + 1)}'", "conversation_id": f"'{key(number)}'", "turn": 1, "prompt": "'Tea?'"}
    shown_at = moment if state in {"ready", "annotated", "skipped"} else "NULL"
    rows.add("comparisons", common | comparison | {"state": f"'{state}'", "shown_at": shown_at})
    this = {"comparison_id": f"'{key(number + 1)}'"}
    for place, side in ((2, "a"), (3, "b")):
        response = {"id": f"'{key(number + place)}'", "side": f"'{side}'", "checkpoint_id": f"'{key(CHECKPOINT)}'"}
        response |= {"temperature": 1, "top_p": 0.9, "top_k": 0, "seed": place, "max_new_tokens": 64, "text": "'Hot.'"}
        rows.add("responses", this | response)
    if state == "annotated":
        guideline, safe = (GUIDELINE, "NULL") if objective == "helpfulness" else (SAFETY_GUIDELINE, "TRUE")
        said = {"chosen_response_id": f"'{key(number + 2)}'", "strength": "'better'", "rationale": "'Hotter'"}
        said |= {"chosen_safe": safe, "rejected_safe": safe, "revision": 1}
        annotation = {
            "id": f"'{key(number + 4)}'",
            "objective": f"'{objective}'",
            "guideline_id": f"'{key(guideline)}'",
        }
        annotation |= {"seconds": 12.5, "is_primary": "TRUE", "created_at": moment, "updated_at": moment}
        rows.add("annotations", this | own | said | annotation)
        revision = {"id": f"'{key(number + 5)}'", "annotation_id": f"'{key(number + 4)}'", "at": moment}
        rows.add("annotation_revisions", said | revision | {"author_id": own["annotator_id"]})
    if state == "skipped":
        skip = {"id": f"'{key(number + 6)}'", "reason": "'other'", "note": "''", "at": moment}
        rows.add("skips", this | own | skip)


def test_everybody_has_their_place(upgraded: Database) -> None:
    with upgraded.read() as session:
        rows = session.execute(
            select(Comparison.state, Assignment.state, Assignment.annotator_id, Assignment.shown_at).join(
                Assignment, Assignment.comparison_id == Comparison.id
            )
        ).all()
        own = [row for row in rows if row[2] == UUID(int=ANN)]
        assert len(rows) == len(STATES) + 5
        assert {str(state): place for state, place, _, _ in own} == {
            "sampling": AssignmentState.HELD,
            "ready": AssignmentState.HELD,
            "failed": AssignmentState.HELD,
            "equal_responses": AssignmentState.HELD,
            "annotated": AssignmentState.DONE,
            "skipped": AssignmentState.SKIPPED,
            "abandoned": AssignmentState.GIVEN_BACK,
        }
        shown = {str(state) for state, _, _, shown_at in own if shown_at is not None}
        assert shown == {"ready", "annotated", "skipped"}
        assert {f"{shown_at:%Y-%m-%d %H:%M %Z}" for *_, shown_at in own if shown_at} == {"2026-11-20 23:30 UTC"}
        assert set(session.scalars(select(Assignment.held_until))) == {None}
        assert set(session.execute(select(Comparison.annotations_wanted, Comparison.open_places))) == {(1, 0)}
        # What Ann had before her in the open batch is before her still.
        ann = session.get_one(Person, UUID(int=ANN))
        assert {str(row.state) for row in desk.look(session, ann).rows} == {
            "sampling",
            "ready",
            "annotated",
            "failed",
            "equal_responses",
        }


def test_the_days_are_counted_in_utc(upgraded: Database) -> None:
    names = ("annotator_id", "batch_id", "objective", "day", "annotations", "comparisons", "skips", "seconds")
    with upgraded.read() as session:
        found = {tuple(getattr(row, name) for name in names) for row in session.scalars(select(WorkDay))}
        assert set(session.scalars(select(WorkDay.pool_prompts))) == {0}
    ann, bo, batch, old = (UUID(int=number) for number in (ANN, BO, BATCH, OLD_BATCH))
    friday, saturday = date(2026, 11, 20), date(2026, 11, 21)
    assert found == {
        (ann, batch, Objective.HELPFULNESS, friday, 1, 1, 1, 12.5),
        (bo, batch, Objective.SAFETY, friday, 1, 1, 0, 12.5),
        (bo, batch, Objective.SAFETY, saturday, 2, 2, 1, 25.0),
        (bo, old, Objective.HELPFULNESS, saturday, 1, 1, 0, 12.5),
    }


def test_what_was_there_is_as_it_was(upgraded: Database) -> None:
    with upgraded.read() as session:
        batch = session.get_one(Batch, UUID(int=BATCH))
        assert (batch.number, batch.review_share, batch.curriculum) == (2, 0.25, "Cooking")
        assert (batch.pool_share, batch.overlap_share, batch.overlap_annotations) == (0.0, 0.0, 3)
        assert (batch.skip_policy, batch.response_display) == (SkipPolicy.RETIRE, ResponseDisplay.TOGETHER)
        assert (batch.rationale_mode, batch.asks_edit, batch.asks_quality) == (RationaleMode.OPTIONAL, False, False)
        conversations = session.scalars(select(Conversation)).all()
        assert len(conversations) == len(STATES) + 5
        assert {row.pool_prompt_id for row in conversations} == {None}
        assert {row.annotator_id for row in conversations} == {UUID(int=ANN), UUID(int=BO)}
        annotations = session.scalars(select(Annotation)).all()
        assert {(row.rationale, row.edited_text, row.chosen_quality) for row in annotations} == {("Hotter", None, None)}
        # Until then all variants sampled from the checkpoint that was promoted last.
        assert set(session.scalars(select(Response.generation))) == {Generation.NEWEST}


def test_the_database_still_says_no(upgraded: Database) -> None:
    wrong = {
        "annotations": ("chosen_quality = 8, rejected_quality = 1", "strength = 'vast'", "chosen_safe = TRUE"),
        "assignments": ("state = 'lost'", f"comparison_id = '{key(1)}'"),
        "batches": ("pool_share = 2", "overlap_annotations = 1", "skip_policy = 'burn'", "closes_at = opens_at"),
        "comparisons": ("open_places = 2", "open_places = -1", "state = 'lost'", "turn = 0", f"batch_id = '{key(1)}'"),
        "responses": ("generation = 'next'", "generation = NULL", "side = 'c'"),
        "conversations": ("state = 'lost'", "source = 'stolen'", "split = 'both'", f"pool_prompt_id = '{key(1)}'"),
    }
    only = {"annotations": "objective = 'helpfulness'"}
    for table, changes in wrong.items():
        for change in changes:
            where = f" WHERE {only[table]}" if table in only else ""
            with pytest.raises(IntegrityError), upgraded.write() as session:
                session.execute(text(f"UPDATE {table} SET {change}{where}"))
    with pytest.raises(IntegrityError), upgraded.write() as session:
        session.execute(text("UPDATE comparisons SET risk_category = 'unqualified_advice' WHERE objective <> 'safety'"))


def test_every_check_of_the_models_is_in_the_database(upgraded: Database) -> None:
    inspector = inspect(upgraded.reading)
    for table in Base.metadata.sorted_tables:
        wanted = {str(check.name) for check in table.constraints if isinstance(check, CheckConstraint)}
        found = {check["name"] for check in inspector.get_check_constraints(table.name)}
        assert wanted <= found, table.name


def test_references_are_sound(upgraded: Database) -> None:
    inspector = inspect(upgraded.reading)
    with upgraded.reading.connect() as connection:
        for table in Base.metadata.sorted_tables:
            found = {
                (tuple(one["constrained_columns"]), one["referred_table"])
                for one in inspector.get_foreign_keys(table.name)
            }
            wanted = {(tuple(one.column_keys), one.referred_table.name) for one in table.foreign_key_constraints}
            assert found == wanted, table.name
            for columns, referred in found:
                if len(columns) > 1:
                    continue
                (other,) = (
                    one["referred_columns"][0]
                    for one in inspector.get_foreign_keys(table.name)
                    if tuple(one["constrained_columns"]) == columns
                )
                orphans = connection.execute(
                    text(
                        f"SELECT COUNT(*) FROM {table.name} WHERE {columns[0]} IS NOT NULL "
                        f"AND {columns[0]} NOT IN (SELECT {other} FROM {referred})"
                    )
                ).scalar_one()
                assert orphans == 0, (table.name, columns)


def test_the_model_workers_revision_goes_back_and_forth(old_url: str) -> None:
    config = alembic_config(old_url)
    for revision in ("head", "0002", "head"):
        if revision == "0002":
            command.downgrade(config, revision)
        else:
            command.upgrade(config, revision)
            command.check(config)
        database = connect(old_url)
        columns = {column["name"] for column in inspect(database.reading).get_columns("responses")}
        database.dispose()
        assert ("generation" in columns) == (revision == "head")
