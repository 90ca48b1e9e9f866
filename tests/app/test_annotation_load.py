"""What the workspace costs: the first load, the number of statements, and many clicks at the same moment."""

import gzip
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event, select

from app.database import Database
from app.models import Annotation, Comparison, ComparisonState, Conversation, PersonRole, new_id
from contract.vocabulary import Side
from tests import factories
from tests.conftest import Browser

_FIRST_LOAD_BYTES = 60_000
_FIRST_LOAD_REQUESTS = 6
_STATEMENTS = 12


@pytest.fixture
def ann(sign_in: Callable[..., Browser], database: Database) -> Browser:
    with database.write() as session:
        factories.make_open_batch(session)
    return sign_in(PersonRole.ANNOTATOR, "Ann")


def make_judgeable(ann: Browser, database: Database) -> tuple[Comparison, list[str]]:
    form = {"form_id": str(new_id()), "objective": "helpfulness", "prompt": "How do I make tea?"}
    ann.post("/annotate/conversations", form)
    with database.write() as session:
        comparison = session.scalars(select(Comparison).where(Comparison.state == ComparisonState.SAMPLING)).one()
        responses = factories.make_ready(session, comparison)
        return comparison, [f"{responses[side].id}:better" for side in Side]


def test_the_first_load_is_small(ann: Browser, database: Database) -> None:
    make_judgeable(ann, database)
    page = ann.get("/annotate")
    assets = re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text)
    sizes = [len(gzip.compress(ann.get(path).content)) for path in assets]
    assert 1 + len(assets) <= _FIRST_LOAD_REQUESTS
    assert len(page.content) + sum(sizes) <= _FIRST_LOAD_BYTES
    assert all(ann.get(path).headers["cache-control"].endswith("immutable") for path in assets)


def test_a_screen_takes_few_statements(ann: Browser, database: Database, client: TestClient) -> None:
    make_judgeable(ann, database)
    ann.get("/annotate")
    statements: list[str] = []
    engine = client.app_state["database"].reading

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        statements.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    ann.get("/annotate")
    event.remove(engine, "before_cursor_execute", note)
    assert 0 < len(statements) <= _STATEMENTS
    shown = [text for text in statements if "responses" in text]
    assert shown
    assert not any("temperature" in text or "token_ids" in text for text in shown)


def test_many_clicks_at_once_make_one_annotation(ann: Browser, database: Database) -> None:
    comparison, (rating, _) = make_judgeable(ann, database)
    path = f"/annotate/comparisons/{comparison.id}/annotation"
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: ann.post(path, {"rating": rating}).status_code, range(6)))
    assert answers == [303] * 6
    with database.read() as session:
        assert session.scalars(select(Annotation)).one().revision == 1


def test_many_first_prompts_at_once_make_one_conversation(ann: Browser, database: Database) -> None:
    form = {"form_id": str(new_id()), "objective": "helpfulness", "prompt": "Hi"}
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: ann.post("/annotate/conversations", form).status_code, range(6)))
    assert answers == [303] * 6
    with database.read() as session:
        session.scalars(select(Conversation)).one()
