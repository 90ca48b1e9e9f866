"""What tests of the workspace share: forms as a browser sends them, and what the screen says."""

import re
from uuid import UUID

from sqlalchemy import select, update

from app.database import Database
from app.models import Assignment, Comparison, ComparisonState, new_id
from contract.vocabulary import Side, Strength
from tests import factories
from tests.conftest import Browser

PARTIAL = {"HX-Request": "true", "HX-Request-Type": "partial"}


def screen(html: str) -> str:
    """Which state of the workspace a page shows."""
    found = re.search(r'data-screen="(\w+)"', html)
    assert found, html
    return found.group(1)


def shown_id(html: str, name: str) -> UUID:
    """The conversation or comparison that a page shows."""
    found = re.search(rf'data-{name}="([0-9a-f-]+)"', html)
    assert found, html
    return UUID(found.group(1))


def hidden(html: str, name: str) -> str:
    """The value of a hidden field."""
    found = re.search(rf'<input type="hidden" name="{name}" value="([^"]*)"', html)
    assert found, html
    return found.group(1)


def checked(html: str) -> int:
    """How many points of scales are chosen."""
    return len(re.findall(r'<input type="radio"[^>]* checked', html))


def first_prompt(objective: str = "helpfulness", prompt: str = "Hi") -> dict[str, str]:
    """A form that begins a conversation, with the tags that a safety prompt needs."""
    tags = {"risk_category": "unqualified_advice", "attack_vector": "logic"} if objective == "safety" else {}
    return {"form_id": str(new_id()), "objective": objective, "prompt": prompt} | tags


def ask(ann: Browser, database: Database, prompt: str = "How do I make tea?", objective: str = "helpfulness") -> UUID:
    """Begin a conversation whose responses are there at once."""
    answer = ann.post("/annotate/conversations", first_prompt(objective, prompt))
    assert answer.status_code == 303, answer.text
    return make_ready(database)


def make_ready(database: Database, texts: tuple[str, str] = ("Boil water.", "No idea.")) -> UUID:
    """Give the only comparison that is being sampled its responses, which nobody has seen yet."""
    with database.write() as session:
        comparison = session.scalars(select(Comparison).where(Comparison.state == ComparisonState.SAMPLING)).one()
        factories.make_ready(session, comparison, texts)
        session.execute(update(Assignment).values(shown_at=None))
        return comparison.id


def rating(database: Database, comparison_id: UUID, side: Side = Side.A, strength: Strength = Strength.BETTER) -> str:
    """How the form spells a choice."""
    with database.read() as session:
        comparison = session.get_one(Comparison, comparison_id)
        session.refresh(comparison, ["responses"])
        return f"{comparison.response(side).id}:{strength}"


def judge(ann: Browser, comparison_id: UUID, **fields: str) -> int:
    """Send a judgement."""
    return ann.post(f"/annotate/comparisons/{comparison_id}/annotation", fields).status_code
