"""The prompt pool: what may join it, what an admin sees and does, and the command line."""

import csv
import io
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from httpx2 import Response as HttpResponse
from sqlalchemy import func, select
from typer.testing import CliRunner

from app.database import Database
from app.models import AuditEvent, PersonRole, PoolPrompt, PoolPromptState
from app.pool import service
from app.pool.commands import PromptsFileError, commands
from app.pool.drafts import Wanted
from app.pool.queries import Filter
from app.pool.reading import NewPrompt, Tags
from app.pool.sources import PromptsSourceError, WrittenAs
from app.settings import Settings
from contract.vocabulary import AttackVector, Objective, RiskCategory
from tests.conftest import Browser
from tests.prompts import read_prompts

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
    typed = form | {"text": "Is it 100% so?\r\nWas heißt <b>das</b>?\r\nis it 100% SO?", "tags": "Odd; rare"}
    answer = confirm(admin, admin.post("/admin/prompts", typed))
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


def confirm(admin: Browser, checked: HttpResponse) -> HttpResponse:
    """Confirm an import, on whose page a check ended."""
    assert checked.status_code == 303, checked.text
    assert admin.get(checked.headers["location"]).status_code == 200
    return admin.post(checked.headers["location"])


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
    refused = admin.post("/admin/prompts", {"objective": "fun", "text": "Mine?", "tags": "x" * 41})
    assert refused.status_code == 422
    assert "objective: must be" in refused.text
    assert "tags" in refused.text
    assert "Mine?" in refused.text


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
    assert re.fullmatch(r"80 prompts added, 0 known already, in \d+\.\d s\.\n", done.stdout)
    again = RUNNER.invoke(commands, ["add", str(file), "--objective", "helpfulness"], catch_exceptions=False)
    assert again.stdout.startswith("0 prompts added, 80 known already, in ")
    prompts = pool(database)
    assert {(len(prompt.turns), prompt.source) for prompt in prompts} == {(2, "prompts.jsonl")}
    shown = RUNNER.invoke(commands, ["list"], catch_exceptions=False).stdout
    assert re.search(r"helpfulness\W+80\W+0\W+0", shown)
    file.write_text('{"prompt": "Fine?"}\n{"turns": 7}\n', encoding="utf-8")
    with pytest.raises(PromptsFileError, match=r"(?s)prompts\.jsonl: 1 problem, .*Line 2: turns: must be a valid list"):
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


TABLE = [
    ["Turn_1", "turn 2", "Objective", "risk_category", "tags", "source", "score"],
    ["How do I make\ntea?", 'Without a "kettle"; a,b?', "", "", "Tea, HOT  drinks|tea", "", "7"],
    ["Risky?", "", "safety", "illicit_activities", "", " red team ", "8"],
    [],
    ["how do I make tea?", 'without a "kettle"; A,B?', "", "", "", "", "9"],
]


def as_csv(rows: list[list[str]], delimiter: str = ",") -> str:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter).writerows(rows)
    return text.getvalue()


@pytest.mark.parametrize("delimiter", [",", ";", "\t"], ids=["comma", "semicolon", "tab"])
def test_a_table_is_read_by_its_header(delimiter: str) -> None:
    prompts, problems = read_prompts(
        "\ufeff" + as_csv(TABLE, delimiter), Tags(Objective.HELPFULNESS, words=("all",)), name="exported.CSV"
    )
    assert problems == []
    assert [prompt.turns for prompt in prompts] == [
        ("How do I make\ntea?", 'Without a "kettle"; a,b?'),
        ("Risky?",),
        ("how do I make tea?", 'without a "kettle"; A,B?'),
    ]
    assert [prompt.line for prompt in prompts] == [2, 4, 6]
    assert prompts[0].digest == prompts[2].digest
    assert prompts[0].tags.words == ("tea", "hot drinks", "all")
    assert (prompts[1].tags, prompts[1].source) == (
        Tags(Objective.SAFETY, RiskCategory.ILLICIT_ACTIVITIES, None, ("all",)),
        "red team",
    )


