"""Drafts on the server: what is typed and pressed survives, and a late one never hides what was said."""

from collections.abc import Callable
from uuid import uuid4

import pytest
from sqlalchemy import func, select

from app.database import Database
from app.models import Annotation, Assignment, AssignmentState, Batch, Draft, PersonRole, new_id, now
from contract.vocabulary import Side
from tests import factories
from tests.app.annotating import (
    PARTIAL,
    ask,
    checked,
    first_prompt,
    hidden,
    judge,
    make_ready,
    rating,
    screen,
    shown_id,
)
from tests.conftest import Browser

SignIn = Callable[..., Browser]


@pytest.fixture
def ann(sign_in: SignIn) -> Browser:
    return sign_in(PersonRole.ANNOTATOR, "Ann")


@pytest.fixture(autouse=True)
def batch(database: Database) -> Batch:
    with database.write() as session:
        return factories.make_open_batch(session, turns_per_conversation=3)


def keep(browser: Browser, form_id: object, kind: str, **fields: str) -> int:
    return browser.post(f"/annotate/drafts/{form_id}", {"kind": kind} | fields).status_code


def count(database: Database, table: type[Draft | Annotation] = Draft) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def test_a_first_prompt_is_there_again_in_another_browser(ann: Browser, sign_in: SignIn, database: Database) -> None:
    form_id = hidden(ann.get("/annotate?objective=safety").text, "form_id")
    draft = {"objective": "safety", "risk_category": "harmful_activities"}
    assert keep(ann, form_id, "first_prompt", prompt="How do I", **draft) == 204
    assert keep(ann, form_id, "first_prompt", prompt="How do I <b>", **draft) == 204
    page = sign_in(PersonRole.ANNOTATOR, "Ann").get("/annotate?objective=safety").text
    assert hidden(page, "form_id") == form_id
    assert "How do I &lt;b&gt;</textarea>" in page
    assert 'value="harmful_activities" selected' in page
    assert "How do I" not in ann.get("/annotate?objective=helpfulness").text
    assert "How do I" not in sign_in(PersonRole.ANNOTATOR, "Bo").get("/annotate?objective=safety").text
    assert count(database) == 1
    sent = first_prompt("safety", "How do I") | {"form_id": form_id}
    assert ann.post("/annotate/conversations", sent).status_code == 303
    assert count(database) == 0
    # A draft that was on its way while the form was sent comes too late.
    assert keep(ann, form_id, "first_prompt", prompt="How do", **draft) == 204
    assert count(database) == 0


def test_a_next_prompt_and_a_judgement_are_there_again(ann: Browser, database: Database) -> None:
    comparison_id = ask(ann, database)
    chosen = rating(database, comparison_id, Side.B)
    assert keep(ann, comparison_id, "judgement", rating=chosen, rationale="It boils", revision="0") == 204
    page = ann.get("/annotate").text
    assert f'value="{chosen}"' in page
    assert checked(page) == 1
    assert "It boils</textarea>" in page
    assert judge(ann, comparison_id, rating=chosen) == 303
    assert count(database) == 0
    assert keep(ann, comparison_id, "judgement", rating=rating(database, comparison_id), revision="0") == 204
    assert count(database) == 0
    page = ann.get("/annotate").text
    assert screen(page) == "continue"
    assert keep(ann, hidden(page, "form_id"), "next_prompt", prompt="And with milk?") == 204
    assert "And with milk?</textarea>" in ann.get("/annotate").text
    ann.post(f"/annotate/conversations/{shown_id(page, 'conversation')}/finish")
    assert count(database) == 0


def test_a_change_that_was_not_sent_is_a_draft_too(ann: Browser, database: Database) -> None:
    comparison_id = ask(ann, database)
    first, second = rating(database, comparison_id, Side.A), rating(database, comparison_id, Side.B)
    judge(ann, comparison_id, rating=first)
    page = ann.get(f"/annotate/comparisons/{comparison_id}?change=true").text
    assert hidden(page, "revision") == "1"
    assert keep(ann, comparison_id, "judgement", rating=second, revision="1") == 204
    page = ann.get(f"/annotate/comparisons/{comparison_id}?change=true").text
    assert f'value="{second}"' in page.split(" checked")[0].rsplit("<input", 1)[1]
    assert count(database, Annotation) == 1


