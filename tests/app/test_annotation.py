"""The annotator's workspace over HTTP: the states of the screen, what is saved, and what is refused."""

import re
from collections.abc import Callable
from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import select, update

from app.database import Database
from app.models import (
    Annotation,
    AnnotationRevision,
    Assignment,
    Batch,
    BatchState,
    Comparison,
    ComparisonState,
    Conversation,
    ConversationState,
    PersonRole,
    Skip,
    now,
)
from contract.vocabulary import Objective, Side, Strength
from tests import factories
from tests.app.annotating import PARTIAL, ask, first_prompt, hidden, judge, make_ready, rating, screen, shown_id
from tests.conftest import Browser

SignIn = Callable[..., Browser]


@pytest.fixture
def ann(sign_in: SignIn) -> Browser:
    return sign_in(PersonRole.ANNOTATOR, "Ann")


@pytest.fixture
def batch(database: Database) -> Batch:
    with database.write() as session:
        return factories.make_open_batch(session, turns_per_conversation=3)


def test_a_conversation_from_the_first_prompt_to_the_last_turn(ann: Browser, database: Database, batch: Batch) -> None:
    assert screen(ann.get("/annotate").text) == "write"
    for turn in range(1, batch.turns_per_conversation + 1):
        if turn == 1:
            ann.post("/annotate/conversations", {"objective": "helpfulness", "prompt": " What is tea?\r\nBriefly. "})
        else:
            conversation = shown_id(ann.get("/annotate").text, "conversation")
            ann.post(f"/annotate/conversations/{conversation}/prompts", {"prompt": f"And then? {turn}"})
        waiting = ann.get("/annotate").text
        assert screen(waiting) == "waiting"
        comparison_id = make_ready(database, (f"Left {turn}", f"Right {turn}"))
        page = ann.get("/annotate").text
        assert screen(page) == "judge"
        assert shown_id(page, "comparison") == comparison_id
        assert f"<template data-text>Left {turn}</template>" in page
        if turn > 1:
            assert f"Left {turn - 1}" in page
            assert f"Right {turn - 1}" not in page
        assert judge(ann, comparison_id, rating=rating(database, comparison_id)) == 303
    after = ann.get("/annotate").text
    assert screen(after) == "write"
    with database.read() as session:
        conversation_row = session.scalars(select(Conversation)).one()
        assert conversation_row.state is ConversationState.FINISHED
        assert conversation_row.finished_at is not None
        annotations = session.scalars(select(Annotation)).all()
        assert [row.strength for row in annotations] == [Strength.BETTER] * 3
        assert session.scalars(select(Comparison).where(Comparison.turn == 1)).one().prompt == "What is tea?\nBriefly."


@pytest.mark.usefixtures("batch")
def test_only_one_press_is_needed_and_its_time_is_measured(ann: Browser, database: Database) -> None:
    comparison_id = ask(ann, database)
    with database.read() as session:
        assert session.scalars(select(Assignment)).one().shown_at is None
    ann.get("/annotate")
    with database.write() as session:
        place = session.scalars(select(Assignment)).one()
        assert place.shown_at is not None
        place.shown_at -= timedelta(seconds=40)
    ann.get("/annotate")
    assert judge(ann, comparison_id, rating=rating(database, comparison_id, Side.B), rationale="Tea!\r\n") == 303
    with database.read() as session:
        annotation = session.scalars(select(Annotation)).one()
        assert 40 <= annotation.seconds < 60
        assert annotation.rationale == "Tea!"
        assert session.get_one(Comparison, comparison_id).state is ComparisonState.ANNOTATED
        revision = session.scalars(select(AnnotationRevision)).one()
        assert (revision.revision, revision.chosen_response_id) == (1, annotation.chosen_response_id)
    assert screen(ann.get("/annotate").text) == "continue"


@pytest.mark.parametrize("partial", [False, True])
def test_nothing_on_the_screen_tells_which_model_made_what(
    ann: Browser, database: Database, batch: Batch, *, partial: bool
) -> None:
    comparison_id = ask(ann, database)
    with database.write() as session:
        comparison = session.get_one(Comparison, comparison_id)
        session.refresh(comparison, ["responses"])
        secrets = {str(batch.id), "chat-1", "test/1", "float32", "checkpoint", "temperature", "token_ids", "seed"}
        for response, temperature in zip(comparison.responses, (0.7313, 1.2717), strict=True):
            response.temperature = temperature
            response.total_s = temperature + 20
            response.completion_tokens = 40_471
            session.refresh(response, ["checkpoint"])
            secrets |= {str(response.seed), str(temperature), str(response.total_s), str(response.completion_tokens)}
            secrets |= {str(response.checkpoint_id), response.checkpoint.digest, str(response.sum_logprob)}
    headers = PARTIAL if partial else {}
    for path in ("/annotate", f"/annotate/comparisons/{comparison_id}"):
        answer = ann.get(path, headers=headers)
        assert screen(answer.text) == "judge"
        seen = f"{answer.text} {answer.headers}".lower()
        assert [secret for secret in secrets if secret.lower() in seen] == []


