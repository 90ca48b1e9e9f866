"""The fields of the workspace's forms.

What a person types or presses is taken as plain text here and read by ``answers``: an incomplete form must
come back with everything that was in it, which a refusal by the framework could not do.
"""

from typing import Annotated
from uuid import UUID

from pydantic import Field

from app.accounts.forms import ProtectedForm, StorableText
from app.annotation.answers import Filled
from app.models import DraftKind, FlagKind, SkipReason, new_id
from contract.vocabulary import Objective

_NOTE_CHARACTERS = 2_000
_DRAFT_CHARACTERS = 200_000

_DraftText = Annotated[StorableText, Field(max_length=_DRAFT_CHARACTERS)]


class PromptForm(ProtectedForm):
    """A prompt of any turn."""

    form_id: UUID = Field(default_factory=new_id)
    """Of the comparison that the prompt becomes: a form that is sent twice asks once."""
    prompt: str = ""
    risk_category: str = ""
    attack_vector: str = ""

    @property
    def tags(self) -> tuple[str, str]:
        """Risk category and attack vector, as typed."""
        return (self.risk_category, self.attack_vector)


class FirstPromptForm(PromptForm):
    """The prompt that begins a conversation."""

    objective: Objective


class AnnotationForm(ProtectedForm):
    """A choice with its strength, ``<response id>:<strength>``, and what else is asked for."""

    rating: str = ""
    safety: str = ""
    rationale: str = ""
    confirm: bool = False
    quality_a: str = ""
    quality_b: str = ""
    edited_text: str = ""
    edited_of: str = ""
    revision: int = 0

    @property
    def filled(self) -> Filled:
        """What was filled in."""
        return Filled(**self.model_dump(exclude={"csrf_token", "revision"}))


class DraftForm(ProtectedForm):
    """What is in a form that has not been sent: the fields of all of them."""

    kind: DraftKind
    revision: int = 0
    """Of the annotation that is being changed, so that a late draft does not hide a newer choice."""
    objective: Objective | None = None
    prompt: _DraftText = ""
    risk_category: _DraftText = ""
    attack_vector: _DraftText = ""
    rating: _DraftText = ""
    safety: _DraftText = ""
    rationale: _DraftText = ""
    confirm: bool = False
    quality_a: _DraftText = ""
    quality_b: _DraftText = ""
    edited_text: _DraftText = ""
    edited_of: _DraftText = ""

    @property
    def fields(self) -> dict[str, object]:
        """The fields that hold something."""
        plain = self.model_dump(mode="json", exclude={"csrf_token", "kind", "revision", "confirm"})
        return {name: value for name, value in plain.items() if value}


class SkipForm(ProtectedForm):
    """Why a comparison cannot be judged."""

    reason: SkipReason
    note: StorableText = Field(default="", max_length=_NOTE_CHARACTERS)


class FlagForm(ProtectedForm):
    """What somebody should look at."""

    kind: FlagKind
    note: StorableText = Field(default="", max_length=_NOTE_CHARACTERS)
