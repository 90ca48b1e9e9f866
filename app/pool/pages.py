"""What the prompt pool's page shows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from sqlalchemy.orm import Session

from app.models import PoolPromptState
from app.pool import service
from app.pool.drafts import Draft
from app.pool.forms import PromptsForm
from app.pool.queries import Filter
from app.pool.reading import as_tags
from app.pool.service import Added, Found
from app.pool.sources import WrittenAs
from app.web.templating import Page
from contract.vocabulary import AttackVector, Objective, RiskCategory

FORMS_IN_WORDS = {
    WrittenAs.LINES: "a prompt a line, as text or as JSON",
    WrittenAs.TEXT: "a prompt a line, all as text",
    WrittenAs.JSONL: "a JSON object a line",
    WrittenAs.CSV: "CSV with a header",
}


@dataclass(frozen=True, kw_only=True)
class PoolPage(Page):
    """The prompt pool: how much is in it, some of its prompts, and a form to add more."""

    title: str = "Prompt pool"
    counts: list[tuple[Objective, dict[PoolPromptState, int]]]
    found: Found
    wanted: Filter
    earlier: str
    """Where the page before and the page after are; empty where there is none."""
    later: str
    typed: Mapping[str, Any]
    """The fields of the form that adds prompts, as they were typed."""
    problems: list[str]
    problem_count: int
    added: Added | None
    states: list[PoolPromptState] = field(default_factory=lambda: list(PoolPromptState))
    objectives: list[Objective] = field(default_factory=lambda: list(Objective))
    risk_categories: list[RiskCategory] = field(default_factory=lambda: list(RiskCategory))
    attack_vectors: list[AttackVector] = field(default_factory=lambda: list(AttackVector))
    forms: list[tuple[str, str]] = field(
        default_factory=lambda: [("", "told by name and content"), *FORMS_IN_WORDS.items()]
    )


@dataclass(frozen=True, kw_only=True)
class CheckedPage(Page):
    """Prompts that were checked: how many are new, what is wrong, and whether to add them."""

    draft: Draft
    forms: dict[WrittenAs, str] = field(default_factory=lambda: FORMS_IN_WORDS)


def pool_page(
    session: Session,
    wanted: Filter,
    page: int = 1,
    *,
    typed: Mapping[str, Any] | None = None,
    problems: list[str] | None = None,
    problem_count: int = 0,
    added: Added | None = None,
) -> PoolPage:
    """The pool as it stands; with a form that was refused, what was typed in it."""
    found = service.find(session, wanted, page)
    return PoolPage(
        counts=service.counts(session),
        found=found,
        wanted=wanted,
        earlier=_address(wanted, found.page - 1) if found.page > 1 else "",
        later=_address(wanted, found.page + 1) if found.page < found.pages else "",
        typed=dict.fromkeys(PromptsForm.model_fields, "") | {"objective": wanted.objective or ""} | dict(typed or {}),
        problems=problems or [],
        problem_count=problem_count or len(problems or []),
        added=added,
    )


def one_tag(typed: str) -> str:
    """The first tag that somebody typed, as it is stored."""
    tags = as_tags(typed)
    return tags[0] if isinstance(tags, tuple) and tags else ""


def _address(wanted: Filter, page: int) -> str:
    query = {
        "objective": wanted.objective or "",
        "state": wanted.state or "",
        "text": wanted.text,
        "tag": wanted.tag,
        "page": page,
    }
    return f"/admin/prompts?{urlencode({name: value for name, value in query.items() if value})}"
