"""The fields of the prompt pool's page."""

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from app.accounts.forms import ProtectedForm, StorableText
from app.pool.reading import Tags
from contract.vocabulary import AttackVector, Objective, RiskCategory

_CHARACTERS = 900_000
"""Less than a request may hold."""


def _none_if_empty(typed: object) -> object:
    return None if typed == "" else typed


class PromptsForm(ProtectedForm):
    """Prompts to be added, one a line."""

    objective: Objective
    risk_category: Annotated[RiskCategory | None, BeforeValidator(_none_if_empty)] = None
    attack_vector: Annotated[AttackVector | None, BeforeValidator(_none_if_empty)] = None
    source: Annotated[StorableText, Field(max_length=200), AfterValidator(str.strip)] = ""
    text: StorableText = Field(default="", max_length=_CHARACTERS)

    @property
    def tags(self) -> Tags:
        """What lines are tagged with that do not say it themselves; risks are for safety prompts."""
        if self.objective is Objective.SAFETY:
            return Tags(self.objective, self.risk_category, self.attack_vector)
        return Tags(self.objective)