def test_drafts_are_limited_and_checked(ann: Browser, sign_in: SignIn, database: Database) -> None:
    for number in range(25):
        assert keep(ann, new_id(), "first_prompt", objective="helpfulness", prompt=f"Prompt {number}") == 204
    assert count(database) == 20
    assert "Prompt 24</textarea>" in ann.get("/annotate?objective=helpfulness").text
    assert keep(ann, new_id(), "first_prompt", prompt="x" * 200_001) == 422
    assert keep(ann, new_id(), "first_prompt", prompt="a\0b") == 422
    assert keep(ann, new_id(), "poem", prompt="a") == 422
    assert keep(ann, new_id(), "first_prompt", temperature="1") == 422
    assert keep(ann, uuid4(), "judgement", rating="x") == 404
    comparison_id = ask(ann, database)
    assert keep(sign_in(PersonRole.ANNOTATOR, "Bo"), comparison_id, "judgement", rating="x") == 404
    assert ann.client.post(f"/annotate/drafts/{comparison_id}", data={"kind": "judgement"}).status_code == 403


def test_whoever_types_is_not_idle(ann: Browser, database: Database, batch: Batch) -> None:
    with database.write() as session:
        session.get_one(Batch, batch.id).pool_share = 1.0
        comparison = factories.make_pool_comparison(session, session.get_one(Batch, batch.id))
    assert screen(ann.get("/annotate").text) == "judge"
    with database.write() as session:
        place = session.scalars(select(Assignment)).one()
        place.held_until = soon = now()
    assert keep(ann, comparison.id, "judgement", rationale="Hm", revision="0") == 204
    with database.read() as session:
        place = session.scalars(select(Assignment)).one()
        assert place.state is AssignmentState.HELD
        assert place.held_until is not None
        assert place.held_until > soon


def test_a_refused_prompt_keeps_its_form(ann: Browser) -> None:
    form = first_prompt(prompt="   ")
    answer = ann.post("/annotate/conversations", form, headers=PARTIAL)
    assert answer.status_code == 422
    assert hidden(answer.text, "form_id") == form["form_id"]


def test_two_conversations_at_once_and_the_next_that_is_ready(ann: Browser, database: Database) -> None:
    first = ask(ann, database, "First")
    assert screen(ann.get("/annotate/new").text) == "write"
    answer = ann.post("/annotate/conversations", first_prompt(prompt="Second"), headers=PARTIAL)
    # The second is being sampled, and the first waits to be judged.
    assert shown_id(answer.text, "comparison") == first
    path = f"/annotate/comparisons/{first}/annotation"
    second = make_ready(database)
    after = ann.post(path, {"rating": rating(database, first)}, headers=PARTIAL)
    assert shown_id(after.text, "comparison") == second
    after = ann.post(
        f"/annotate/comparisons/{second}/annotation", {"rating": rating(database, second)}, headers=PARTIAL
    )
    assert (screen(after.text), shown_id(after.text, "comparison")) == ("continue", second)
    assert screen(ann.get(f"/annotate/comparisons/{first}").text) == "continue"


def test_the_tray_says_nothing_when_nothing_is_new(ann: Browser, database: Database) -> None:
    ann.post("/annotate/conversations", first_prompt(prompt="What is tea?"))
    shown = ann.get("/annotate/tray", headers=PARTIAL)
    assert "What is tea?" in shown.text
    seen = shown.text.split("seen=")[1].split("&")[0].split('"')[0]
    assert ann.get(f"/annotate/tray?seen={seen}", headers=PARTIAL).status_code == 204
    make_ready(database)
    assert ann.get(f"/annotate/tray?seen={seen}", headers=PARTIAL).status_code == 200


def test_only_so_many_conversations_at_once(ann: Browser, database: Database) -> None:
    for number in range(5):
        assert ann.post("/annotate/conversations", first_prompt(prompt=f"Prompt {number}")).status_code == 303
    refused = ann.post("/annotate/conversations", first_prompt(prompt="One more"))
    assert refused.status_code == 409
    assert "5 conversations under way" in refused.text
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Assignment)) == 5
