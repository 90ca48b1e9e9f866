"""While responses are sampled: progress that tells nothing about either, and texts that grow in step."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import select

from app.annotation.progress import sampling_progress
from app.database import Database
from app.models import Comparison, PersonRole, ResponseDisplay, SamplingJob, WorkState, now
from contract.vocabulary import Side
from tests import factories
from tests.app.annotating import PARTIAL, first_prompt, screen
from tests.conftest import Browser


@pytest.fixture
def ann(sign_in: Callable[..., Browser], database: Database) -> Browser:
    with database.write() as session:
        factories.make_open_batch(session)
    ann = sign_in(PersonRole.ANNOTATOR, "Ann")
    assert ann.post("/annotate/conversations", first_prompt()).status_code == 303
    return ann


def write(database: Database, a: str, b: str) -> Comparison:
    """A worker has begun and sent so much of each response."""
    with database.write() as session:
        comparison = session.scalars(select(Comparison)).one()
        session.refresh(comparison, ["responses"])
        comparison.response(Side.A).text = a
        comparison.response(Side.B).text = b
        session.scalars(select(SamplingJob)).one().state = WorkState.DONE
        return comparison


@pytest.mark.usefixtures("ann")
@pytest.mark.parametrize("display", list(ResponseDisplay))
def test_swapping_the_two_responses_changes_no_count(database: Database, display: ResponseDisplay) -> None:
    long, short = "word " * 100, "word " * 30
    shown = []
    for a, b in ((long, short), (short, long)):
        comparison = write(database, a, b)
        with database.read() as session:
            shown.append(sampling_progress(session, comparison.id, display))
    assert shown[0] == shown[1]
    assert shown[0].words == 100
    if display is ResponseDisplay.AS_MADE:
        assert shown[0].text_a == shown[0].text_b == short
    else:
        assert shown[0].text_a == shown[0].text_b == ""


@pytest.mark.usefixtures("ann")
def test_a_queued_comparison_says_how_many_are_ahead(database: Database) -> None:
    with database.write() as session:
        mine = session.scalars(select(Comparison)).one()
        batch = session.get_one(factories.Batch, mine.batch_id)
        for _ in range(3):
            other = factories.make_comparison(session, factories.make_conversation(session, batch, None))
            job = session.scalars(select(SamplingJob).where(SamplingJob.comparison_id == other.id)).one()
            job.queued_at = now() - timedelta(minutes=1)
    with database.read() as session:
        progress = sampling_progress(session, mine.id, ResponseDisplay.TOGETHER)
    assert (progress.stage, progress.ahead, progress.words) == ("queued", 3, 0)


def test_texts_are_on_the_page_only_where_the_batch_streams_them(ann: Browser, database: Database) -> None:
    comparison = write(database, "Alpha beta gamma delta", "One two")
    path = f"/annotate/comparisons/{comparison.id}"
    page = ann.get(path).text
    assert screen(page) == "waiting"
    assert "Alpha" not in page
    assert "One" not in page
    with database.write() as session:
        batch = session.get_one(factories.Batch, comparison.batch_id)
        batch.response_display = ResponseDisplay.AS_MADE
    page = ann.get(path).text
    assert "Alpha b" in page
    assert "Alpha be" not in page
    assert "One two" in page
    part = ann.get(f"{path}?seen=old", headers=PARTIAL)
    assert part.headers["HX-Retarget"] == "#progress"
    assert 'id="progress"' in part.text
    assert "<html" not in part.text
    assert "data-screen" not in part.text
    with database.read() as session:
        seen = sampling_progress(session, comparison.id, ResponseDisplay.AS_MADE).seen
    assert f"seen={seen}" in part.text
    assert ann.get(f"{path}?seen={seen}", headers=PARTIAL).status_code == 204
