"""Further kinds of feedback that a batch may ask for: reasons, quality scores, edits, tags, flags."""

from collections.abc import Callable

import pytest
from sqlalchemy import select

from app.database import Database
from app.models import Annotation, AnnotationRevision, Batch, Comparison, Flag, PersonRole, RationaleMode
from contract.vocabulary import AttackVector, RiskCategory, Side
from tests import factories
from tests.app.annotating import ask, checked, first_prompt, judge, make_ready, rating, shown_id
from tests.conftest import Browser


@pytest.fixture
def ann(sign_in: Callable[..., Browser], database: Database) -> Browser:
    with database.write() as session:
        factories.make_open_batch(session, turns_per_conversation=3)
    return sign_in(PersonRole.ANNOTATOR, "Ann")


def change_batch(database: Database, **settings: object) -> None:
    with database.write() as session:
        batch = session.scalars(select(Batch)).one()
        for name, value in settings.items():
            setattr(batch, name, value)


@pytest.mark.parametrize(
    ("mode", "without", "with_reason"),
    [
        (RationaleMode.OFF, 303, ""),
        (RationaleMode.OPTIONAL, 303, "It boils."),
        (RationaleMode.REQUIRED, 422, "It boils."),
    ],
)
def test_a_reason_is_off_optional_or_required(
    ann: Browser, database: Database, mode: RationaleMode, without: int, with_reason: str
) -> None:
    change_batch(database, rationale_mode=mode)
    comparison_id = ask(ann, database)
    chosen = rating(database, comparison_id)
    assert judge(ann, comparison_id, rating=chosen, rationale=" \n") == without
    assert judge(ann, comparison_id, rating=chosen, rationale=" It boils. ") == 303
    with database.read() as session:
        assert session.scalars(select(Annotation)).one().rationale == with_reason


@pytest.mark.parametrize("side", list(Side))
def test_quality_is_stored_by_choice_and_not_by_side(ann: Browser, database: Database, side: Side) -> None:
    change_batch(database, asks_quality=True)
    comparison_id = ask(ann, database)
    chosen = rating(database, comparison_id, side)
    for a, b in (("", ""), ("5", ""), ("0", "3"), ("8", "3"), ("5.5", "3"), ("x", "3")):
        assert judge(ann, comparison_id, rating=chosen, quality_a=a, quality_b=b) == 422
    assert judge(ann, comparison_id, rating=chosen, quality_a="6", quality_b="2") == 303
    with database.read() as session:
        annotation = session.scalars(select(Annotation)).one()
        expected = (6, 2) if side is Side.A else (2, 6)
        assert (annotation.chosen_quality, annotation.rejected_quality) == expected
    change = ann.get(f"/annotate/comparisons/{comparison_id}?change=true").text
    assert checked(change) == 3


def test_quality_and_edits_that_nobody_asked_for_are_not_stored(ann: Browser, database: Database) -> None:
    comparison_id = ask(ann, database)
    chosen = rating(database, comparison_id)
    extra = {"quality_a": "6", "quality_b": "2", "edited_text": "Better.", "edited_of": chosen.split(":")[0]}
    assert judge(ann, comparison_id, rating=chosen, **extra) == 303
    with database.read() as session:
        annotation = session.scalars(select(Annotation)).one()
        assert (annotation.chosen_quality, annotation.rejected_quality, annotation.edited_text) == (None, None, None)


def test_an_edit_is_of_the_chosen_response_and_every_version_is_kept(ann: Browser, database: Database) -> None:
    change_batch(database, asks_edit=True)
    comparison_id = ask(ann, database)
    chosen, other = (rating(database, comparison_id, side) for side in Side)
    edit = {"edited_text": "Boil fresh water.\r\nThen pour.", "edited_of": chosen.split(":")[0]}
    assert judge(ann, comparison_id, rating=other, **edit) == 422
    assert judge(ann, comparison_id, rating=chosen, **edit) == 303
    assert "Boil fresh water." in ann.get(f"/annotate/comparisons/{comparison_id}?change=true").text
    assert judge(ann, comparison_id, rating=chosen) == 303
    with database.read() as session:
        revisions = session.scalars(select(AnnotationRevision).order_by(AnnotationRevision.revision)).all()
        assert [row.edited_text for row in revisions] == ["Boil fresh water.\nThen pour.", None]
        assert session.scalars(select(Annotation)).one().edited_text is None


def test_a_safety_prompt_needs_its_tags_and_later_turns_inherit_them(ann: Browser, database: Database) -> None:
    form = first_prompt("safety")
    for name in ("risk_category", "attack_vector"):
        for value in ("", "fun"):
            answer = ann.post("/annotate/conversations", form | {name: value})
            assert answer.status_code == 422
            assert f"{name}: say" in answer.text
    assert ann.post("/annotate/conversations", form).status_code == 303
    comparison_id = make_ready(database)
    judge(ann, comparison_id, rating=rating(database, comparison_id), safety="both_safe")
    path = f"/annotate/conversations/{shown_id(ann.get('/annotate').text, 'conversation')}/prompts"
    assert ann.post(path, {"prompt": "And?", "attack_vector": "semantic"}).status_code == 303
    with database.read() as session:
        tags = [
            (row.risk_category, row.attack_vector)
            for row in session.scalars(select(Comparison).order_by(Comparison.turn))
        ]
    advice = RiskCategory.UNQUALIFIED_ADVICE
    assert tags == [(advice, AttackVector.LOGIC), (advice, AttackVector.SEMANTIC)]


def test_a_helpfulness_prompt_takes_no_tags(ann: Browser, database: Database) -> None:
    assert ann.post("/annotate/conversations", first_prompt() | {"risk_category": "fun"}).status_code == 303
    with database.read() as session:
        assert session.scalars(select(Comparison)).one().risk_category is None


def test_a_flag_is_noted_once_and_changes_nothing_else(ann: Browser, database: Database) -> None:
    comparison_id = ask(ann, database)
    path = f"/annotate/comparisons/{comparison_id}/flag"
    for note in ("It says it is chat-1", "It says so twice"):
        assert ann.post(path, {"kind": "names_its_model", "note": note}).status_code == 303
    assert ann.post(path, {"kind": "boring"}).status_code == 422
    with database.read() as session:
        assert session.scalars(select(Flag)).one().note == "It says so twice"
        assert session.scalars(select(Annotation)).all() == []
