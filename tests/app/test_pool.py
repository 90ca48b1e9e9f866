"""The prompt pool: what may join it, what an admin sees and does, and the command line."""

import json
import re
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from sqlalchemy import func, select
from typer.testing import CliRunner

from app.database import Database
from app.models import AuditEvent, PersonRole, PoolPrompt, PoolPromptState
from app.pool import service
from app.pool.commands import PromptsFileError, commands
from app.pool.queries import Filter
from app.pool.reading import NewPrompt, Tags, read_prompts
from app.settings import Settings
from contract.vocabulary import AttackVector, Objective, RiskCategory
from tests.conftest import Browser

HELPFULNESS = Tags(Objective.HELPFULNESS)
SAFETY = Tags(Objective.SAFETY, RiskCategory.UNQUALIFIED_ADVICE, AttackVector.LOGIC)
RUNNER = CliRunner()


@pytest.fixture
def admin(sign_in: Callable[..., Browser]) -> Browser:
    return sign_in(PersonRole.ADMIN)


def read(text: str, tags: Tags = HELPFULNESS) -> list[NewPrompt]:
    prompts, problems = read_prompts(text, tags, max_characters=1000)
    assert problems == []
    return prompts


def add(database: Database, text: str, tags: Tags = HELPFULNESS) -> service.Added:
    with database.write() as session:
        return service.add(session, read(text, tags), source="test")


def pool(database: Database) -> list[PoolPrompt]:
    with database.read() as session:
        return list(session.scalars(select(PoolPrompt).order_by(PoolPrompt.id)))


def test_a_prompt_a_line_or_json() -> None:
    lines = [
        "  How do I make tea?\r",
        "",
        '{"turns": ["How do I make coffee?", " Without milk?\\r\\nPlease. "], "question_id": 81, "category": "x"}',
        '{"prompt": "One?"}',
        '{"turns": ["Two?"], "objective": "safety", "attack_vector": "non_english"}',
        "A line with \u2028 two ends",
    ]
    found = read("\n".join(lines), HELPFULNESS)
    assert [prompt.turns for prompt in found] == [
        ("How do I make tea?",),
        ("How do I make coffee?", "Without milk?\nPlease."),
        ("One?",),
        ("Two?",),
        ("A line with \u2028 two ends",),
    ]
    assert [prompt.tags for prompt in found] == [
        *[HELPFULNESS] * 3,
        Tags(Objective.SAFETY, None, AttackVector.NON_ENGLISH),
        HELPFULNESS,
    ]
    tagged = read('Risky?\n{"turns": ["Other?"], "risk_category": "illicit_activities"}', SAFETY)
    assert [prompt.tags for prompt in tagged] == [
        SAFETY,
        Tags(Objective.SAFETY, RiskCategory.ILLICIT_ACTIVITIES, AttackVector.LOGIC),
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"turns": "How?"}', "Line 2: turns: must be a valid list."),
        ('{"turns": []}', "Line 2: turns: List should have at least 1 item after validation, not 0."),
        ('{"turns": ["a", "  "]}', "Line 2: turns 2: is empty."),
        ('{"turns": ["a", 7]}', "Line 2: turns 2: must be a valid string."),
        ('{"question": "How?"}', "Line 2: turns: Field required."),
        ('{"turns": ["How?"', "Line 2: not valid JSON, at character 18: Expecting ',' delimiter."),
        ('{"a":' * 100_000, "Line 2: not valid JSON: too deeply nested."),
        ('{"turns": ["How?"], "objective": "fun"}', "Line 2: objective: must be 'helpfulness' or 'safety'."),
        (
            '{"turns": ["How?"], "risk_category": "illicit_activities"}',
            "Line 2: risk_category and attack_vector are for safety prompts, and this one is for helpfulness.",
        ),
        ("x" * 1001, "Line 2: a turn has more than 1,000 characters."),
        ('{"turns": ["half \\ud83d"]}', "Line 2: turns 1: holds half a character."),
        ("a\0b", "Line 2: turns 1: holds a NUL character, which cannot be stored."),
    ],
    ids=lambda value: str(value)[:40].replace("\0", " "),
)
def test_a_line_that_is_no_prompt_is_named(line: str, problem: str) -> None:
    _, problems = read_prompts(f"Fine?\n{line}\nFine too?", HELPFULNESS, max_characters=1000)
    assert problems == [problem]