def test_the_form_is_told_by_name_and_content() -> None:
    table = "prompt,tags\nHow?,a;b\n"
    pasted, _ = read_prompts(table, HELPFULNESS)
    assert [(one.turns, one.tags.words) for one in pasted] == [(("How?",), ("a", "b"))]
    as_text, _ = read_prompts(table, HELPFULNESS, form=WrittenAs.TEXT)
    assert [one.turns for one in as_text] == [("prompt,tags",), ("How?,a;b",)]
    # A prompt may look like a header, and have words in it that none knows.
    question, _ = read_prompts("prompt, please\nprompt, thanks", HELPFULNESS)
    assert len(question) == 2
    braces, _ = read_prompts('{"prompt": "x"}', HELPFULNESS, form=WrittenAs.TEXT)
    assert braces[0].turns == ('{"prompt": "x"}',)
    _, problems = read_prompts('How?\n["a"]', HELPFULNESS, name="prompts.jsonl")
    assert problems == [
        "Line 1: not valid JSON, at character 1: Expecting value.",
        "Line 2: must be a JSON object with prompt or turns.",
    ]
    tagged, _ = read_prompts('{"prompt": "x", "tags": ["A", "b c"]}\n{"prompt": "y", "tags": "d, e"}', HELPFULNESS)
    assert [one.tags.words for one in tagged] == [("a", "b c"), ("d", "e")]


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ("question,answer", "has no column prompt and no column turn_1; it has: question, answer"),
        ("", "has no column prompt and no column turn_1; it has: nothing"),
        ("prompt,turn_1", "has prompt as well as turn_1"),
        ("turn_1,turn_3", "has turn_3, and not all turns before it"),
        ("prompt,tags,Tags", "has the column tags twice"),
    ],
)
def test_a_wrong_header_names_the_columns_known(header: str, problem: str) -> None:
    with pytest.raises(PromptsSourceError) as raised:
        read_prompts(f"{header}\nHow?,x\n", HELPFULNESS, name="prompts.csv")
    assert problem in raised.value.message
    assert "Columns known here: prompt, or turn_1, turn_2 and so on; objective, risk" in raised.value.message


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("How?,fun,", "Line 2: objective: must be 'helpfulness' or 'safety'."),
        (" ,,x", "Line 2: turns 1: is empty."),
        (
            "One, two, three, four",
            "Line 2: has 4 cells, and the header 3: put text that holds the separator in quotes.",
        ),
        ('"How?"x,,', "Line 2: not valid CSV: ',' expected after '\"'."),
        (f"How?,,{'x' * 41}", "Line 2: tags 1: String should have at most 40 characters."),
    ],
)
def test_a_row_that_is_no_prompt_is_named(row: str, problem: str) -> None:
    prompts, problems = read_prompts(f'prompt,objective,tags\n{row}\n"Fine,\ntoo?",,\n', HELPFULNESS)
    assert problems == [problem]
    assert [(one.turns, one.line) for one in prompts] == [(("Fine,\ntoo?",), 3)]


def upload(admin: Browser, content: str | bytes, name: str = "prompts.csv", **fields: str) -> HttpResponse:
    data = {"objective": "helpfulness", "text": ""} | fields
    return admin.post("/admin/prompts", data, files={"file": (name, content)})


def test_an_upload_is_shown_before_it_is_added(database: Database, admin: Browser, settings: Settings) -> None:
    add(database, "Why?")
    table = 'prompt,objective,tags,source,more\nwhy?,,,,\n"<b>, is it so?",safety,A;B,mine,\nHow?,,,,\nHOW?,,,,\n'
    answer = upload(admin, table, tags="October")
    assert answer.status_code == 303
    page = admin.get(answer.headers["location"]).text
    for shown in ("<dt>New</dt><dd>2", "from it</dt><dd>1", "line</dt><dd>1", "passed over</dt><dd>more"):
        assert shown in page
    assert "Line 5 says the same as line 4." in page
    assert "&lt;b&gt;, is it so?" in page
    assert "Add 2 prompts" in page
    assert len(pool(database)) == 1
    done = admin.post(answer.headers["location"])
    assert done.headers["location"] == "/admin/prompts?added=2&known=2"
    found = {prompt.turns[0]: prompt for prompt in pool(database)}
    assert (found["How?"].tags, found["How?"].source) == (["october"], "prompts.csv")
    assert (found["<b>, is it so?"].tags, found["<b>, is it so?"].source) == (["a", "b", "october"], "mine")
    assert admin.post(answer.headers["location"]).status_code == 404
    assert list((settings.data_dir / "prompt-imports").iterdir()) == []
    for tag, count in {"October": 2, "a": 1, "octo": 0, "": 3, "A, b": 1, '"': 0, "%": 0}.items():
        text = admin.get("/admin/prompts", params={"tag": tag}).text
        assert text.count('aria-label="Retire') == count, tag
    assert 'href="/admin/prompts?tag=october"' in admin.get("/admin/prompts").text


