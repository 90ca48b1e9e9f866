"""Prepares a week of work for benchmarks: comparisons of the prompt pool, some open to everybody, the others judged.

One of each kind is made as the app makes it, and copied by the database itself: a million take a minute or two.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import Connection, Table, select, text
from sqlalchemy.orm import Session

from app.accounts import service as accounts
from app.annotation import days
from app.annotation.days import Work
from app.batches import guidelines
from app.batches import service as batches
from app.batches.service import BatchSettings
from app.checkpoints import service as checkpoints
from app.database import Database
from app.models import (
    Annotation,
    AnnotationRevision,
    Assignment,
    AssignmentState,
    Base,
    Batch,
    BatchState,
    Checkpoint,
    Comparison,
    ComparisonState,
    Conversation,
    ConversationState,
    Guideline,
    GuidelineRead,
    Person,
    PersonRole,
    PoolPrompt,
    PoolPromptState,
    PromptSource,
    Response,
    SamplingJob,
    WorkState,
    now,
)
from benchmarks._annotators import SignedIn
from contract.checkpoint_files import CheckpointFiles
from contract.vocabulary import FinishReason, Objective, Side, Strength

_LONG = 3
"""Turns of every third conversation; the others have one."""
_PARAGRAPH = (
    "Warm the pot first, since a cold one takes the heat that the leaves need. Add one spoon of leaves for each cup, "
    "pour on water that has *just* boiled, and wait for four minutes before you pour. "
)
# About 230 tokens each, in the ways that models write.
TEXTS = (
    _PARAGRAPH * 5,
    "## How to go about it\n\n" + "".join(f"{n}. **Step {n}.** {_PARAGRAPH[:130]}\n" for n in range(1, 8)),
    f"{_PARAGRAPH * 2}\n\n```python\n" + "".join(f"cups = brew(pot, spoons={n})  # {n}\n" for n in range(14)) + "```\n",
    f"{_PARAGRAPH * 3}\n\n| tea | minutes |\n|---|---|\n" + "".join(f"| `kind {n}` | {n} |\n" for n in range(12)),
)
_KINDS: Mapping[type[Base], int] = {
    Person: 1,
    Conversation: 2,
    Comparison: 3,
    Response: 4,
    SamplingJob: 5,
    Annotation: 6,
    AnnotationRevision: 7,
}


@dataclass(frozen=True)
class _Shape:
    """A kind of conversation: how many turns, and whether the last one is open to everybody."""

    turns: int
    is_open: bool
    objective: Objective = Objective.HELPFULNESS
    week: int = 0
    """Weeks that are over count from 1; ids of later weeks sort after those of earlier ones."""

    @property
    def number(self) -> int:
        return self.turns * 4 + 2 * (self.objective is Objective.SAFETY) + self.is_open

    @property
    def prompt(self) -> str:
        """About 31 tokens long in weeks that are over, as in Llama 2's Table 26; different in each week."""
        if not self.week:
            return "How do I make tea?"
        return (
            f"In week {self.week} somebody asks about {self.objective}: how do I make a pot of good tea for some "
            "friends who like it strong, and what would you leave out?"
        )


@dataclass(frozen=True)
class _Week:
    batch: Batch
    checkpoint: Checkpoint
    guidelines: Mapping[Objective, Guideline]


def prepare_week(database: Database, *, comparisons: int, still_open: int, people: int) -> list[SignedIn]:
    """Fill an empty database with about so many comparisons, and sign annotators in."""
    with database.write() as session:
        week = _open_week(session)
        annotators = [_person(session, week, number) for number in range(people)]
        signed_in = [_sign_in(session, person) for person in annotators]
        shapes = {shape.number: shape for shape in (_Shape(t, o) for t in (1, _LONG) for o in (False, True))}
        for shape in shapes.values():
            _make_first(session, week, annotators[0], shape)
    per_conversation = (2 + _LONG) / 3
    judged = max(comparisons - int(still_open * per_conversation), 0) / per_conversation
    with database.writing.connect() as connection:
        _hurry(connection)
        for shape in shapes.values():
            count = (still_open if shape.is_open else judged) * (1 / 3 if shape.turns == _LONG else 2 / 3)
            _copy(connection, shape, round(count), people)
        connection.commit()
        connection.exec_driver_sql("DROP TABLE IF EXISTS first_one")
    settle(database)
    return signed_in


