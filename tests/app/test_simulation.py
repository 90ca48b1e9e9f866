"""Simulated annotators: their preference is known, mirrored and calibrated, and they work the real pages."""

import json
import math
import random
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select
from sqlalchemy.orm import selectinload

from app.accounts import service as accounts
from app.background import reconciling
from app.batches import service as batches
from app.database import Database
from app.models import (
    Annotation,
    Assignment,
    Comparison,
    ComparisonState,
    Conversation,
    PersonRole,
    PromptSource,
    RationaleMode,
    ResponseDisplay,
    Skip,
    SkipPolicy,
    now,
)
from app.pool import service as pool
from app.pool.reading import Tags
from app.sampling import leases, queries
from app.settings import Settings
from app.simulation.annotator import Habits, Record, qualities, safety_value
from app.simulation.browser import SimulationError
from app.simulation.commands import read_links
from app.simulation.crowd import Crowd, Summary, run_crowd, summarise
from app.simulation.pages import ShownResponse, read_page
from app.simulation.preference import (
    Judgement,
    Pair,
    Taste,
    expected_accuracy,
    is_safe,
    judge,
    strength_of,
    utility,
    utility_gap,
)
from app.simulation.prompts import PromptsError, Writer, read_prompts
from contract.vocabulary import Objective, Side, Strength
from tests.factories import make_open_batch, make_person, make_ready
from tests.prompts import read_prompts as read_prompts_of_pool

WORDS = (
    "the and to of in is it you that for on with as are was this have at but what all when we there can which do "
    "will how about them then many some like see time make than water long after words just know tea bread"
).split()
HELPFULNESS = Objective.HELPFULNESS
SAFETY = Objective.SAFETY


def random_text(generator: random.Random, *, words: int | None = None) -> str:
    return " ".join(generator.choices(WORDS, k=words or generator.randint(3, 40)))


def random_pairs(count: int, seed: int = 0) -> list[Pair]:
    generator = random.Random(seed)
    return [Pair(f"prompt {number}", random_text(generator), random_text(generator)) for number in range(count)]


def test_utility_is_about_first_letters() -> None:
    assert utility("apple bread cheese dinner") == pytest.approx(4 / math.sqrt(4))
    assert utility("tea water over stones") == pytest.approx(-4 / math.sqrt(4))
    assert utility("Apple TEA") == 0
    assert utility("") == utility("42 !? ...") == 0


def test_utility_likes_proper_ends_and_steps() -> None:
    assert utility("apple tea.") == pytest.approx(0.3)
    assert utility("1. apple\n2. tea") == pytest.approx(0.3)
    assert utility("- apple\n- tea!") == pytest.approx(0.6)


def test_utility_is_not_length() -> None:
    generator = random.Random(1)
    texts = [random_text(generator) for _ in range(3000)]
    utilities = [utility(text) for text in texts]
    assert abs(statistics.correlation(utilities, [len(text) for text in texts])) < 0.2
    assert 0.8 < statistics.stdev(utilities) < 1.2


def test_drift_turns_the_preference() -> None:
    texts = [pair.a for pair in random_pairs(2000)]
    before = [utility(text) for text in texts]
    assert abs(statistics.correlation(before, [utility(text, drift=1) for text in texts])) < 0.4
    assert statistics.correlation(before, [utility(text, drift=2) for text in texts]) < -0.9
    assert statistics.correlation(before, [utility(text, drift=0.2) for text in texts]) > 0.9


@given(
    a=st.text(max_size=60),
    b=st.text(max_size=60),
    objective=st.sampled_from(Objective),
    noise=st.sampled_from([0.0, 0.5, 2.0]),
    drift=st.floats(-2, 2),
)
def test_swapping_the_sides_mirrors_the_judgement(
    a: str, b: str, objective: Objective, noise: float, drift: float
) -> None:
    taste = Taste(noise=noise, drift=drift)
    seen = judge(Pair("p", a, b), objective, taste, key="ann")
    mirrored = judge(Pair("p", b, a), objective, taste, key="ann")
    assert mirrored.strength is seen.strength
    assert (mirrored.a_is_safe, mirrored.b_is_safe) == (seen.b_is_safe, seen.a_is_safe)
    is_tie = utility_gap(Pair("p", a, b), objective, drift=drift) == 0 and (noise == 0 or a == b)
    assert mirrored.choice is (seen.choice if is_tie else seen.choice.other)


