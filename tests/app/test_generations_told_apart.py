"""Which generation of the chat model made a response: told by datasets and statistics, never by a screen."""

import re
from collections import Counter
from collections.abc import Callable

import pyarrow.parquet as pq
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.database import Database
from app.datasets import service as datasets
from app.insights import service as insights
from app.insights.statistics import Share
from app.models import Annotation, Batch, Comparison, PersonRole, Response, new_id
from app.settings import Settings
from contract.vocabulary import Generation, Strength
from tests.app.annotating import PARTIAL, ask, screen
from tests.app.generations import BOTH, pair, pairs, promote
from tests.conftest import Browser
from tests.factories import (
    checkpoint_files,
    freeze,
    make_annotation,
    make_checkpoint,
    make_comparison,
    make_conversation,
    make_open_batch,
    make_person,
    make_ready,
)


@pytest.fixture
def admin(sign_in: Callable[..., Browser]) -> Browser:
    return sign_in(PersonRole.ADMIN)


def test_rows_name_checkpoint_and_generation_and_statistics_count_the_contests(
    database: Database, settings: Settings, admin: Browser
) -> None:
    promote(database, "chat-1")
    strengths = (Strength.BETTER, Strength.BETTER, Strength.SLIGHTLY_BETTER, Strength.SIGNIFICANTLY_BETTER)
    with database.write() as session:
        # Pairs of a week without a previous checkpoint are no contest.
        first = make_open_batch(session, variants=BOTH)
        _judge(session, first, Generation.PREVIOUS, Strength.BETTER)
        make_checkpoint(session, "chat-2")
        batch = make_open_batch(session, variants=BOTH, held_out_share=0.0)
        for number, strength in enumerate(strengths):
            _judge(session, batch, Generation.PREVIOUS if number == 1 else Generation.NEWEST, strength)
        # A second opinion counts for agreement only.
        bo = make_person(session, "Bo")
        make_annotation(session, session.scalars(select(Comparison).limit(1)).one(), bo, is_primary=False)
    with database.read() as session:
        assert insights.batch_statistics(session, first).newest_chosen() == Share(0, 0)
        statistics = insights.batch_statistics(session, batch)
    assert statistics.newest_chosen() == Share(3, 4)
    assert {strength: statistics.newest_chosen(strength) for strength in Strength} == {
        Strength.SIGNIFICANTLY_BETTER: Share(1, 1),
        Strength.BETTER: Share(1, 2),
        Strength.SLIGHTLY_BETTER: Share(1, 1),
        Strength.NEGLIGIBLY_BETTER_OR_UNSURE: Share(0, 0),
    }
    assert "Newest against previous" not in admin.get("/admin/batches/1/statistics").text
    text = admin.get("/admin/batches/2/statistics").text
    assert '<td>all</td><td>4</td><td>75.0 % <span class="hint">30.1 to 95.4 %</span></td>' in text
    assert "<td>better</td><td>2</td><td>50.0 %" in text
    text = admin.get("/admin/insights").text
    assert "<td>1</td><td>0</td><td>-" in text
    assert "<td>2</td><td>4</td><td>75.0 % <span" in text

    dataset = freeze(database, batch, settings)
    folder = datasets.folder_of(dataset, settings)
    rows = [row for file in sorted(folder.rglob("*.parquet")) for row in pq.read_table(file).to_pylist()]
    assert len(rows) == len(strengths)
    names = {"newest": "chat-2", "previous": "chat-1"}
    for row in rows:
        for side in ("chosen", "rejected"):
            made = row[f"{side}_provenance"]
            assert made["checkpoint"] == names[row[f"{side}_generation"]]
            assert made["checkpoint_digest"] == checkpoint_files(made["checkpoint"]).digest
    assert Counter(row["chosen_generation"] for row in rows) == {"newest": 3, "previous": 1}
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "- Checkpoints: chat-1 (`" in card
    assert "chat-2 (`" in card
    assert "| `chosen_generation` |" in card


def _judge(session: Session, batch: Batch, generation: Generation, strength: Strength) -> Annotation:
    """A judged pair whose response of a generation was chosen."""
    ann = make_person(session)
    comparison = make_comparison(session, make_conversation(session, batch, ann), f"Question {new_id()}?")
    responses = make_ready(session, comparison)
    (side,) = (side for side, response in responses.items() if response.generation is generation)
    return make_annotation(session, comparison, ann, side=side, strength=strength)


@pytest.mark.parametrize("partial", [False, True])
def test_nothing_on_the_annotators_screen_tells_the_generations_apart(
    database: Database, sign_in: Callable[..., Browser], *, partial: bool
) -> None:
    secrets = {"checkpoint", "generation", "newest"}
    for name in ("chat-one", "chat-two"):
        checkpoint = promote(database, name)
        secrets |= {name, checkpoint.digest, checkpoint.digest[:12], str(checkpoint.id), checkpoint.id.hex}
    with database.write() as session:
        make_open_batch(session, variants=BOTH)
    ann = sign_in(PersonRole.ANNOTATOR, "Ann")
    headers = PARTIAL if partial else {}
    comparison_id = ask(ann, database)
    with database.read() as session:
        assert pairs(session) == {comparison_id: pair("chat-two", "chat-one")}
    for path in ("/annotate", f"/annotate/comparisons/{comparison_id}", "/annotate/day"):
        answer = ann.get(path, headers=headers)
        assert answer.status_code == 200, path
        if path != "/annotate/day":
            assert screen(answer.text) == "judge"
        seen = f"{answer.text} {answer.headers}".lower()
        assert [secret for secret in secrets if secret in seen] == []
        # Whichever of the two stands on which side, the page is the same.
        _swap_origins(database)
        assert _without_secret(ann.get(path, headers=headers).text) == _without_secret(answer.text)


def _swap_origins(database: Database) -> None:
    with database.write() as session:
        one, other = session.scalars(select(Response))
        one.generation, other.generation = other.generation, one.generation
        one.checkpoint_id, other.checkpoint_id = other.checkpoint_id, one.checkpoint_id


def _without_secret(text: str) -> str:
    """A page without the secret of its forms, which never looks the same twice."""
    return re.sub(r"[0-9a-f]{100,}", "", text)