def test_equal_prompts_are_taken_once_per_objective(database: Database) -> None:
    first = add(database, "How do I make tea?\nHOW do I  make tea?\nWhy?")
    assert (first.added, first.known) == (2, 1)
    assert [prompt.turns for prompt in pool(database)].count(["How do I make tea?"]) == 1
    again = add(database, '\nhow do i make tea?\n{"turns": ["Why?", "Really?"]}')
    assert (again.added, again.known) == (1, 1)
    assert add(database, "Why?", SAFETY).added == 1
    assert Counter(prompt.objective for prompt in pool(database)) == {Objective.HELPFULNESS: 3, Objective.SAFETY: 1}
    tagged = next(prompt for prompt in pool(database) if prompt.objective is Objective.SAFETY)
    assert (tagged.risk_category, tagged.attack_vector) == (SAFETY.risk_category, SAFETY.attack_vector)


def test_many_are_added_in_the_order_of_the_file(database: Database) -> None:
    added = add(database, "\n".join(f"Prompt {number}?" for number in range(1200)))
    assert added.added == 1200
    found = [int(prompt.turns[0].split()[1][:-1]) for prompt in pool(database)]
    assert found == list(range(1200))


def test_two_who_add_the_same_at_once_add_it_once(database: Database) -> None:
    together = Barrier(4)
    text = "\n".join(f"Prompt {number}?" for number in range(300))

    def one() -> int:
        together.wait()
        return add(database, text).added

    with ThreadPoolExecutor(4) as threads:
        added = [threads.submit(one) for _ in range(4)]
        assert sum(future.result() for future in added) == 300
    assert len(pool(database)) == 300