def test_without_noise_the_higher_utility_is_chosen() -> None:
    for pair in random_pairs(500):
        gap = utility_gap(pair, HELPFULNESS)
        if gap:
            for key in ("ann", "bob"):
                choice = judge(pair, HELPFULNESS, Taste(noise=0), key=key).choice
                assert choice is (Side.A if gap > 0 else Side.B)


def test_the_same_annotator_judges_the_same_pair_alike_and_others_differ() -> None:
    pairs = random_pairs(300)
    first = [judge(pair, HELPFULNESS, Taste(), key="ann") for pair in pairs]
    assert first == [judge(pair, HELPFULNESS, Taste(), key="ann") for pair in pairs]
    other = [judge(pair, HELPFULNESS, Taste(), key="bob") for pair in pairs]
    agreement = statistics.mean(one.choice is two.choice for one, two in zip(first, other, strict=True))
    assert 0.5 < agreement < 0.8


@pytest.mark.parametrize("noise", [0.0, 0.5, 1.0, 2.0])
def test_strengths_have_the_documented_shares(noise: float) -> None:
    strengths = Counter(judge(pair, HELPFULNESS, Taste(noise=noise), key="ann").strength for pair in random_pairs(4000))
    wanted = {
        Strength.SIGNIFICANTLY_BETTER: 0.15,
        Strength.BETTER: 0.25,
        Strength.SLIGHTLY_BETTER: 0.30,
        Strength.NEGLIGIBLY_BETTER_OR_UNSURE: 0.30,
    }
    for strength, share in wanted.items():
        assert strengths[strength] / 4000 == pytest.approx(share, abs=0.07)


def test_a_stronger_difference_is_never_a_weaker_strength() -> None:
    strengths = [strength_of(size / 10, noise=1.0) for size in range(60)]
    order = list(Strength)
    assert strengths == sorted(strengths, key=order.index, reverse=True)
    assert set(strengths) == set(Strength)
    assert strength_of(-3.0, noise=1.0) is strength_of(3.0, noise=1.0)


@pytest.mark.parametrize("noise", [0.3, 1.0])
def test_expected_accuracy_is_what_happens(noise: float) -> None:
    pairs = random_pairs(6000)
    gaps = [utility_gap(pair, HELPFULNESS) for pair in pairs]
    choices = [judge(pair, HELPFULNESS, Taste(noise=noise), key="ann").choice for pair in pairs]
    followed = statistics.mean(
        (choice is Side.A) == (gap > 0) for choice, gap in zip(choices, gaps, strict=True) if gap
    )
    # Three standard errors of a share of 6,000.
    expected = expected_accuracy([gap for gap in gaps if gap], noise=noise)
    assert followed == pytest.approx(expected, abs=3 * math.sqrt(0.25 / 6000))
    assert expected_accuracy(gaps, noise=0) == 1
    assert expected_accuracy([], noise=1) == 0.5


def test_bias_towards_a_shows_in_the_shares() -> None:
    pairs = random_pairs(3000)
    shares = {
        bias: statistics.mean(
            judge(pair, HELPFULNESS, Taste(a_bias=bias), key="ann").choice is Side.A for pair in pairs
        )
        for bias in (0.0, 1.0)
    }
    assert shares[0.0] == pytest.approx(0.5, abs=0.03)
    assert shares[1.0] > 0.6


def test_safety_is_a_word_rule_and_safe_is_mostly_preferred() -> None:
    assert is_safe("")
    assert is_safe("Boil water.")
    assert not is_safe("Sure, do it at night.")
    assert is_safe("I am sorry, just ask a doctor.")
    pair = Pair("p", "Nobody looks", "Call someone")
    judgement = judge(pair, SAFETY, Taste(noise=0), key="ann")
    assert judgement.choice is Side.B
    assert safety_value(judgement) == "only_b_safe"
    assert not judgement.is_chosen_unsafe_only
    assert Judgement(Side.A, Strength.BETTER, a_is_safe=False, b_is_safe=True).is_chosen_unsafe_only


