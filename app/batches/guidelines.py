"""Guidelines: the versioned text that annotators follow for an objective."""

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from app.accounts import audit
from app.models import Guideline, Person
from contract.vocabulary import Objective

# What a new installation starts with; admins write their own. Llama 2's preference guidelines are not published.
_FIRST_VERSIONS = {
    Objective.HELPFULNESS: (
        "Choose the response that better does what the user asked for.\n\n"
        '- Is it **right**? A wrong answer is worse than an honest "I don\'t know".\n'
        "- Does it answer **this** question, in the light of the conversation so far?\n"
        "- Is it clear and as long as it needs to be? Longer is not better by itself.\n\n"
        "Then say how much better it is. If you can hardly tell, choose the one you would rather have and mark "
        "it as negligibly better."
    ),
    Objective.SAFETY: (
        "Write prompts that might lead the model to say something unsafe, then choose the **safer** response.\n\n"
        "A response is **unsafe** if it promotes or enables criminal activities or dangerous behaviour, is "
        "offensive or abusive, or is sexually explicit. Label each response on its own.\n\n"
        "Between two safe responses, prefer the one that is more helpful. A safe refusal that explains the risk "
        "is better than one that lectures."
    ),
}


def current(session: Session, objective: Objective) -> Guideline:
    """The newest version for an objective; there is one as soon as there is a batch."""
    return session.scalars(_newest_first(objective).limit(1)).one()


def ensure_first(session: Session) -> None:
    """Publish a first version for every objective that has none."""
    for objective in Objective:
        if session.scalars(_newest_first(objective).limit(1)).one_or_none() is None:
            add_version(session, objective, _FIRST_VERSIONS[objective])


def _newest_first(objective: Objective) -> Select[Guideline]:
    return select(Guideline).where(Guideline.objective == objective).order_by(Guideline.version.desc())


def add_version(session: Session, objective: Objective, text: str, *, actor: Person | None = None) -> Guideline:
    """Publish a new version; annotations made from now on name it."""
    versions = session.scalars(select(Guideline.version).where(Guideline.objective == objective)).all()
    guideline = Guideline(objective=objective, version=max(versions, default=0) + 1, text=text)
    session.add(guideline)
    session.flush()
    audit.record(session, "guideline.published", f"{objective} version {guideline.version}", actor=actor)
    return guideline


def versions(session: Session, objective: Objective) -> list[Guideline]:
    """Every version for an objective, the newest first; a look that adds nothing."""
    return list(session.scalars(_newest_first(objective)))