@pytest.mark.usefixtures("batch")
def test_responses_are_shown_only_when_both_are_complete(ann: Browser, database: Database) -> None:
    ann.post("/annotate/conversations", first_prompt())
    with database.write() as session:
        comparison = session.scalars(select(Comparison)).one()
        session.refresh(comparison, ["responses"])
        comparison.response(Side.A).text = "Half a respon"
        ids = [str(response.id) for response in comparison.responses]
    path = f"/annotate/comparisons/{comparison.id}"
    seen = ann.get(path).text.split("?seen=")[1].split('"')[0]
    assert ann.get(f"{path}?seen={seen}", headers=PARTIAL).status_code == 204
    for page in (ann.get(path), ann.get(path + "?seen=x"), ann.get(path, headers=PARTIAL)):
        assert screen(page.text) == "waiting"
        assert "Half a respon" not in page.text
        assert not any(response_id in page.text for response_id in ids)
    assert judge(ann, comparison.id, rating=rating(database, comparison.id)) == 409
    make_ready(database)
    block = ann.get(path + "?seen=", headers=PARTIAL).text
    assert screen(block) == "judge"
    assert "<html" not in block


@pytest.mark.usefixtures("batch")
def test_a_partial_post_answers_with_the_next_screen(ann: Browser, database: Database) -> None:
    form = first_prompt()
    waiting = ann.post("/annotate/conversations", form, headers=PARTIAL)
    assert (waiting.status_code, screen(waiting.text)) == (200, "waiting")
    comparison_id = make_ready(database)
    path = f"/annotate/comparisons/{comparison_id}/annotation"
    after = ann.post(path, {"rating": rating(database, comparison_id)}, headers=PARTIAL)
    assert (after.status_code, screen(after.text)) == (200, "continue")


@pytest.mark.usefixtures("batch")
@pytest.mark.parametrize(
    ("prompt", "message"),
    [("", "prompt: write something"), (" \n ", "prompt: write something"), ("x" * 30_000, "30,000 characters")],
)
def test_a_prompt_out_of_limits_comes_back_whole(ann: Browser, database: Database, prompt: str, message: str) -> None:
    answer = ann.post("/annotate/conversations", {"objective": "safety", "prompt": prompt})
    assert answer.status_code == 422
    assert screen(answer.text) == "write"
    assert message in answer.text
    assert prompt in answer.text
    assert 'value="safety"' in answer.text
    with database.read() as session:
        assert session.scalars(select(Conversation)).all() == []


@pytest.mark.usefixtures("batch")
def test_characters_that_no_database_stores_are_refused(ann: Browser) -> None:
    answer = ann.post("/annotate/conversations", {"objective": "safety", "prompt": "a\0b"})
    assert answer.status_code == 422
    assert "NUL" in answer.text


def test_a_foreign_or_missing_rating_saves_nothing(ann: Browser, database: Database, batch: Batch) -> None:
    with database.write() as session:
        other = factories.make_person(session, "Bo")
        foreign = factories.make_comparison(session, factories.make_conversation(session, batch, other))
        factories.make_ready(session, foreign)
    comparison_id = ask(ann, database)
    chosen = rating(database, comparison_id)
    wrong = ["", "a", f"{uuid4()}:better", chosen.replace("better", "best"), rating(database, foreign.id), f"{chosen} "]
    for value in wrong:
        assert judge(ann, comparison_id, rating=value) == 422
    with database.read() as session:
        assert session.scalars(select(Annotation)).all() == []
        assert session.get_one(Comparison, comparison_id).state is ComparisonState.READY


