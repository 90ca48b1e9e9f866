"""What the prompt pool's page shows."""

from dataclasses import dataclass, field
from urllib.parse import urlencode

from sqlalchemy.orm import Session

from app.models import PoolPromptState
from app.pool import service
from app.pool.forms import PromptsForm
from app.pool.queries import Filter
from app.pool.service import Added, Found
from app.web.templating import Page
from contract.vocabulary import AttackVector, Objective, RiskCategory


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
    form: PromptsForm
    problems: list[str]
    added: Added | None
    states: list[PoolPromptState] = field(default_factory=lambda: list(PoolPromptState))
    objectives: list[Objective] = field(default_factory=lambda: list(Objective))
    risk_categories: list[RiskCategory] = field(default_factory=lambda: list(RiskCategory))
    attack_vectors: list[AttackVector] = field(default_factory=lambda: list(AttackVector))


def pool_page(
    session: Session,
    wanted: Filter,
    page: int = 1,
    *,
    form: PromptsForm | None = None,
    problems: list[str] | None = None,
    added: Added | None = None,
) -> PoolPage:
    """The pool as it stands; with a form that was refused, that form again."""
    found = service.find(session, wanted, page)
    return PoolPage(
        counts=service.counts(session),
        found=found,
        wanted=wanted,
        earlier=_address(wanted, found.page - 1) if found.page > 1 else "",
        later=_address(wanted, found.page + 1) if found.page < found.pages else "",
        form=form or PromptsForm(objective=wanted.objective or Objective.HELPFULNESS),
        problems=problems or [],
        added=added,
    )


def _address(wanted: Filter, page: int) -> str:
    query = {"objective": wanted.objective or "", "state": wanted.state or "", "text": wanted.text, "page": page}
    return f"/admin/prompts?{urlencode({name: value for name, value in query.items() if value})}"