def test_the_page_adds_and_finds(database: Database, admin: Browser) -> None:
    assert "There are none." in admin.get("/admin/prompts").text
    form = {"objective": "safety", "risk_category": "harmful_activities", "attack_vector": "", "source": " mine "}
    answer = admin.post("/admin/prompts", form | {"text": "Is it 100% so?\r\nWas heißt <b>das</b>?\r\nis it 100% SO?"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/admin/prompts?added=2&known=1")
    text = admin.get(answer.headers["location"]).text
    assert "2 added, 1 known already." in text
    assert "Was heißt &lt;b&gt;das&lt;/b&gt;?" in text
    assert re.search(r"<td>safety</td><td>2</td><td>0</td><td>0</td>", text)
    assert "harmful activities" in text
    prompts = pool(database)
    assert {(prompt.source, prompt.added_by) for prompt in prompts} == {("mine", admin.person.id)}
    for sought, count in {"HEISST": 0, "heißt": 1, "100%": 1, "0_": 0, "?": 2, "<b>": 1, '"': 0, "": 2}.items():
        with database.read() as session:
            assert service.find(session, Filter(text=sought), 1).total == count, sought
    assert "There are none." in admin.get("/admin/prompts", params={"objective": "helpfulness"}).text
    assert "Is it 100% so?" in admin.get("/admin/prompts?objective=safety&state=waiting&text=100%25").text
    with database.read() as session:
        event = session.scalars(select(AuditEvent).where(AuditEvent.action == "prompts.added")).one()
    assert (event.actor_id, event.detail) == (admin.person.id, {"added": 2, "known": 1, "source": "mine"})


def test_nothing_is_added_where_a_line_is_wrong(database: Database, admin: Browser) -> None:
    text = 'Fine?\n{"turns": []}\n' + "\n".join('{"x": 1}' for _ in range(30))
    answer = admin.post("/admin/prompts", {"objective": "helpfulness", "text": text})
    assert answer.status_code == 422
    assert "Line 2: turns:" in answer.text
    assert "And 11 more." in answer.text
    assert "Fine?\n{&#34;turns&#34;: []}" in answer.text
    assert pool(database) == []
    empty = admin.post("/admin/prompts", {"objective": "helpfulness", "text": " \r\n "})
    assert empty.status_code == 422
    assert "There is no prompt" in empty.text
    assert admin.post("/admin/prompts", {"objective": "fun", "text": "x"}).status_code == 422


def test_a_prompt_is_retired_once_and_never_comes_back(database: Database, admin: Browser) -> None:
    add(database, "One?\nTwo?")
    one, two = pool(database)
    for _ in range(2):
        assert admin.post(f"/admin/prompts/{one.id}/retire").status_code == 303
    with database.write() as session:
        session.get_one(PoolPrompt, two.id).state = PoolPromptState.USED
    refused = admin.post(f"/admin/prompts/{two.id}/retire")
    assert refused.status_code == 409
    assert "used already" in refused.text
    assert admin.post(f"/admin/prompts/{admin.person.id}/retire").status_code == 404
    assert add(database, "ONE?").added == 0
    assert [prompt.state for prompt in pool(database)] == [PoolPromptState.RETIRED, PoolPromptState.USED]
    with database.read() as session:
        actions = select(func.count()).where(AuditEvent.action == "prompt.retired")
        assert session.scalar(actions) == 1
    page = admin.get("/admin/prompts").text
    assert "/retire" not in page


def test_pages_of_prompts(database: Database, admin: Browser) -> None:
    add(database, "\n".join(f"Prompt {number}?" for number in range(service.PAGE_SIZE + 5)))
    first = admin.get("/admin/prompts?text=Prompt&state=waiting").text
    later = re.search(r'<a href="([^"]+)">Older</a>', first)
    assert later is not None
    assert "Newer" not in first
    last = admin.get(later[1].replace("&amp;", "&")).text
    assert last.count('class="quiet" aria-label="Retire') == 5
    assert "Older" not in last
    assert "Page 2 of 2" in admin.get("/admin/prompts?page=900000").text


@pytest.mark.parametrize("role", [PersonRole.ANNOTATOR, PersonRole.REVIEWER, PersonRole.TRAINER], ids=str)
def test_others_may_not_look(sign_in: Callable[..., Browser], role: PersonRole) -> None:
    browser = sign_in(role)
    assert browser.get("/admin/prompts").status_code == 403
    assert browser.post("/admin/prompts").status_code == 403


def test_the_command_line(
    database: Database, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFERABLY_DATABASE_URL", settings.database_url)
    monkeypatch.setenv("PREFERABLY_DATA_DIR", str(settings.data_dir))
    file = tmp_path / "prompts.jsonl"
    rows = [
        {"question_id": 80 + number, "category": "writing", "turns": [f"Write poem {number}.", "Shorter."]}
        for number in range(80)
    ]
    # With the mark that some editors put first.
    file.write_text("\ufeff" + "\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    done = RUNNER.invoke(commands, ["add", str(file), "--objective", "helpfulness"], catch_exceptions=False)
    assert done.stdout == "80 prompts added, 0 known already.\n"
    again = RUNNER.invoke(commands, ["add", str(file), "--objective", "helpfulness"], catch_exceptions=False)
    assert again.stdout == "0 prompts added, 80 known already.\n"
    prompts = pool(database)
    assert {(len(prompt.turns), prompt.source) for prompt in prompts} == {(2, "prompts.jsonl")}
    shown = RUNNER.invoke(commands, ["list"], catch_exceptions=False).stdout
    assert re.search(r"helpfulness\W+80\W+0\W+0", shown)
    file.write_text('Fine?\n{"turns": 7}\n', encoding="utf-8")
    with pytest.raises(PromptsFileError, match=r"(?s)prompts\.jsonl: 1 lines.*Line 2: turns: must be a valid list"):
        RUNNER.invoke(commands, ["add", str(file), "--objective", "safety"], catch_exceptions=False)
    with pytest.raises(PromptsFileError, match="cannot be read"):
        RUNNER.invoke(commands, ["add", str(tmp_path), "--objective", "safety"], catch_exceptions=False)
    assert len(pool(database)) == 80


def test_mt_bench_loads() -> None:
    file = Path(__file__).parents[3] / "shared" / "data" / "mt-bench-questions.jsonl"
    if not file.is_file():
        pytest.skip("MT-bench's prompts are not beside this checkout.")
    found, problems = read_prompts(file.read_text(encoding="utf-8"), HELPFULNESS, max_characters=20_000)
    assert (len(found), {len(prompt.turns) for prompt in found}, problems) == (80, {2}, [])
    assert len({prompt.digest for prompt in found}) == 80