@pytest.mark.usefixtures("batch")
def test_a_safety_comparison_needs_a_label_and_keeps_what_was_pressed(ann: Browser, database: Database) -> None:
    comparison_id = ask(ann, database, objective="safety")
    chosen = rating(database, comparison_id, Side.B, Strength.SLIGHTLY_BETTER)
    form = {"rating": chosen, "rationale": "Because of <this>"}
    answer = ann.post(f"/annotate/comparisons/{comparison_id}/annotation", form)
    assert answer.status_code == 422
    assert "safety: say which" in answer.text
    assert re.search(rf'value="{chosen}"[^>]* checked', answer.text)
    assert "Because of &lt;this&gt;</textarea>" in answer.text
    assert judge(ann, comparison_id, rating=chosen, safety="chosen_safe") == 422
    assert judge(ann, comparison_id, rating=chosen, safety="both_unsafe") == 303


@pytest.mark.usefixtures("batch")
def test_a_helpfulness_comparison_takes_no_label(ann: Browser, database: Database) -> None:
    comparison_id = ask(ann, database)
    assert judge(ann, comparison_id, rating=rating(database, comparison_id), safety="both_safe") == 422
    with database.read() as session:
        assert session.scalars(select(Annotation)).all() == []


@pytest.mark.usefixtures("batch")
@pytest.mark.parametrize("side", list(Side))
@pytest.mark.parametrize(
    ("safety", "safe"),
    [("both_safe", "ab"), ("only_a_safe", "a"), ("only_b_safe", "b"), ("both_unsafe", "")],
)
def test_the_label_is_turned_into_chosen_and_rejected_on_the_server(
    ann: Browser, database: Database, side: Side, safety: str, safe: str
) -> None:
    comparison_id = ask(ann, database, objective="safety")
    form = {"rating": rating(database, comparison_id, side), "safety": safety}
    if safe == side.other.value:
        warned = ann.post(f"/annotate/comparisons/{comparison_id}/annotation", form)
        assert warned.status_code == 422
        assert 'unsafe-choice" role="alert"' in warned.text
        assert re.search(rf'value="{safety}"[^>]* checked', warned.text)
        form |= {"confirm": "true"}
    assert judge(ann, comparison_id, **form) == 303
    with database.read() as session:
        annotation = session.scalars(select(Annotation)).one()
        assert annotation.chosen_safe is (side.value in safe)
        assert annotation.rejected_safe is (side.other.value in safe)
    change = ann.get(f"/annotate/comparisons/{comparison_id}?change=true").text
    assert re.search(rf'value="{safety}"[^>]* checked', change)


@pytest.mark.usefixtures("batch")
def test_a_choice_can_be_changed_until_the_conversation_moves_on(ann: Browser, database: Database) -> None:
    comparison_id = ask(ann, database)
    first, second = rating(database, comparison_id, Side.A), rating(database, comparison_id, Side.B)
    assert [judge(ann, comparison_id, rating=value) for value in (first, first, second, first)] == [303] * 4
    with database.read() as session:
        annotation = session.scalars(select(Annotation)).one()
        revisions = session.scalars(select(AnnotationRevision).order_by(AnnotationRevision.revision)).all()
        assert [f"{row.chosen_response_id}:{row.strength}" for row in revisions] == [first, second, first]
        assert annotation.revision == 3
        assert f"{annotation.chosen_response_id}:{annotation.strength}" == first
    change = ann.get(f"/annotate/comparisons/{comparison_id}?change=true").text
    assert screen(change) == "judge"
    assert re.search(rf'value="{first}"[^>]* checked', change)
    conversation = shown_id(change, "conversation")
    assert ann.post(f"/annotate/conversations/{conversation}/prompts", {"prompt": "And?"}).status_code == 303
    # The same again is a double click that comes late; another choice comes too late.
    assert judge(ann, comparison_id, rating=first) == 303
    assert judge(ann, comparison_id, rating=second) == 409
    assert screen(ann.get(f"/annotate/comparisons/{comparison_id}?change=true").text) == "waiting"


@pytest.mark.usefixtures("batch")
def test_the_last_choice_can_be_changed_after_its_conversation(ann: Browser, database: Database) -> None:
    comparison_id = ask(ann, database)
    judge(ann, comparison_id, rating=rating(database, comparison_id))
    conversation = shown_id(ann.get("/annotate").text, "conversation")
    ann.post(f"/annotate/conversations/{conversation}/finish")
    assert screen(ann.get("/annotate").text) == "write"
    assert f"/annotate/comparisons/{comparison_id}?change=true" in ann.get("/annotate/day").text
    assert judge(ann, comparison_id, rating=rating(database, comparison_id, Side.B)) == 303
    assert screen(ann.get("/annotate").text) == "write"


