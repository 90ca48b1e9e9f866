"""Review: somebody else's verdict, once per revision, with feedback where it is a rejection."""

from collections.abc import Callable
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from app.batches.reconciler import reconcile
from app.database import Database
from app.models import (
    Annotation,
    Batch,
    BatchState,
    Comparison,
    Flag,
    FlagKind,
    PersonRole,
    Review,
    Verdict,
    now,
)
from app.review import service
from app.review.service import OwnWorkError
from app.settings import Settings
from contract.vocabulary import AttackVector, Objective, RiskCategory, Side
from tests import factories as make
from tests.conftest import Browser


@pytest.fixture
def annotation_id(database: Database) -> UUID:
    """An annotation of an open batch, second turn of a conversation."""
    with database.write() as session:
        batch = make.make_open_batch(session, review_share=1.0)
        annotations = make.make_judged(
            session,
            batch,
            make.make_person(session),
            "How do I **make** tea?",
            "And now?",
            objective=Objective.SAFETY,
            side=Side.B,
        )
        annotations[1].rationale = "It is <b>clearer</b>."
        return annotations[1].id


def verdicts(database: Database) -> list[tuple[Verdict, str]]:
    with database.read() as session:
        return [(review.verdict, review.feedback) for review in session.scalars(select(Review))]


@pytest.mark.usefixtures("annotation_id")
def test_a_reviewer_sees_what_the_annotator_saw_and_said(sign_in: Callable[..., Browser]) -> None:
    page = sign_in(PersonRole.REVIEWER).get("/review").text
    assert "2 annotations without a verdict" in page
    assert page.index("How do I <strong>make</strong> tea?") < page.index("And now?")
    for words in (
        "B is better",
        "chosen safe rejected unsafe",
        "A says And now?",
        "B says And now?",
        "B, chosen",
        "Why: It is &lt;b&gt;clearer&lt;/b&gt;.",
    ):
        assert words in page
    for secret in ("chat-1", "0.7", "1.2", "temperature"):
        assert secret not in page


def test_what_else_was_said_is_shown_and_flags_too(
    annotation_id: UUID, database: Database, sign_in: Callable[..., Browser]
) -> None:
    with database.write() as session:
        annotation = session.get_one(Annotation, annotation_id)
        annotation.chosen_quality, annotation.rejected_quality = 6, 2
        annotation.edited_text = "Warm <i>water</i> **first**."
        comparison = session.get_one(Comparison, annotation.comparison_id)
        comparison.risk_category, comparison.attack_vector = RiskCategory.UNQUALIFIED_ADVICE, AttackVector.LOGIC
        for person, kind, note in (
            (annotation.annotator_id, FlagKind.NAMES_ITS_MODEL, ""),
            (make.make_person(session, "Bo").id, FlagKind.OTHER, "Looks <odd>."),
        ):
            session.add(Flag(comparison_id=comparison.id, annotator_id=person, kind=kind, note=note))
    page = sign_in(PersonRole.REVIEWER).get("/review").text
    assert "A, quality 2 of 7" in page
    assert "B, chosen, quality 6 of 7" in page
    assert "B, as the annotator improved it" in page
    assert "<strong>first</strong>" in page
    assert "<i>water" not in page
    assert "Flagged: names its model<" in page
    assert "Flagged: other. Looks &lt;odd&gt;." in page
    assert "unqualified advice" in page
    # The first turn has none of it.
    first = page[: page.index("And now?")]
    assert "quality" not in first
    assert "Flagged" not in first
    assert "improved" not in first


def test_second_opinions_do_not_wait_for_a_verdict(
    annotation_id: UUID, database: Database, sign_in: Callable[..., Browser]
) -> None:
    with database.write() as session:
        comparison = session.get_one(Comparison, session.get_one(Annotation, annotation_id).comparison_id)
        bo = make.make_person(session, "Bo")
        second = make.make_annotation(session, comparison, bo, chosen_safe=True, rejected_safe=True, is_primary=False)
    page = sign_in(PersonRole.REVIEWER).get("/review").text
    assert "2 annotations without a verdict" in page
    assert f"annotation-{second.id}" not in page


def test_approving_and_rejecting(annotation_id: UUID, database: Database, sign_in: Callable[..., Browser]) -> None:
    reviewer = sign_in(PersonRole.REVIEWER)
    path = f"/review/{annotation_id}"
    silent = reviewer.post(path, {"verdict": "rejected", "feedback": "  ", "revision": "1"})
    assert silent.status_code == 422
    assert "feedback: say what" in silent.text
    assert verdicts(database) == []
    rejected = reviewer.post(path, {"verdict": "rejected", "feedback": "Too short.", "revision": "1", "page": "3"})
    assert (rejected.status_code, rejected.headers["location"]) == (303, "/review?page=3")
    assert verdicts(database) == [(Verdict.REJECTED, "Too short.")]
    again = reviewer.post(path, {"verdict": "approved", "revision": "1"})
    assert (again.status_code, verdicts(database)) == (409, [(Verdict.REJECTED, "Too short.")])
    page = reviewer.get("/review?page=9").text
    assert "1 annotation without a verdict" in page


