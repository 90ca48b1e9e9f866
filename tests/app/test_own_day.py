"""The annotator's own day, the history with its changes, and guidelines that are read once."""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime

import pytest
from sqlalchemy import select

from app.annotation import days
from app.annotation.day import day
from app.batches import guidelines
from app.batches import queries as batch_queries
from app.database import Database
from app.models import Annotation, Batch, Guideline, PersonRole, Review, Verdict
from contract.vocabulary import Objective, Side
from tests import factories
from tests.app.annotating import PARTIAL, ask, judge, rating, shown_id
from tests.conftest import Browser

SignIn = Callable[..., Browser]


@pytest.fixture
def ann(sign_in: SignIn, database: Database) -> Browser:
    with database.write() as session:
        factories.make_open_batch(session, turns_per_conversation=3, time_zone="Asia/Tokyo")
    return sign_in(PersonRole.ANNOTATOR, "Ann")


def test_a_day_counts_what_was_done_and_agrees_with_the_batch(
    ann: Browser, sign_in: SignIn, database: Database
) -> None:
    bo = sign_in(PersonRole.ANNOTATOR, "Bo")
    for browser in (ann, ann, bo):
        comparison_id = ask(browser, database)
        assert judge(browser, comparison_id, rating=rating(database, comparison_id)) == 303
        conversation = shown_id(browser.get("/annotate").text, "conversation")
        browser.post(f"/annotate/conversations/{conversation}/finish")
    skipped = ask(ann, database)
    ann.post(f"/annotate/comparisons/{skipped}/skip", {"reason": "upsetting", "note": "No <b>more</b>"})
    with database.read() as session:
        batch = session.scalars(select(Batch)).one()
        shown = day(session, ann.person)
        assert (shown.today.annotations, shown.today.comparisons, shown.today.skips) == (2, 2, 1)
        assert shown.in_batch == shown.today
        assert len(shown.entries) == 2
        assert [entry.reason for entry in shown.skips] == ["upsetting"]
        assert shown.median_s is not None
        mine = {row.objective: row.annotated for row in days.progress(session, batch.id)}
        assert mine == {row.objective: row.annotated for row in batch_queries.progress(session, batch.id)}
        assert mine[Objective.HELPFULNESS] == 3
    page = ann.get("/annotate/day").text
    assert "No &lt;b&gt;more&lt;/b&gt;" in page
    assert bo.get("/annotate/day").text.count("?change=true") == page.count("?change=true") / 2


def test_a_day_begins_at_midnight_where_the_batch_is(database: Database) -> None:
    with database.write() as session:
        batch = factories.make_open_batch(session, time_zone="Asia/Tokyo")
    assert days.day_of(batch, datetime(2026, 3, 1, 14, 59, tzinfo=UTC)) == date(2026, 3, 1)
    assert days.day_of(batch, datetime(2026, 3, 1, 15, 0, tzinfo=UTC)) == date(2026, 3, 2)


def test_feedback_of_a_reviewer_is_shown_to_its_annotator_alone(
    ann: Browser, sign_in: SignIn, database: Database
) -> None:
    comparison_id = ask(ann, database)
    judge(ann, comparison_id, rating=rating(database, comparison_id))
    with database.write() as session:
        reviewer = factories.make_person(session, "Rae", PersonRole.REVIEWER)
        annotation = session.scalars(select(Annotation)).one()
        review = Review(
            annotation_id=annotation.id,
            revision=1,
            reviewer_id=reviewer.id,
            verdict=Verdict.REJECTED,
            feedback="Look at the <facts>.",
        )
        session.add(review)
    assert "Look at the &lt;facts&gt;." in ann.get("/annotate/day").text
    assert "facts" not in sign_in(PersonRole.ANNOTATOR, "Bo").get("/annotate/day").text


def test_a_choice_can_be_changed_from_the_history_until_the_conversation_has_moved_on(
    ann: Browser, database: Database
) -> None:
    comparison_id = ask(ann, database)
    judge(ann, comparison_id, rating=rating(database, comparison_id, Side.A))
    link = f"/annotate/comparisons/{comparison_id}?change=true"
    assert link in ann.get("/annotate/day").text
    conversation = shown_id(ann.get("/annotate").text, "conversation")
    ann.post(f"/annotate/conversations/{conversation}/prompts", {"prompt": "And?"})
    assert link not in ann.get("/annotate/day").text


def test_a_guideline_is_unfolded_until_it_is_read_and_again_when_it_changes(ann: Browser, database: Database) -> None:
    ask(ann, database)
    path = re.compile(r"/annotate/guidelines/[0-9a-f-]+/read")

    def asks_to_read() -> bool:
        return path.search(ann.get("/annotate").text) is not None

    assert asks_to_read()
    with database.read() as session:
        first = guidelines.current(session, Objective.HELPFULNESS)
    for _ in range(2):
        assert ann.post(f"/annotate/guidelines/{first.id}/read", headers=PARTIAL).status_code == 204
    assert not asks_to_read()
    with database.write() as session:
        guidelines.add_version(session, Objective.HELPFULNESS, "Be **kind**.")
    page = ann.get("/annotate").text
    assert path.search(page) is not None
    assert "changed" in page
    assert ann.post(f"/annotate/guidelines/{ann.person.id}/read").status_code == 404
    comparison_id = shown_id(page, "comparison")
    judge(ann, comparison_id, rating=rating(database, comparison_id))
    with database.read() as session:
        annotation = session.scalars(select(Annotation)).one()
        assert session.get_one(Guideline, annotation.guideline_id).version == 2
