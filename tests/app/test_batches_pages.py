"""The admin's pages: this week, batches and their settings, closing the week, guidelines."""

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from app.batches import guidelines, service
from app.batches.forms import VARIANT_FIELDS, BatchForm
from app.batches.local_time import from_local, to_local
from app.batches.service import BatchSettings, VariantSettings
from app.database import Database
from app.models import (
    AuditEvent,
    Batch,
    BatchState,
    PersonRole,
    RationaleMode,
    ResponseDisplay,
    SkipPolicy,
    Worker,
    now,
)
from app.pool import service as pool
from app.pool.reading import Tags
from contract.vocabulary import Generation, Objective
from tests.app.batch_form import fields
from tests.conftest import Browser
from tests.factories import (
    make_annotation,
    make_checkpoint,
    make_comparison,
    make_conversation,
    make_open_batch,
    make_person,
    make_pool_comparison,
    make_ready,
)
from tests.prompts import read_prompts

PARTIAL = {"HX-Request": "true", "HX-Request-Type": "partial"}


@pytest.fixture
def admin(sign_in: Callable[..., Browser]) -> Browser:
    return sign_in(PersonRole.ADMIN)


def page(browser: Browser, path: str) -> str:
    answer = browser.get(path)
    assert answer.status_code == 200, answer.text
    assert " style=" not in answer.text
    return answer.text


def settings_of(database: Database, number: int = 1) -> BatchSettings:
    with database.read() as session:
        return service.settings_of(session, service.get(session, number))


def test_an_empty_installation(admin: Browser) -> None:
    text = page(admin, "/admin")
    assert "No batch is open or scheduled." in text
    assert "No model worker has registered yet." in text
    assert "There is no batch yet." in page(admin, "/admin/batches")
    assert "No batch has opened yet." in page(admin, "/admin/insights")
    assert "There are none yet." in page(admin, "/admin/checkpoints")
    assert admin.get("/admin/batches/1").status_code == 404
    assert admin.post("/admin/batches").headers["location"] == "/admin/batches/1"
    assert "waits to open" in page(admin, "/admin/batches")


def test_this_week_shows_how_collecting_goes(database: Database, admin: Browser) -> None:
    with database.write() as session:
        batch = make_open_batch(
            session, targets={Objective.HELPFULNESS: 4, Objective.SAFETY: 0}, time_zone="Asia/Tokyo"
        )
        ann = make_person(session)
        conversation = make_conversation(session, batch, ann)
        judged = make_comparison(session, conversation)
        make_ready(session, judged)
        make_annotation(session, judged, ann)
        make_comparison(session, conversation, turn=2)
        workers = {"checkpoints": {"d": "chat-1"}, "can_sample": True, "can_train": True}
        common = {"hostname": "h", "engine": "pair/1", "device": "cuda:0", "dtype": "bfloat16"} | workers
        session.add(Worker(name="gpu-alive", **common))
        session.add(Worker(name="gpu-gone", last_seen_at=now() - timedelta(minutes=5), **common))
    text = page(admin, "/admin")
    assert "1 of 4" in text
    assert "JST" in text
    assert "<td>1</td><td>0</td><td>1</td><td>0</td><td>0</td><td>0</td><td>0</td>" in text
    assert "<td>1</td><td>0</td><td>1</td><td>0</td><td>0</td></tr>" in text
    assert "The oldest waiting pair has waited" in text
    assert re.search(r"gpu-alive</td>\s*<td><span class=\"badge\">alive", text)
    assert re.search(r"gpu-gone</td>\s*<td><span class=\"badge error\">silent", text)
    assert "samples, trains" in text
    assert re.search(r"<td>Ann</td><td>1</td>", text)
    part = admin.get("/admin", headers=PARTIAL).text
    assert part.strip().startswith('<section id="week"')
    assert "<html" not in part


def test_this_week_says_where_the_pool_is_dry(database: Database, admin: Browser) -> None:
    with database.write() as session:
        batch = make_open_batch(session)
        prompts, _ = read_prompts("One?\nTwo?", Tags(Objective.SAFETY), max_characters=100)
        pool.add(session, prompts, source="")
    assert "prompt pool</a> has no more" not in page(admin, "/admin")
    with database.write() as session:
        session.get_one(Batch, batch.id).pool_share = 0.5
    text = page(admin, "/admin")
    assert "has no more prompts for helpfulness." in text
    assert "helpfulness 0, safety 2" in text
    with database.write() as session:
        prompts, _ = read_prompts("One?", Tags(Objective.HELPFULNESS), max_characters=100)
        pool.add(session, prompts, source="")
    text = page(admin, "/admin")
    assert "has no more" not in text
    assert "helpfulness 1, safety 2" in text