def test_htmx_gets_the_rest_of_the_list(annotation_id: UUID, sign_in: Callable[..., Browser]) -> None:
    answer = sign_in(PersonRole.REVIEWER).post(
        f"/review/{annotation_id}", {"verdict": "approved", "revision": "1"}, headers={"HX-Request-Type": "partial"}
    )
    assert answer.status_code == 200
    assert "<html" not in answer.text
    assert "1 annotation without a verdict" in answer.text


def test_a_changed_annotation_needs_a_new_verdict(
    annotation_id: UUID, database: Database, sign_in: Callable[..., Browser]
) -> None:
    reviewer = sign_in(PersonRole.REVIEWER)
    reviewer.post(f"/review/{annotation_id}", {"verdict": "approved", "revision": "1"})
    with database.write() as session:
        session.get_one(Annotation, annotation_id).revision = 2
    assert str(annotation_id) in reviewer.get("/review").text
    late = reviewer.post(f"/review/{annotation_id}", {"verdict": "approved", "revision": "1"})
    assert late.status_code == 409
    assert "has changed this annotation" in late.text
    assert reviewer.post(f"/review/{annotation_id}", {"verdict": "approved", "revision": "2"}).status_code == 303
    assert len(verdicts(database)) == 2


def test_a_frozen_batch_takes_no_verdict(
    annotation_id: UUID, database: Database, sign_in: Callable[..., Browser]
) -> None:
    with database.write() as session:
        session.scalars(select(Batch)).one().frozen_at = now()
    reviewer = sign_in(PersonRole.REVIEWER)
    answer = reviewer.post(f"/review/{annotation_id}", {"verdict": "approved", "revision": "1"})
    assert answer.status_code == 409
    assert "is frozen" in answer.text
    assert "Nothing waits" in reviewer.get("/review").text


def test_nobody_reviews_their_own_work(annotation_id: UUID, database: Database) -> None:
    with database.write() as session:
        ann = make.make_person(session)
        assert service.queue(session, ann, 1).items == []
        with pytest.raises(OwnWorkError):
            service.give_verdict(session, ann, annotation_id, Verdict.APPROVED, revision=1, feedback="")


def test_review_is_for_reviewers_and_admins(annotation_id: UUID, sign_in: Callable[..., Browser]) -> None:
    assert {role: sign_in(role).get("/review").status_code for role in PersonRole} == {
        PersonRole.ANNOTATOR: 403,
        PersonRole.REVIEWER: 200,
        PersonRole.TRAINER: 403,
        PersonRole.ADMIN: 200,
    }
    form = {"verdict": "approved", "revision": "1"}
    assert sign_in(PersonRole.ANNOTATOR).post(f"/review/{annotation_id}", form).status_code == 403
    reviewer = sign_in(PersonRole.REVIEWER)
    assert reviewer.client.post(f"/review/{annotation_id}", data=form).status_code == 403
    assert reviewer.post(f"/review/{uuid4()}", form).status_code == 404
    assert reviewer.post(f"/review/{annotation_id}", form | {"verdict": "maybe"}).status_code == 422


def test_a_batch_with_full_review_freezes_when_everything_has_a_verdict(
    annotation_id: UUID, database: Database, settings: Settings, sign_in: Callable[..., Browser]
) -> None:
    with database.write() as session:
        session.scalars(select(Batch)).one().closes_at = now()
    for _ in range(3):
        reconcile(database, settings, now() + timedelta(minutes=11))
    reviewer = sign_in(PersonRole.REVIEWER)
    with database.read() as session:
        batch = session.scalars(select(Batch).where(Batch.number == 1)).one()
        assert batch.state is BatchState.IN_REVIEW
        annotations = session.scalars(select(Annotation)).all()
    for annotation in annotations:
        form = {"verdict": "approved" if annotation.id == annotation_id else "rejected", "revision": "1"}
        assert reviewer.post(f"/review/{annotation.id}", form | {"feedback": "See section 2."}).status_code == 303
    reconcile(database, settings, now() + timedelta(minutes=12))
    with database.read() as session:
        assert session.get_one(Batch, batch.id).state is BatchState.FROZEN
    page = sign_in(PersonRole.TRAINER).get("/datasets/batch-001").text
    assert "A reviewer rejected the annotation." in page
    assert "Rows: 1 of 2 comparisons" in page