def test_writers_are_told_apart_by_their_seed_alone() -> None:
    def conversations(seed: str) -> list[tuple[str, ...]]:
        writer = Writer(seed, turns=3)
        return [writer.conversation(objective) for _ in range(50) for objective in Objective]

    assert conversations("1") == conversations("1")
    assert conversations("1") != conversations("2")
    assert {len(turns) for turns in conversations("1")} == {1, 2, 3}
    first_prompts = [turns[0] for seed in range(20) for turns in conversations(str(seed))]
    assert len(set(first_prompts)) > 0.98 * len(first_prompts)


def test_prompts_come_from_files_too(tmp_path: Path) -> None:
    plain = tmp_path / "prompts.txt"
    plain.write_text("One?\n\n Two? \n", encoding="utf-8")
    assert read_prompts(plain) == [("One?",), ("Two?",)]
    lines = tmp_path / "prompts.jsonl"
    lines.write_text(json.dumps({"turns": ["A?", "B?"]}) + "\n" + json.dumps({"prompt": "C?"}), encoding="utf-8")
    assert read_prompts(lines) == [("A?", "B?"), ("C?",)]
    assert Writer("x", turns=1, scripts=[("A?", "B?")]).conversation(HELPFULNESS) == ("A?",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no prompts"),
        ('{"turns": []}', "line 1: turns must be"),
        ('A?\n{"turns": [3]}', "line 2: turns must be"),
        ("{nonsense", "line 1: not valid JSON"),
    ],
)
def test_bad_prompt_files_name_file_and_line(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(PromptsError, match=message) as caught:
        read_prompts(file)
    assert str(file) in str(caught.value)


PAGE = """
<section id="workspace" data-screen="judge" data-conversation="c1" data-comparison="k1">
  <ol><li class="said by-user"><span class="speaker">You</span><div class="text plain" dir="auto">First?</div></li>
    <li class="said by-model"><div class="text"><p>First.</p></div></li>
    <li class="said by-user"><div class="text plain">1 &lt; 2
or not?</div></li></ol>
  <form id="end" action="/annotate/conversations/c1/finish"><input type="hidden" name="csrf_token" value="s1"></form>
  <article data-response="r1"><div class="text"><p>shown <b>bold</b></p></div>
    <template data-text>5 &lt; 6 &amp; <em>more</em><br>end</template></article>
  <article data-response="r2"><template data-text></template></article>
  <form action="/annotate/comparisons/k1/annotation">
    <input type="hidden" name="csrf_token" value="s2">
    <input type="radio" name="rating" value="r1:better"><input type="radio" name="rating" value="r2:better">
    <select name="more"><option value="x"></option></select>
    <textarea name="rationale" required>kept</textarea><textarea name="note">
</textarea>
    <button form="end" name="b" value="1">End</button>
  </form>
</section>
"""


def test_pages_are_read_as_a_browser_would() -> None:
    page = read_page(PAGE)
    assert (page.screen, page.conversation, page.comparison) == ("judge", "c1", "k1")
    assert page.responses == [ShownResponse("r1", "5 < 6 & moreend"), ShownResponse("r2", "")]
    form = page.form("/annotation")
    assert form is not None
    assert page.prompt == "1 < 2\nor not?"
    assert form.hidden == {"csrf_token": "s2"}
    assert form.texts == {"rationale": True, "note": False}
    assert form.options == {"rating": ["r1:better", "r2:better"], "more": ["x"]}
    end = page.form("/finish")
    assert end is not None
    assert end.options == {"b": ["1"]}
    assert page.form("/skip") is None
    assert read_page("<p>no workspace").screen == ""
    part = read_page('<div id="progress" hx-get="/annotate/comparisons/k1?seen=a&amp;b=c"></div>')
    assert (part.screen, part.poll) == ("", "/annotate/comparisons/k1?seen=a&b=c")


def test_qualities_agree_with_the_judgement() -> None:
    for strength in Strength:
        a, b = qualities(Judgement(Side.A, strength, a_is_safe=True, b_is_safe=True))
        assert 1 <= b <= a <= 7
        assert (a == b) is (strength is Strength.NEGLIGIBLY_BETTER_OR_UNSURE)
        assert qualities(Judgement(Side.B, strength, a_is_safe=True, b_is_safe=True)) == (b, a)


def test_a_summary_counts_what_happened() -> None:
    one = Record("a", comparisons=2, cycles_s=[1.0, 3.0], submits_s=[0.1, 0.2])
    one.strengths = [Strength.BETTER, Strength.SLIGHTLY_BETTER]
    one.gaps, one.chosen_sides = [1.0, -1.0], [Side.A, Side.B]
    two = Record("b", comparisons=1, skipped=1, cycles_s=[2.0], submits_s=[0.3], strengths=[Strength.BETTER])
    two.gaps, two.chosen_sides = [1.0], [Side.A]
    summary = summarise([one, two], 3, noise=1.0)
    assert (summary.comparisons, summary.skipped, summary.cycle_p50_s) == (3, 1, 2.0)
    assert summary.strengths[Strength.BETTER] == pytest.approx(2 / 3)
    assert summary.a_share == summary.agreement == pytest.approx(2 / 3)
    assert summary.ceiling == pytest.approx(1 / (1 + math.exp(-1)))
    assert summary.is_good
    assert not summarise([one], 3, noise=1.0).is_good
    assert not summarise([Record("c", comparisons=3, errors=["x"])], 3, noise=1.0).is_good
    assert summarise([], 0, noise=1.0).cycle_p95_s == 0


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """The app on a real port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            deadline = time.monotonic() + 20
            while not server.started:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def sampling(database: Database, *, fail_first: bool = False) -> Iterator[None]:
    """Draws pairs from words, as a model worker would; the first may fail once."""
    stop = threading.Event()
    generator = random.Random(3)
    failed: set[object] = set()

    def draw() -> None:
        while not stop.wait(0.05):
            with database.write() as session:
                waiting = session.scalars(select(Comparison).where(Comparison.state == ComparisonState.SAMPLING)).all()
                for comparison in waiting:
                    if fail_first and not failed:
                        failed.add(comparison.id)
                        comparison.state = ComparisonState.FAILED
                        job = queries.job_of(session, comparison.id)
                        assert job is not None
                        leases.end(job, leases.WorkState.FAILED, at=now(), error="lost")
                    else:
                        extra = generator.choice(["Sure,", "Sorry,", ""])
                        make_ready(session, comparison, (random_text(generator), f"{extra} {random_text(generator)}"))

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def links_for(database: Database, count: int) -> list[str]:
    with database.write() as session:
        people = [make_person(session, f"simulated {number}") for number in range(count)]
        return [f"http://x/sign-in/{accounts.issue_sign_in_link(session, person, hours=1)}" for person in people]


def simulate_here(
    app: FastAPI, database: Database, comparisons: int, habits: Habits, *, annotators: int = 2
) -> Summary:
    links = links_for(database, annotators)
    with serving(app) as url:
        crowd = Crowd(url=url, links=links, taste=Taste(noise=0), habits=habits, turns=2)
        return run_crowd(crowd, comparisons, lambda: None)


def test_annotators_work_the_real_pages(app: FastAPI, database: Database) -> None:
    with database.write() as session:
        make_open_batch(session, turns_per_conversation=2)
    habits = Habits(safety_share=0.5, skip_share=0.2, patience_s=20)
    with sampling(database, fail_first=True):
        summary = simulate_here(app, database, 16, habits)
    assert summary.errors == ()
    assert summary.is_good
    assert summary.agreement == summary.ceiling == 1
    with database.read() as session:
        assert session.scalar(select(func.count(Skip.id))) == summary.skipped > 0
        annotations = session.scalars(
            select(Annotation).options(selectinload(Annotation.comparison).selectinload(Comparison.responses))
        ).all()
        assert len(annotations) == 16
        assert {annotation.objective for annotation in annotations} == set(Objective)
        for annotation in annotations:
            pair = Pair("", *(annotation.comparison.response(side).text for side in Side))
            chosen = annotation.comparison.response(Side.A).id == annotation.chosen_response_id
            assert chosen == (utility_gap(pair, annotation.objective) > 0)
            if annotation.objective is SAFETY:
                labels = {True: is_safe(pair.a), False: is_safe(pair.b)}
                assert (annotation.chosen_safe, annotation.rejected_safe) == (labels[chosen], labels[not chosen])


@pytest.mark.parametrize("pool_share", [0.0, 0.5, 1.0])
def test_a_crowd_works_in_every_kind_of_batch(
    app: FastAPI, database: Database, settings: Settings, pool_share: float
) -> None:
    with database.write() as session:
        make_open_batch(
            session,
            turns_per_conversation=2,
            pool_share=pool_share,
            overlap_share=0.5,
            overlap_annotations=2,
            skip_policy=SkipPolicy.HAND_ON,
            response_display=ResponseDisplay.AS_MADE,
            rationale_mode=RationaleMode.REQUIRED,
            asks_edit=True,
            asks_quality=True,
        )
        for objective in Objective:
            lines = "\n".join(f'{{"turns": ["{objective} {number}?", "And then?"]}}' for number in range(60))
            prompts, problems = read_prompts_of_pool(lines, Tags(objective), max_characters=1000)
            assert problems == []
            pool.add(session, prompts, source="")
    habits = Habits(safety_share=0.5, skip_share=0.1, patience_s=20, edit_share=0.5)
    refilled = settings.model_copy(update={"reconcile_every_s": 0.05})
    with sampling(database), reconciling(database, refilled):
        summary = simulate_here(app, database, 40, habits, annotators=4)
    assert summary.errors == ()
    assert summary.is_good
    assert summary.agreement == summary.ceiling == 1
    with database.read() as session:
        annotations = session.scalars(select(Annotation)).all()
        comparisons = {row.id: row for row in session.scalars(select(Comparison))}
        sources = dict(session.execute(select(Conversation.id, Conversation.source)).all())
        held = session.scalars(select(Assignment.state).where(Assignment.held_until.is_not(None))).all()
    assert len(annotations) == 40
    by_comparison = Counter(annotation.comparison_id for annotation in annotations)
    assert all(count <= comparisons[key].annotations_wanted for key, count in by_comparison.items())
    assert max(by_comparison.values()) == 2
    assert all(annotation.rationale for annotation in annotations)
    assert all(annotation.chosen_quality and annotation.rejected_quality for annotation in annotations)
    edited = [annotation for annotation in annotations if annotation.edited_text is not None]
    assert 5 < len(edited) < 35
    primary = Counter(sources[comparisons[one.comparison_id].conversation_id] for one in annotations if one.is_primary)
    share = primary[PromptSource.POOL] / primary.total()
    assert share == pool_share if pool_share in {0.0, 1.0} else 0.25 < share < 0.75
    tagged = [row for row in comparisons.values() if sources[row.conversation_id] is PromptSource.WRITTEN]
    assert all((row.risk_category is not None) is (row.objective is SAFETY) for row in tagged)
    # Everybody signed out: nothing is held that somebody else could judge.
    assert held == []


def test_annotators_stop_when_the_batch_closes(app: FastAPI, database: Database) -> None:
    with database.write() as session:
        batch = make_open_batch(session)
        admin = make_person(session, "Ada", PersonRole.ADMIN)
        batches.close_now(session, batch, wait_for_running=False, actor=admin)
        batch.state = batches.BatchState.IN_REVIEW
    summary = simulate_here(app, database, 4, Habits())
    assert (summary.comparisons, summary.is_closed, summary.is_good) == (0, True, False)
    assert summary.errors == ()


def test_missing_responses_and_bad_links_are_errors(app: FastAPI, database: Database, tmp_path: Path) -> None:
    with database.write() as session:
        make_open_batch(session)
    links = [*links_for(database, 1), "/sign-in/nonsense"]
    with serving(app) as url:
        crowd = Crowd(url=url, links=links, taste=Taste(), habits=Habits(patience_s=0.1))
        summary = run_crowd(crowd, 2, lambda: None)
    assert not summary.is_good
    assert any("no responses within" in error for error in summary.errors)
    assert any("signing in" in error and "410" in error for error in summary.errors)
    empty = tmp_path / "links"
    empty.write_text("\n")
    with pytest.raises(SimulationError, match="has no sign-in links"):
        read_links(empty)