def add_finished_week(database: Database, *, number: int, comparisons: int, turns: float, people: int) -> None:
    """Add a week whose review is over: about so many comparisons, with so many turns in the mean.

    Two thirds of the conversations are about helpfulness; `prepare_week` made the people.
    """
    few, share_of_more = int(turns), turns % 1
    conversations = comparisons / turns
    parts = [
        (_Shape(length, is_open=False, objective=objective, week=number), round(conversations * share * of))
        for length, share in ((few, 1 - share_of_more), (few + 1, share_of_more))
        for objective, of in ((Objective.HELPFULNESS, 2 / 3), (Objective.SAFETY, 1 / 3))
    ]
    with database.write() as session:
        opens_at = now() - timedelta(days=7 * (20 - number))
        batch = batches.create(session, BatchSettings(opens_at=opens_at, closes_at=opens_at + timedelta(days=7)))
        batch.state = BatchState.IN_REVIEW
        batch.frozen_at = batch.closes_at
        checkpoint = session.scalars(select(Checkpoint)).one()
        week = _Week(batch, checkpoint, {one: guidelines.current(session, one) for one in Objective})
        annotator = session.get_one(Person, _id(Person, 0))
        for shape, _ in parts:
            _make_first(session, week, annotator, shape)
    with database.writing.connect() as connection:
        _hurry(connection)
        for shape, count in parts:
            _copy(connection, shape, count - 1, people)
        connection.commit()
        connection.exec_driver_sql("DROP TABLE IF EXISTS first_one")


def _open_week(session: Session) -> _Week:
    digest = hashlib.sha256(b"benchmark").hexdigest()
    files = CheckpointFiles(
        name="chat",
        architecture="LlamaForCausalLM",
        digest=digest,
        tokenizer_digest=digest,
        template_digest=digest,
        weight_bytes=1,
    )
    checkpoint = checkpoints.promote(session, checkpoints.register(session, files), for_open_batch=True)
    opens_at = now() - timedelta(hours=1)
    settings = BatchSettings(opens_at=opens_at, closes_at=opens_at + timedelta(days=7), pool_share=1.0)
    batch = batches.create(session, settings)
    batches.pin_checkpoint(session, batch, checkpoint)
    batch.state = BatchState.OPEN
    batch.opened_at = opens_at
    session.flush()
    return _Week(batch, checkpoint, {one: guidelines.current(session, one) for one in Objective})


def _person(session: Session, week: _Week, number: int) -> Person:
    person = Person(id=_id(Person, number), name=f"annotator {number}", role=PersonRole.ANNOTATOR)
    session.add(person)
    session.flush()
    session.add(GuidelineRead(annotator_id=person.id, guideline_id=week.guidelines[Objective.HELPFULNESS].id))
    work = Work(annotations=100, comparisons=100, seconds=6000.0, pool_prompts=100)
    days.count(session, week.batch, Objective.HELPFULNESS, person.id, at=now(), work=work)
    return person


def _sign_in(session: Session, person: Person) -> SignedIn:
    link = accounts.issue_sign_in_link(session, person, hours=1)
    session.flush()
    _, token = accounts.sign_in_by_link(session, link, hours=24)
    session.flush()
    found = accounts.visit(session, token)
    if found is None:
        msg = "nobody is signed in"
        raise RuntimeError(msg)
    return SignedIn(f"preferably_session={token}", found[0].csrf_token)