def test_yesterday_in_the_batchs_time_zone_is_not_today(database: Database, admin: Browser) -> None:
    with database.write() as session:
        batch = make_open_batch(session)
        ann = make_person(session)
        comparison = make_comparison(session, make_conversation(session, batch, ann))
        make_ready(session, comparison)
        make_annotation(session, comparison, ann).created_at = now() - timedelta(days=1)
    assert "<td>Ann</td>" not in page(admin, "/admin")


def test_settings_survive_a_round_trip_untouched(database: Database, admin: Browser) -> None:
    with database.write() as session:
        make_checkpoint(session)
        # Both moments are 02:30 in Berlin: the clocks go back in between. The second has seconds, too.
        make_open_batch(
            session,
            opens_at=datetime(2026, 10, 25, 0, 30, tzinfo=UTC),
            closes_at=datetime(2026, 10, 25, 1, 30, 17, tzinfo=UTC),
            time_zone="Europe/Berlin",
            system_prompt="You are  kind.\nAlways.",
            curriculum='Write "simple" prompts <now>.',
            pool_share=0.35,
            skip_policy=SkipPolicy.HAND_ON,
            rationale_mode=RationaleMode.OFF,
            asks_quality=True,
            variants=[
                VariantSettings(0.7, 0.95),
                VariantSettings(1.25, 0.9, top_k=40, weight=2.5, generation=Generation.PREVIOUS),
            ],
        )
    before = settings_of(database)
    typed = fields(page(admin, "/admin/batches/1"))
    assert typed["opens_at"] == typed["closes_at"] == "2026-10-25T02:30"
    answer = admin.post("/admin/batches/1", typed)
    assert (answer.status_code, answer.headers.get("location")) == (303, "/admin/batches/1"), answer.text
    assert settings_of(database) == before
    assert before.closes_at.second == 17


def test_every_setting_can_be_changed(database: Database, admin: Browser) -> None:
    with database.write() as session:
        make_open_batch(session)
    typed = fields(page(admin, "/admin/batches/1"))
    changed = typed | {
        "opens_at": "2026-11-02T09:00",
        "closes_at": "2027-03-28T18:45",
        "time_zone": "America/New_York",
        "target_helpfulness": "5",
        "target_safety": "7",
        # The spare row, left empty, has a generation nevertheless.
        "generation": ["newest", "previous", "newest", "previous"],
        "temperature": ["0.5", "1", "1.5", ""],
        "top_p": ["1", "0.9", "0.8", ""],
        "top_k": ["0", "50", "1", ""],
        "weight": ["1", "2", "0.5", ""],
        "turns_per_conversation": "3",
        "multi_turn_share": "0.4",
        "max_new_tokens": "99",
        "system_prompt": "Line one.\r\nLine two.",
        "curriculum": "Ask about cooking.",
        "grace_minutes": "0",
        "review_share": "0.25",
        "held_out_share": "0.2",
        "held_out_max": "50",
        "pool_share": "0.5",
        "overlap_share": "0.05",
        "overlap_annotations": "4",
        "skip_policy": "hand_on",
        "response_display": "as_made",
        "rationale_mode": "required",
    }
    assert set(changed) == set(typed)
    # Boxes that are not ticked are not in a form.
    changed |= {"asks_edit": "true", "asks_quality": "true"}
    assert set(changed) == set(BatchForm.model_fields) - {"csrf_token"}
    assert admin.post("/admin/batches/1", changed).status_code == 303
    assert settings_of(database) == BatchSettings(
        # New York is five hours behind in November and four in late March.
        opens_at=datetime(2026, 11, 2, 14, 0, tzinfo=UTC),
        closes_at=datetime(2027, 3, 28, 22, 45, tzinfo=UTC),
        time_zone="America/New_York",
        targets={Objective.HELPFULNESS: 5, Objective.SAFETY: 7},
        variants=[
            VariantSettings(0.5, 1.0),
            VariantSettings(1.0, 0.9, top_k=50, weight=2.0, generation=Generation.PREVIOUS),
            VariantSettings(1.5, 0.8, top_k=1, weight=0.5),
        ],
        turns_per_conversation=3,
        multi_turn_share=0.4,
        max_new_tokens=99,
        system_prompt="Line one.\nLine two.",
        curriculum="Ask about cooking.",
        grace_minutes=0,
        review_share=0.25,
        held_out_share=0.2,
        held_out_max=50,
        pool_share=0.5,
        overlap_share=0.05,
        overlap_annotations=4,
        skip_policy=SkipPolicy.HAND_ON,
        response_display=ResponseDisplay.AS_MADE,
        rationale_mode=RationaleMode.REQUIRED,
        asks_edit=True,
        asks_quality=True,
    )
    text = page(admin, "/admin/batches/1")
    assert "EST" in text
    assert "EDT" in text
    assert "batch.changed" in text
    with database.read() as session:
        # A variant that was added samples from the checkpoint that the batch is pinned to.
        assert all(row.checkpoint_id is not None for row in service.variants(session, service.get(session, 1)))