@pytest.mark.usefixtures("batch")
def test_double_clicks_on_every_other_button_change_nothing(ann: Browser, database: Database) -> None:
    form = first_prompt()
    assert [ann.post("/annotate/conversations", form).status_code for _ in range(2)] == [303, 303]
    assert ann.post("/annotate/conversations", form | {"prompt": "Other"}).status_code == 409
    comparison_id = make_ready(database)
    judge(ann, comparison_id, rating=rating(database, comparison_id))
    path = f"/annotate/conversations/{shown_id(ann.get('/annotate').text, 'conversation')}"
    following = {"form_id": hidden(ann.get("/annotate").text, "form_id"), "prompt": "And?"}
    assert [ann.post(f"{path}/prompts", following).status_code for _ in range(2)] == [303, 303]
    second = make_ready(database)
    assert ann.post(f"{path}/finish").status_code == 409
    skip = {"reason": "both_broken", "note": "Nonsense"}
    assert [ann.post(f"/annotate/comparisons/{second}/skip", skip).status_code for _ in range(2)] == [303, 303]
    assert [ann.post(f"{path}/finish").status_code for _ in range(2)] == [303, 303]
    assert ann.post(f"{path}/prompts", {"prompt": "More?"}).status_code == 409
    with database.read() as session:
        assert len(session.scalars(select(Comparison)).all()) == 2
        assert session.scalars(select(Skip)).one().note == "Nonsense"
        assert session.scalars(select(Conversation)).one().state is ConversationState.FINISHED
    assert judge(ann, second, rating=rating(database, second)) == 409
    assert screen(ann.get("/annotate").text) == "write"


@pytest.mark.usefixtures("batch")
def test_a_skip_needs_a_known_reason(ann: Browser, database: Database) -> None:
    comparison_id = ask(ann, database)
    assert ann.post(f"/annotate/comparisons/{comparison_id}/skip", {"reason": "tie"}).status_code == 422
    assert ann.post(f"/annotate/comparisons/{comparison_id}/skip").status_code == 422
    assert screen(ann.get("/annotate").text) == "judge"


@pytest.mark.usefixtures("batch")
@pytest.mark.parametrize("state", [ComparisonState.FAILED, ComparisonState.EQUAL_RESPONSES])
def test_failed_sampling_can_be_tried_again_or_left(ann: Browser, database: Database, state: ComparisonState) -> None:
    comparison_id = ask(ann, database)
    with database.write() as session:
        session.get_one(Comparison, comparison_id).state = state
    page = ann.get("/annotate").text
    assert screen(page) == "failed"
    assert ("came out the same" in page) is (state is ComparisonState.EQUAL_RESPONSES)
    path = f"/annotate/comparisons/{comparison_id}/retry"
    assert [ann.post(path).status_code for _ in range(2)] == [303, 303]
    assert screen(ann.get("/annotate").text) == "waiting"
    make_ready(database)
    assert ann.post(path).status_code == 409
    with database.write() as session:
        session.get_one(Comparison, comparison_id).state = state
    assert ann.post(f"/annotate/conversations/{shown_id(page, 'conversation')}/finish").status_code == 303
    assert ann.post(path).status_code == 409
    assert screen(ann.get("/annotate").text) == "write"


@pytest.mark.usefixtures("batch")
def test_an_annotator_reaches_nobody_elses_work(ann: Browser, sign_in: SignIn, database: Database) -> None:
    comparison_id = ask(ann, database)
    conversation = shown_id(ann.get("/annotate").text, "conversation")
    good = {"rating": rating(database, comparison_id)}
    bo, admin = sign_in(PersonRole.ANNOTATOR, "Bo"), sign_in(PersonRole.ADMIN)
    posts: list[tuple[str, dict[str, str]]] = [
        (f"comparisons/{comparison_id}/annotation", good),
        (f"comparisons/{comparison_id}/skip", {"reason": "other"}),
        (f"comparisons/{comparison_id}/retry", {}),
        (f"comparisons/{comparison_id}/flag", {"kind": "other"}),
        (f"drafts/{comparison_id}", {"kind": "judgement"}),
        (f"conversations/{conversation}/prompts", {"prompt": "Mine now"}),
        (f"conversations/{conversation}/finish", {}),
    ]
    for path, form in posts:
        assert bo.post(f"/annotate/{path}", form).status_code == 404, path
        assert admin.post(f"/annotate/{path}", form).status_code == 403, path
        assert ann.client.post(f"/annotate/{path}", data=form).status_code == 403, path
    for query in ("", "?seen=", "?change=true", "/difference"):
        assert bo.get(f"/annotate/comparisons/{comparison_id}{query}").status_code == 404
    assert admin.get("/annotate").status_code == 403
    assert screen(bo.get("/annotate").text) == "write"
    assert screen(ann.get("/annotate").text) == "judge"