def test_an_upload_with_problems_cannot_be_added(database: Database, admin: Browser, settings: Settings) -> None:
    answer = upload(admin, "prompt,objective\nHow?,\n" + "Why?,fun\n" * 60)
    page = admin.get(answer.headers["location"]).text
    assert "these 60 lines are" in page
    assert "Line 3: objective: must be" in page
    assert "And 10 more." in page
    assert "Add 1 prompt" not in page
    assert admin.post(answer.headers["location"]).status_code == 422
    assert pool(database) == []
    assert admin.post(f"{answer.headers['location']}/discard").headers["location"] == "/admin/prompts"
    assert admin.get(answer.headers["location"]).status_code == 404
    for content, problem in (
        (b"PK\x03\x04\xff\xfe", "it is no text in UTF-8"),
        ("question\nHow?\n", "has no column prompt"),
    ):
        refused = upload(admin, content)
        assert refused.status_code == 422
        assert problem in refused.text
    assert list((settings.data_dir / "prompt-imports").iterdir()) == []
    only_known = upload(admin, "prompt\n")
    assert "There is no prompt" in admin.get(only_known.headers["location"]).text


def test_a_large_upload_from_others_is_refused_unread(sign_in: Callable[..., Browser]) -> None:
    assert upload(sign_in(PersonRole.TRAINER), "prompt\nHow?\n").status_code == 403


def test_a_dry_run_adds_nothing(
    database: Database, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFERABLY_DATABASE_URL", settings.database_url)
    monkeypatch.setenv("PREFERABLY_DATA_DIR", str(settings.data_dir))
    file = tmp_path / "prompts.csv"
    file.write_text("prompt;tags;other\nHow?;a\nhow?;b\n", encoding="utf-8")
    command = ["add", str(file), "--objective", "helpfulness", "--tags", "One, two"]
    shown = RUNNER.invoke(commands, [*command, "--dry-run"], catch_exceptions=False).stdout
    assert "prompts.csv: 1 new, 0 in the pool already, 1 said by an earlier line; checked in 0." in shown
    assert "line 3 says the same as line 2" in shown
    assert "columns passed over: other" in shown
    assert "new (helpfulness, a, one, two): How?" in shown
    assert pool(database) == []
    done = RUNNER.invoke(commands, [*command, "--source", "elsewhere"], catch_exceptions=False)
    assert done.stdout.startswith("1 prompts added, 1 known already, in ")
    assert [(one.tags, one.source) for one in pool(database)] == [(["a", "one", "two"], "elsewhere")]
    with pytest.raises(PromptsFileError, match="--tags"):
        RUNNER.invoke(commands, [*command, "--tags", "x" * 41], catch_exceptions=False)


def test_a_hundred_thousand_prompts(database: Database, settings: Settings) -> None:
    rows = [["prompt", "tags"], *([f"Question {number} of very many, is it not?", "many"] for number in range(100_000))]
    wanted = Wanted(tags=HELPFULNESS)
    began = time.perf_counter()
    draft = service.check(database, settings, wanted, io.BytesIO(as_csv(rows).encode()), "many.csv")
    checked = time.perf_counter()
    with database.write() as session:
        assert service.confirm(session, draft, settings).added == 100_000
    added = time.perf_counter()
    assert service.check(database, settings, wanted, io.BytesIO(as_csv(rows).encode()), "many.csv").known == 100_000
    sys.stdout.write(f"checked in {checked - began:.1f} s, added in {added - checked:.1f} s")
    # Some 10 s on two cores that others use too; a slow machine must not fail the test.
    assert added - began < 120
