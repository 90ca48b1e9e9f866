"""The fields of the prompt pool's page."""

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from app.accounts.forms import ProtectedForm, StorableText
from app.pool.drafts import Wanted
from app.pool.reading import SOURCE_CHARACTERS, Tags, Words
from app.pool.sources import WrittenAs
from contract.vocabulary import AttackVector, Objective, RiskCategory

_CHARACTERS = 900_000
"""Less than a request may hold."""


def _none_if_empty(typed: object) -> object:
    return None if typed == "" else typed


class PromptsForm(ProtectedForm):
    """Prompts to be added: typed, or in a file that comes along."""

    objective: Objective
    risk_category: Annotated[RiskCategory | None, BeforeValidator(_none_if_empty)] = None
    attack_vector: Annotated[AttackVector | None, BeforeValidator(_none_if_empty)] = None
    tags: Words = ()
    source: Annotated[StorableText, Field(max_length=SOURCE_CHARACTERS), AfterValidator(str.strip)] = ""
    form: Annotated[WrittenAs | None, BeforeValidator(_none_if_empty)] = None
    text: StorableText = Field(default="", max_length=_CHARACTERS)

    @property
    def wanted(self) -> Wanted:
        """What lines are tagged with that do not say it themselves; risks are for safety prompts."""
        is_safety = self.objective is Objective.SAFETY
        tags = Tags(
            self.objective,
            self.risk_category if is_safety else None,
            self.attack_vector if is_safety else None,
            self.tags,
        )
        return Wanted(tags=tags, source=self.source, form=self.form)