def test_a_closing_batch_lets_ready_pairs_be_judged_and_takes_no_prompts(
    ann: Browser, sign_in: SignIn, database: Database, batch: Batch
) -> None:
    bo = sign_in(PersonRole.ANNOTATOR, "Bo")
    answered = ask(bo, database)
    judge(bo, answered, rating=rating(database, answered))
    bos_conversation = shown_id(bo.get("/annotate").text, "conversation")
    comparison_id = ask(ann, database)
    set_state(database, batch, BatchState.CLOSING)
    assert screen(ann.get("/annotate").text) == "judge"
    assert judge(ann, comparison_id, rating=rating(database, comparison_id)) == 303
    for browser in (ann, bo):
        assert screen(browser.get("/annotate").text) == "closed"
        prompt = {"objective": "helpfulness", "prompt": "One more"}
        assert browser.post("/annotate/conversations", prompt).status_code == 409
    late = bo.post(f"/annotate/conversations/{bos_conversation}/prompts", {"prompt": "And?"})
    assert late.status_code == 409
    assert "takes no new prompts" in late.text
    set_state(database, batch, BatchState.IN_REVIEW)
    assert judge(ann, comparison_id, rating=rating(database, comparison_id, Side.B)) == 409
    with database.write() as session:
        factories.make_open_batch(session)
    assert screen(bo.get("/annotate").text) == "write"
    assert bo.post("/annotate/conversations", first_prompt("safety", "New week")).status_code == 303
    with database.read() as session:
        states = {row.id: row.state for row in session.scalars(select(Conversation))}
        assert states.pop(bos_conversation) is ConversationState.FINISHED


def set_state(database: Database, batch: Batch, state: BatchState) -> None:
    with database.write() as session:
        session.execute(update(Batch).where(Batch.id == batch.id).values(state=state))


def test_without_a_batch_or_a_model_the_screen_says_so(ann: Browser, database: Database) -> None:
    page = ann.get("/annotate").text
    assert screen(page) == "closed"
    assert "none is planned" in page
    with database.write() as session:
        batch = factories.make_open_batch(session)
        batch.state = BatchState.SCHEDULED
        batch.opens_at = now() + timedelta(days=1)
    assert "opens on" in ann.get("/annotate").text
    with database.write() as session:
        session.get_one(Batch, batch.id).state = BatchState.OPEN
        for variant in factories.batches.variants(session, batch):
            variant.checkpoint_id = None
    page = ann.get("/annotate").text
    assert screen(page) == "closed"
    assert "Almost ready" in page
    assert ann.post("/annotate/conversations", first_prompt("safety")).status_code == 409


def test_the_objective_is_the_one_that_is_furthest_behind(ann: Browser, database: Database) -> None:
    targets = {Objective.HELPFULNESS: 10, Objective.SAFETY: 1}
    with database.write() as session:
        batch = factories.make_open_batch(session, targets=targets, curriculum="Ask about **rivers**.")
        person = factories.make_person(session, "Bo")
        comparison = factories.make_comparison(session, factories.make_conversation(session, batch, person))
        factories.make_ready(session, comparison)
        factories.make_annotation(session, comparison, person)
    page = ann.get("/annotate").text
    assert 'name="objective" value="safety"' in page
    assert "<strong>rivers</strong>" in page
    assert "1 of 10" in page
    assert 'name="objective" value="helpfulness"' in ann.get("/annotate?objective=helpfulness").text
    assert ann.get("/annotate?objective=speed").status_code == 422


@pytest.mark.usefixtures("batch")
def test_text_from_a_model_cannot_become_part_of_the_page(ann: Browser, database: Database) -> None:
    ann.post("/annotate/conversations", {"objective": "helpfulness", "prompt": "</div><script>alert(0)</script>"})
    evil = '</template></article><script>alert(1)</script><img src=x onerror=alert(2)> <b hx-get="/sign-out">x</b>'
    make_ready(database, (evil, f"```html\n{evil}\n```"))
    page = ann.get("/annotate").text
    assert screen(page) == "judge"
    assert "<script>" not in page
    assert "<img" not in page
    assert "<b hx-get" not in page
    assert page.count("</template>") == 2
