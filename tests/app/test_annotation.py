"""The annotator's workspace over HTTP: the states of the screen, what is saved, and what is refused."""

import re
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.database import Database
from app.models import (
    Annotation,
    AnnotationRevision,
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
from tests.conftest import Browser

SignIn = Callable[..., Browser]
PARTIAL = {"HX-Request": "true", "HX-Request-Type": "partial"}


@pytest.fixture
def ann(sign_in: SignIn) -> Browser:
    return sign_in(PersonRole.ANNOTATOR, "Ann")


@pytest.fixture
def batch(database: Database) -> Batch:
    with database.write() as session:
        return factories.make_open_batch(session, turns_per_conversation=3)


def screen(html: str) -> str:
    found = re.search(r'data-screen="(\w+)"', html)
    assert found, html
    return found.group(1)


def shown_id(html: str, name: str) -> UUID:
    found = re.search(rf'data-{name}="([0-9a-f-]+)"', html)
    assert found, html
    return UUID(found.group(1))


def only(session: Session, model: type) -> object:
    return session.scalars(select(model)).one()


def ask(
    ann: Browser, database: Database, prompt: str = "How do I make tea?", objective: str = "helpfulness"
) -> UUID:
    """Begin a conversation whose responses are there at once."""
    answer = ann.post("/annotate/conversations", {"objective": objective, "prompt": prompt})
    assert answer.status_code == 303, answer.text
    return make_ready(database)


def make_ready(database: Database, texts: tuple[str, str] = ("Boil water.", "No idea.")) -> UUID:
    with database.write() as session:
        comparison = session.scalars(select(Comparison).where(Comparison.state == ComparisonState.SAMPLING)).one()
        factories.make_ready(session, comparison, texts)
        comparison.shown_at = None
        return comparison.id


def rating(database: Database, comparison_id: UUID, side: Side = Side.A, strength: Strength = Strength.BETTER) -> str:
    with database.read() as session:
        comparison = session.get_one(Comparison, comparison_id)
        session.refresh(comparison, ["responses"])
        return f"{comparison.response(side).id}:{strength}"


def judge(ann: Browser, comparison_id: UUID, **fields: str) -> int:
    return ann.post(f"/annotate/comparisons/{comparison_id}/annotation", fields).status_code


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
