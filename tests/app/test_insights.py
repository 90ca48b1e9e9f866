"""Statistics of a batch: by hand on a small one, mirrored when the sides are swapped, Wilson's interval."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from app.database import Database
from app.insights import service
from app.insights.statistics import Share
from app.models import Annotation, Batch, KeptInsights, PersonRole, Response, Skip, SkipReason, now
from contract.vocabulary import Objective, SafetyBin, Side, Strength
from tests.conftest import Browser
from tests.factories import (
    make_annotation,
    make_comparison,
    make_conversation,
    make_open_batch,
    make_person,
    make_ready,
)

# Side chosen, texts of A and B, strength, seconds of each of Ann's annotations, in two conversations.
_JUDGED = (
    (Side.A, ("long text", "short"), Strength.BETTER, 10.0),
    (Side.A, ("ab", "abcdef"), Strength.SIGNIFICANTLY_BETTER, 20.0),
    (Side.B, ("same", "size"), Strength.NEGLIGIBLY_BETTER_OR_UNSURE, 60.0),
)


@pytest.fixture
def batch(database: Database) -> Batch:
    with database.write() as session:
        batch = make_open_batch(session)
        ann, bea = make_person(session, "Ann"), make_person(session, "Bea")
        first = make_conversation(session, batch, ann)
        second = make_conversation(session, batch, ann)
        places = [(first, 1), (first, 2), (second, 1)]
        for (conversation, turn), (side, texts, strength, seconds) in zip(places, _JUDGED, strict=True):
            comparison = make_comparison(session, conversation, "x" * (turn * 10), turn=turn)
            responses = make_ready(session, comparison, texts)
            responses[Side.A].prompt_tokens = responses[Side.B].prompt_tokens = 100 * turn
            responses[Side.A].completion_tokens, responses[Side.B].completion_tokens = 30, 10
            make_annotation(session, comparison, ann, side=side, strength=strength).seconds = seconds
        safety = make_conversation(session, batch, bea, Objective.SAFETY)
        comparison = make_comparison(session, safety)
        make_ready(session, comparison)
        make_annotation(session, comparison, bea, side=Side.B, chosen_safe=True, rejected_safe=False).seconds = 31.0
        skipped = make_comparison(session, safety, turn=2)
        make_ready(session, skipped)
        session.add(Skip(comparison_id=skipped.id, annotator_id=bea.id, reason=SkipReason.UPSETTING))
        # Another batch's annotations count nowhere here.
        other = make_comparison(session, make_conversation(session, _second_batch(session), ann))
        make_ready(session, other)
        make_annotation(session, other, ann)
        return batch


def _second_batch(session: Session) -> Batch:
    return make_open_batch(session)


def test_every_figure_by_hand(database: Database, batch: Batch) -> None:
    with database.read() as session:
        insights = service.batch_insights(session, batch)
        assert service.batch_statistics(session, batch) == insights.statistics
    statistics, work = insights.statistics, insights.work
    sizes = statistics.sizes
    assert (sizes.comparisons, sizes.conversations) == (4, 3)
    assert sizes.turns_per_conversation == pytest.approx(4 / 3)
    # Both responses of each comparison: 130 and 110, 230 and 210, 130 and 110, and 15 twice.
    assert sizes.tokens_per_example == pytest.approx((130 + 110 + 230 + 210 + 130 + 110 + 15 + 15) / 8)
    assert sizes.tokens_per_response == pytest.approx((3 * (30 + 10) + 3 + 3) / 8)
    assert sizes.characters_per_prompt == pytest.approx((10 + 20 + 10 + len("How do I make tea?")) / 4)
    together = statistics.strength_shares()
    assert {strength: share.count for strength, share in together.items()} == {
        Strength.SIGNIFICANTLY_BETTER: 1,
        Strength.BETTER: 2,
        Strength.SLIGHTLY_BETTER: 0,
        Strength.NEGLIGIBLY_BETTER_OR_UNSURE: 1,
    }
    assert together[Strength.BETTER].value == pytest.approx(0.5)
    assert statistics.strength_shares(Objective.SAFETY)[Strength.BETTER] == Share(1, 1)
    assert statistics.safety_shares()[SafetyBin.CHOSEN_SAFE_REJECTED_UNSAFE] == Share(1, 1)
    assert statistics.safety_shares()[SafetyBin.BOTH_UNSAFE] == Share(0, 1)
    assert statistics.side_a == Share(2, 4)
    # One pair of four is equally long and cannot say anything about length.
    assert statistics.longer_chosen == Share(1, 3)
    assert work.median_seconds == pytest.approx((20 + 31) / 2)
    assert work.skips == {"upsetting": 1}
    ann, bea = work.annotators
    assert (ann.name, ann.annotations, ann.median_seconds, ann.side_a, ann.skips) == ("Ann", 3, 20.0, Share(2, 3), 0)
    assert (bea.name, bea.annotations, bea.median_seconds, bea.side_a, bea.skips) == ("Bea", 1, 31.0, Share(0, 1), 1)


def test_swapping_the_sides_mirrors_the_side_share_and_nothing_else(database: Database, batch: Batch) -> None:
    with database.read() as session:
        before = service.batch_insights(session, batch)
    _swap_sides(database)
    with database.read() as session:
        after = service.batch_insights(session, batch)
    old, new = before.statistics, after.statistics
    assert new.side_a == Share(old.side_a.n - old.side_a.count, old.side_a.n)
    assert (new.sizes, new.longer_chosen) == (old.sizes, old.longer_chosen)
    assert (new.strength_shares(), new.safety_shares()) == (old.strength_shares(), old.safety_shares())
    for one, other in zip(before.work.annotators, after.work.annotators, strict=True):
        assert other.side_a == Share(one.side_a.n - one.side_a.count, one.side_a.n)
        assert (other.annotations, other.median_seconds, other.skips) == (
            one.annotations,
            one.median_seconds,
            one.skips,
        )


def _swap_sides(database: Database) -> None:
    """Choose the other side everywhere, with the texts swapped too: the same judgements on a mirrored screen."""
    with database.write() as session:
        pairs: dict[object, list[Response]] = {}
        for response in session.query(Response).order_by(Response.side):
            pairs.setdefault(response.comparison_id, []).append(response)
        for a, b in pairs.values():
            for name in ("text", "prompt_tokens", "completion_tokens"):
                left, right = getattr(a, name), getattr(b, name)
                setattr(a, name, right)
                setattr(b, name, left)
        for annotation in session.query(Annotation):
            a, b = pairs[annotation.comparison_id]
            annotation.chosen_response_id = b.id if annotation.chosen_response_id == a.id else a.id


def test_an_empty_batch_has_no_figures(database: Database) -> None:
    with database.write() as session:
        batch = make_open_batch(session)
    with database.read() as session:
        insights = service.batch_insights(session, batch)
        assert service.batch_statistics(session, batch) == insights.statistics
    statistics, work = insights.statistics, insights.work
    assert statistics.sizes.tokens_per_example is None
    assert statistics.sizes.turns_per_conversation is None
    assert statistics.side_a == Share(0, 0)
    assert (work.median_seconds, work.annotators) == (None, ())


@pytest.mark.parametrize(
    ("count", "n", "low", "high"),
    # Newcombe 1998, table I, method 3, and the two ends.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (29, 29, 0.8830, 1.0)],
    ids=str,
)
def test_wilsons_interval(count: int, n: int, low: float, high: float) -> None:
    assert Share(count, n).interval == pytest.approx((low, high), abs=5e-5)


def test_an_uneven_side_is_noticed_only_when_chance_does_not_explain_it() -> None:
    assert Share(6, 10).is_even
    assert not Share(600, 1000).is_even
    assert Share(0, 0).is_even
    assert Share(0, 0).interval is None
    for count in range(11):
        low, high = Share(count, 10).interval or (9, 9)
        mirrored = Share(10 - count, 10).interval or (9, 9)
        assert mirrored == pytest.approx((1 - high, 1 - low))


def test_the_pages_show_the_figures(batch: Batch, sign_in: Callable[..., Browser]) -> None:
    admin = sign_in(PersonRole.ADMIN)
    text = admin.get(f"/admin/batches/{batch.number}/statistics").text
    assert "<dt>comparisons</dt><dd>4</dd>" in text
    assert "<td>Ann</td><td>3</td><td>20.0</td><td>66.7 % <span" in text
    assert (
        '<td>negligibly better or unsure</td><td>1</td><td>25.0 % <span class="hint">4.6 to 69.9 %</span></td>' in text
    )
    assert "upsetting 1" in text
    part = admin.get(f"/admin/batches/{batch.number}/statistics", headers={"HX-Request-Type": "partial"}).text
    assert part.strip().startswith('<section id="statistics"')
    assert f'href="/admin/batches/{batch.number}/statistics"' in admin.get(f"/admin/batches/{batch.number}").text
    text = admin.get("/admin/insights").text
    assert "Tokens / example" in text
    assert "25.0 %" in text


def test_the_statistics_of_a_settled_batch_are_counted_once(database: Database, batch: Batch) -> None:
    with database.read() as session:
        counted = service.batch_insights(session, batch)
    assert service.keep(database, only_settled=True) == 0
    settle(database, batch)
    # There is another batch, which runs.
    assert service.keep(database) == 2
    assert service.keep(database) == 0
    spoil(database)
    with database.read() as session:
        batch = session.get_one(Batch, batch.id)
        kept = service.batch_insights(session, batch)
        assert service.batch_statistics(session, batch) == kept.statistics
    assert set(kept.statistics.judgements) == set(counted.statistics.judgements)
    assert (kept.statistics.sizes, kept.work) == (counted.statistics.sizes, counted.work)


def test_a_large_batch_that_runs_is_counted_beforehand(
    database: Database, batch: Batch, sign_in: Callable[..., Browser]
) -> None:
    with database.read() as session:
        counted = set(service.batch_statistics(session, batch).judgements)
    assert service.keep(database) == 2
    assert service.keep(database) == 0
    spoil(database)
    with database.write() as session:
        kept = session.get_one(KeptInsights, batch.id)
        kept.took_s = 0.0
        session.flush()
        assert set(service.batch_statistics(session, batch).judgements) != counted
        kept.took_s = 10.0
        kept.counted_at = now() - timedelta(minutes=8)
        session.flush()
        assert set(service.batch_statistics(session, batch).judgements) == counted
    assert service.keep(database) == 0
    assert "Counted" in sign_in(PersonRole.ADMIN).get(f"/admin/batches/{batch.number}/statistics").text
    with database.write() as session:
        session.get_one(KeptInsights, batch.id).counted_at = now() - timedelta(minutes=9)
    assert service.keep(database) == 1
    settle(database, batch)
    assert service.keep(database) == 1


def settle(database: Database, batch: Batch) -> None:
    with database.write() as session:
        session.get_one(Batch, batch.id).frozen_at = now()


def spoil(database: Database) -> None:
    """Whoever counts anew sees something else."""
    with database.write() as session:
        session.execute(update(Annotation).values(seconds=0, strength=Strength.BETTER))