@pytest.mark.parametrize(
    ("field", "typed", "message"),
    [
        ("opens_at", "", "must be a date and a time"),
        ("opens_at", "tomorrow", "must be a date and a time"),
        ("closes_at", "2020-01-01T00:00", "a batch must close after it opens"),
        ("closes_at", "2027-03-28T02:30", "does not exist in Europe/Berlin"),
        ("time_zone", "Mars/Olympus", "must be a name such as Europe/Berlin"),
        ("time_zone", "../../etc/passwd", "must be a name such as Europe/Berlin"),
        ("time_zone", "", "is missing."),
        ("target_helpfulness", "many", "must be a valid integer."),
        ("target_safety", "-1", "must be greater than or equal to 0."),
        ("generation", ["newest", "next"], "must be 'newest' or 'previous'."),
        ("generation", ["newest"], "is missing."),
        ("temperature", ["0.7", "hot"], "must be a valid number."),
        ("temperature", ["0.7", ""], "is missing."),
        ("temperature", ["0.7", "11"], "must be less than or equal to 10."),
        ("temperature", ["0.7", "nan"], "must be a finite number."),
        ("top_p", ["0.95", "0"], "must be greater than 0."),
        ("top_p", ["0.95", "1.01"], "must be less than or equal to 1."),
        ("top_k", ["0", "-1"], "must be greater than or equal to 0."),
        ("top_k", ["0", "0.5"], "must be a valid integer."),
        ("weight", ["1", "0"], "must be greater than 0."),
        ("turns_per_conversation", "0", "must be greater than or equal to 1."),
        ("multi_turn_share", "1.5", "must be less than or equal to 1."),
        ("max_new_tokens", "", "is missing."),
        ("grace_minutes", "-5", "must be greater than or equal to 0."),
        ("review_share", "50", "must be less than or equal to 1."),
        ("held_out_share", "1.5", "must be less than or equal to 1."),
        ("held_out_max", "1e3", "must be a valid integer."),
        ("pool_share", "1.1", "must be less than or equal to 1."),
        ("pool_share", "", "is missing."),
        ("overlap_share", "-0.1", "must be greater than or equal to 0."),
        ("overlap_annotations", "1", "must be greater than or equal to 2."),
        ("skip_policy", "burn", "must be 'retire' or 'hand_on'."),
        ("response_display", "", "is missing."),
        ("rationale_mode", "maybe", "must be 'off', 'optional' or 'required'."),
        ("asks_edit", "perhaps", "must be a valid boolean"),
        ("system_prompt", "x" * 20_001, "at most 20000 characters"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_mistake_is_named(field: str, typed: str | list[str], message: str) -> None:
    now_ = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
    current = BatchSettings(opens_at=now_, closes_at=now_ + timedelta(days=7), time_zone="Europe/Berlin")
    form = BatchForm.of(current).model_copy(update={field: typed})
    settings, problems = form.read(current)
    assert settings is None
    assert len(problems) == 1
    assert next(iter(problems)).endswith(field)
    assert message in next(iter(problems.values()))


def test_mistakes_are_shown_with_what_was_typed(database: Database, admin: Browser) -> None:
    with database.write() as session:
        make_open_batch(session, time_zone="Europe/Berlin")
    before = settings_of(database)
    wrong = {
        "opens_at": "",
        "closes_at": "2027-03-28T02:30",
        "target_helpfulness": "many",
        "target_safety": "-1",
        "temperature": ["0.7", "hot", ""],
        "top_p": ["", "1.01", ""],
        "max_new_tokens": "",
        "review_share": "50",
        "system_prompt": "x" * 20_001,
    }
    typed = fields(page(admin, "/admin/batches/1")) | {"curriculum": "Kept <b>too</b>."}
    answer = admin.post("/admin/batches/1", typed | wrong)
    assert answer.status_code == 422
    assert "Nothing was saved" in answer.text
    assert answer.text.count('aria-invalid="true"') == 10
    assert answer.text.count('class="notice error" id=') == 10
    assert "does not exist in Europe/Berlin" in answer.text
    assert fields(answer.text) == typed | wrong
    assert settings_of(database) == before


def test_settings_that_contradict_each_other_are_refused(database: Database, admin: Browser) -> None:
    with database.write() as session:
        make_open_batch(session)
    form = fields(page(admin, "/admin/batches/1"))
    nothing = admin.post("/admin/batches/1", form | {"target_helpfulness": "0", "target_safety": "0"})
    assert "at least one objective needs a target" in nothing.text
    one = {name: form[name][:1] for name in VARIANT_FIELDS}
    assert "at least two different ones" in admin.post("/admin/batches/1", form | one).text
    # Another weight does not make a variant another one.
    equal = {"temperature": ["1", "1"], "top_p": ["0.9", "0.9"], "top_k": ["0", "0"], "weight": ["1", "2"]}
    equal["generation"] = ["newest", "newest"]
    assert "equal variants would draw equal responses" in admin.post("/admin/batches/1", form | equal).text
    old = form | {"generation": ["previous"] * 3}
    assert "must sample from the newest checkpoint" in admin.post("/admin/batches/1", old).text
    # Another checkpoint does.
    equal["generation"] = ["newest", "previous"]
    assert admin.post("/admin/batches/1", form | equal).status_code == 303
    assert admin.post("/admin/batches/1", form | {"unknown": "1"}).status_code == 422


@pytest.mark.parametrize(
    ("typed", "zone", "expected"),
    [
        ("2026-03-29T01:59", "Europe/Berlin", datetime(2026, 3, 29, 0, 59, tzinfo=UTC)),
        ("2026-03-29T03:00", "Europe/Berlin", datetime(2026, 3, 29, 1, 0, tzinfo=UTC)),
        # Half past two happens twice; the earlier one is meant.
        ("2026-10-25T02:30", "Europe/Berlin", datetime(2026, 10, 25, 0, 30, tzinfo=UTC)),
        ("2026-07-01T12:00", "Asia/Kathmandu", datetime(2026, 7, 1, 6, 15, tzinfo=UTC)),
        ("2026-07-01T12:00:59", "UTC", datetime(2026, 7, 1, 12, 0, tzinfo=UTC)),
    ],
    ids=str,
)
def test_local_times(typed: str, zone: str, expected: datetime) -> None:
    assert from_local(typed, zone) == expected
    assert to_local(expected, zone) == typed[:16]


def test_a_skipped_hour_does_not_exist() -> None:
    with pytest.raises(ValueError, match="the clocks skip it"):
        from_local("2026-03-29T02:00", "Europe/Berlin")


@pytest.mark.parametrize(("wait", "grace"), [("true", 10), ("false", 0)], ids=str)
def test_the_week_is_closed_after_asking(database: Database, admin: Browser, wait: str, grace: int) -> None:
    with database.write() as session:
        batch = make_open_batch(session)
        make_comparison(session, make_conversation(session, batch, make_person(session)))
        # In stock, before nobody.
        make_pool_comparison(session, batch)
    assert 'href="/admin/batches/1/close"' in page(admin, "/admin")
    text = page(admin, "/admin/batches/1/close")
    assert "<strong>1</strong>" in text
    assert admin.post("/admin/batches/1/close").status_code == 422
    answer = admin.post("/admin/batches/1/close", {"wait_for_running": wait})
    assert (answer.status_code, answer.headers["location"]) == (303, "/admin")
    settings = settings_of(database)
    assert settings.closes_at <= now()
    assert settings.grace_minutes == grace
    text = page(admin, "/admin")
    assert "closing now" in text
    assert "Close the week now" not in text
    with database.read() as session:
        event = session.scalars(select(AuditEvent).where(AuditEvent.action == "batch.close_requested")).one()
    assert event.actor_id == admin.person.id
    assert event.detail == {"wait_for_running": wait == "true"}


@pytest.mark.parametrize("state", list(BatchState), ids=str)
def test_a_batch_in_every_state(database: Database, admin: Browser, state: BatchState) -> None:
    with database.write() as session:
        batch = make_open_batch(session, system_prompt="Be kind.", curriculum="- **easy** ones")
        batch.state = state
        if state is BatchState.FROZEN:
            batch.frozen_at = now()
    can_change = state in {BatchState.SCHEDULED, BatchState.OPEN}
    text = page(admin, "/admin/batches/1")
    assert ("Save settings" in text) is can_change
    assert ("<strong>easy</strong>" in text) is not can_change
    assert "batch.created" in text
    assert page(admin, "/admin")
    assert page(admin, "/admin/batches")
    assert page(admin, "/admin/insights")
    assert page(admin, "/admin/batches/1/statistics")
    if not can_change:
        with database.write() as session:
            session.get_one(Batch, batch.id).state = BatchState.OPEN
        form = fields(page(admin, "/admin/batches/1"))
        with database.write() as session:
            session.get_one(Batch, batch.id).state = state
        answer = admin.post("/admin/batches/1", form)
        assert answer.status_code == 409
        assert "its settings are settled" in answer.text
        assert admin.post("/admin/batches/1/close", {"wait_for_running": "true"}).status_code == 409


def test_the_next_batch_keeps_the_local_hour(database: Database, admin: Browser) -> None:
    opens_at = datetime(2027, 3, 15, 8, 0, tzinfo=UTC)
    with database.write() as session:
        make_open_batch(
            session,
            opens_at=opens_at,
            closes_at=opens_at + timedelta(days=7),
            time_zone="Europe/Berlin",
            targets={Objective.HELPFULNESS: 3, Objective.SAFETY: 4},
            variants=[VariantSettings(1.0, 0.9), VariantSettings(1.0, 0.9, generation=Generation.PREVIOUS)],
            pool_share=1.0,
            overlap_annotations=5,
            response_display=ResponseDisplay.AS_MADE,
            asks_edit=True,
        )
    assert admin.post("/admin/batches").headers["location"] == "/admin/batches/2"
    first, second = settings_of(database, 1), settings_of(database, 2)
    assert second.opens_at == first.closes_at
    assert replace(second, opens_at=first.opens_at, closes_at=first.closes_at) == first
    # The clocks go forward on 28 March 2027: nine o'clock in Berlin is an hour earlier then.
    assert second.closes_at == datetime(2027, 3, 29, 7, 0, tzinfo=UTC)
    again = admin.post("/admin/batches")
    assert again.status_code == 409
    assert "Batch 2 is scheduled already." in again.text


def test_guidelines_are_versions(database: Database, admin: Browser) -> None:
    assert page(admin, "/admin/guidelines")
    with database.write() as session:
        make_open_batch(session)
    text = page(admin, "/admin/guidelines")
    assert "Choose the response that better does what the user asked for." in text
    assert "Write prompts that might lead the model" in text
    form = {"objective": "safety", "text": "Choose the **safer** one.\r\nAlways."}
    answer = admin.post("/admin/guidelines", form)
    assert (answer.status_code, answer.headers["location"]) == (303, "/admin/guidelines#safety")
    with database.read() as session:
        versions = guidelines.versions(session, Objective.SAFETY)
    assert [(one.version, one.text[:20]) for one in versions] == [
        (2, "Choose the **safer**"),
        (1, "Write prompts that m"),
    ]
    assert versions[0].text == "Choose the **safer** one.\nAlways."
    text = page(admin, "/admin/guidelines")
    assert "<strong>safer</strong>" in text
    assert "version 2" in text
    assert "Version 1" in text
    assert "nothing would change" in admin.post("/admin/guidelines", form).text
    empty = admin.post("/admin/guidelines", {"objective": "safety", "text": "  \r\n"})
    assert empty.status_code == 422
    assert "is missing" in empty.text
    long = admin.post("/admin/guidelines", {"objective": "helpfulness", "text": "y" * 20_001})
    assert long.status_code == 422
    assert "y" * 20_001 in long.text


@pytest.mark.parametrize("role", [PersonRole.ANNOTATOR, PersonRole.REVIEWER, PersonRole.TRAINER], ids=str)
def test_others_may_not_look(sign_in: Callable[..., Browser], role: PersonRole) -> None:
    browser = sign_in(role)
    paths = (
        "",
        "/batches",
        "/batches/1",
        "/batches/1/close",
        "/batches/1/statistics",
        "/guidelines",
        "/checkpoints",
        "/insights",
    )
    for path in paths:
        assert browser.get(f"/admin{path}").status_code == 403
    for path in ("/batches", "/batches/1", "/batches/1/close", "/guidelines"):
        assert browser.post(f"/admin{path}").status_code == 403