def _make_first(session: Session, week: _Week, annotator: Person, shape: _Shape) -> None:
    """The conversation that the others of its shape are copies of."""
    prompt = PoolPrompt(
        objective=shape.objective,
        turns=[shape.prompt] * shape.turns,
        digest=hashlib.sha256(repr(shape).encode()).hexdigest(),
        state=PoolPromptState.USED,
    )
    session.add(prompt)
    conversation = Conversation(
        id=_id(Conversation, 0, shape),
        batch_id=week.batch.id,
        objective=shape.objective,
        annotator_id=None,
        pool_prompt_id=prompt.id,
        source=PromptSource.POOL,
        state=ConversationState.ACTIVE if shape.is_open else ConversationState.FINISHED,
    )
    session.flush()
    session.add(conversation)
    session.flush()
    for turn in range(1, shape.turns + 1):
        is_open = shape.is_open and turn == shape.turns
        comparison = Comparison(
            id=_id(Comparison, 0, shape, turn),
            conversation_id=conversation.id,
            batch_id=week.batch.id,
            objective=shape.objective,
            turn=turn,
            prompt=shape.prompt,
            state=ComparisonState.READY if is_open else ComparisonState.ANNOTATED,
            open_places=int(is_open),
            ready_at=now(),
        )
        session.add(comparison)
        session.flush()
        responses = [_response(week, comparison, shape, turn, side) for side in Side]
        job = SamplingJob(id=_id(SamplingJob, 0, shape, turn), comparison_id=comparison.id, state=WorkState.DONE)
        session.add_all([*responses, job])
        session.flush()
        if not is_open:
            _judge(session, week, annotator, responses[0], shape, turn)


def _response(week: _Week, comparison: Comparison, shape: _Shape, turn: int, side: Side) -> Response:
    return Response(
        id=_id(Response, 0, shape, turn, side),
        comparison_id=comparison.id,
        side=side,
        checkpoint_id=week.checkpoint.id,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        seed=1,
        max_new_tokens=512,
        text=TEXTS[0],
        token_ids=list(range(230)),
        prompt_tokens=20,
        completion_tokens=230,
        finish_reason=FinishReason.STOP,
        engine="benchmark",
    )


def _judge(session: Session, week: _Week, annotator: Person, chosen: Response, shape: _Shape, turn: int) -> None:
    place = Assignment(comparison_id=chosen.comparison_id, annotator_id=annotator.id, state=AssignmentState.DONE)
    annotation = Annotation(
        id=_id(Annotation, 0, shape, turn),
        comparison_id=chosen.comparison_id,
        objective=shape.objective,
        annotator_id=annotator.id,
        chosen_response_id=chosen.id,
        guideline_id=week.guidelines[shape.objective].id,
        seconds=60.0,
        strength=Strength.BETTER,
        chosen_safe=True if shape.objective is Objective.SAFETY else None,
        rejected_safe=False if shape.objective is Objective.SAFETY else None,
    )
    session.add_all([place, annotation])
    session.flush()
    revision = AnnotationRevision(
        id=_id(AnnotationRevision, 0, shape, turn),
        annotation_id=annotation.id,
        revision=1,
        chosen_response_id=chosen.id,
        author_id=annotator.id,
        strength=Strength.BETTER,
        chosen_safe=True if shape.objective is Objective.SAFETY else None,
        rejected_safe=False if shape.objective is Objective.SAFETY else None,
    )
    session.add(revision)
    session.flush()


def _copy(connection: Connection, shape: _Shape, count: int, people: int) -> None:
    """Copy the first conversation of a shape so many times, table after table."""
    author = _id_sql(connection, Person, number=f"(n.i % {people})")

    def own(model: type[Base], turn: int = 0, side: Side | None = None) -> str:
        return _id_sql(connection, model, shape, turn, side)

    def copy(model: type[Base], where: str, **replaced: str) -> None:
        _copy_row(connection, model.__table__, where, replaced, count)  # type: ignore[arg-type]

    copy(Conversation, _is(connection, "id", _id(Conversation, 0, shape)), id=own(Conversation))
    for turn in range(1, shape.turns + 1):
        first = _id(Comparison, 0, shape, turn)
        of_first = _is(connection, "comparison_id", first)
        comparison = own(Comparison, turn)
        prompt = f"t.prompt || ' {turn} ' || CAST(n.i AS VARCHAR)"
        ids = {"id": comparison, "conversation_id": own(Conversation)}
        copy(Comparison, _is(connection, "id", first), **ids, prompt=prompt)
        for side in Side:
            response = _id(Response, 0, shape, turn, side)
            told = _noise(connection) if shape.week else _varied()
            words = f"{told} || ' {turn}{side.value} ' || CAST(n.i AS VARCHAR)"
            ids = {"id": own(Response, turn, side), "comparison_id": comparison}
            copy(Response, _is(connection, "id", response), **ids, text=words)
        copy(SamplingJob, of_first, id=own(SamplingJob, turn), comparison_id=comparison)
        if shape.is_open and turn == shape.turns:
            continue
        copy(Assignment, of_first, comparison_id=comparison, annotator_id=author)
        chosen = {"chosen_response_id": own(Response, turn, Side.A)}
        ids = {"id": own(Annotation, turn), "comparison_id": comparison, "annotator_id": author}
        copy(Annotation, of_first, **ids, **chosen)
        ids = {"id": own(AnnotationRevision, turn), "annotation_id": own(Annotation, turn), "author_id": author}
        revised = _is(connection, "annotation_id", _id(Annotation, 0, shape, turn))
        copy(AnnotationRevision, revised, **ids, **chosen)


def _copy_row(connection: Connection, table: Table, where: str, replaced: Mapping[str, str], count: int) -> None:
    columns = [column.name for column in table.columns]
    values = ", ".join(replaced.get(name, f"t.{name}") for name in columns)
    if connection.dialect.name == "sqlite":
        series = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})"  # noqa: S608
    else:
        series = f"WITH n AS (SELECT generate_series(1, {count}) AS i)"
    # Copied from a table of its own: reading the one that is written to would make the database copy it first.
    connection.execute(text("DROP TABLE IF EXISTS first_one"))
    connection.execute(text(f"CREATE TEMPORARY TABLE first_one AS SELECT * FROM {table.name} WHERE {where}"))  # noqa: S608
    if count > 0:
        insert = f"INSERT INTO {table.name} ({', '.join(columns)}) SELECT {values} FROM n CROSS JOIN first_one t"  # noqa: S608
        used = {f"text_{place}": words for place, words in enumerate(TEXTS) if f":text_{place}" in values}
        connection.execute(text(f"{series} {insert}"), used)


def _varied() -> str:
    cases = " ".join(f"WHEN {place} THEN CAST(:text_{place} AS TEXT)" for place in range(len(TEXTS)))
    return f"CASE n.i % {len(TEXTS)} {cases} END"


def _noise(connection: Connection) -> str:
    """About 234 tokens' worth of characters, different in every response: it compresses by half, as prose does."""
    if connection.dialect.name == "sqlite":
        return "hex(randomblob(480))"
    return " || ".join(["md5(random()::text)"] * 30)


def _tail(model: type[Base], shape: _Shape | None, turn: int, side: Side | None) -> str:
    parts = (_KINDS[model], shape.number if shape else 0, turn, list(Side).index(side) if side else 0)
    return "70008000" + "".join(f"{part:03x}" for part in parts)


def _head(shape: _Shape | None) -> str:
    return f"{0x0190 + (shape.week if shape else 0):04x}"


def _id(model: type[Base], number: int, shape: _Shape | None = None, turn: int = 0, side: Side | None = None) -> UUID:
    return UUID(f"{_head(shape)}{number:08x}{_tail(model, shape, turn, side)}")


def _id_sql(
    connection: Connection,
    model: type[Base],
    shape: _Shape | None = None,
    turn: int = 0,
    side: Side | None = None,
    *,
    number: str = "n.i",
) -> str:
    """The same as SQL, for each number of the series."""
    if connection.dialect.name == "sqlite":
        return f"'{_head(shape)}' || printf('%08x', {number}) || '{_tail(model, shape, turn, side)}'"
    return f"CAST('{_head(shape)}' || lpad(to_hex({number}), 8, '0') || '{_tail(model, shape, turn, side)}' AS uuid)"


def _is(connection: Connection, column: str, value: UUID) -> str:
    return f"{column} = '{value.hex if connection.dialect.name == 'sqlite' else value}'"


def _hurry(connection: Connection) -> None:
    """Leave out, while copying, what only matters when something goes wrong."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("COMMIT")
        for pragma in ("synchronous=OFF", "foreign_keys=OFF", "cache_size=-200000"):
            connection.exec_driver_sql(f"PRAGMA {pragma}")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        connection.exec_driver_sql("SET LOCAL synchronous_commit = off")


def settle(database: Database) -> None:
    """Bring the database to the state that it would be in after a while."""
    is_sqlite = database.writing.dialect.name == "sqlite"
    with database.reading.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        if is_sqlite:
            # The transaction that our engine has begun would be in the way.
            connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)" if is_sqlite else "VACUUM ANALYZE")
