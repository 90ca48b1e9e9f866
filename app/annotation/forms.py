"""The fields of the workspace's forms.

What a person types or presses is taken as plain text here and read by ``answers``: an incomplete form must
come back with everything that was in it, which a refusal by the framework could not do.
"""

from pydantic import Field

from app.accounts.forms import ProtectedForm, StorableText
from app.models import SkipReason
from contract.vocabulary import Objective

_NOTE_CHARACTERS = 2_000


class FirstPromptForm(ProtectedForm):
    """The prompt that begins a conversation."""

    objective: Objective
    prompt: str = ""


class NextPromptForm(ProtectedForm):
    """The prompt of a later turn."""

    prompt: str = ""


class AnnotationForm(ProtectedForm):
    """A choice with its strength, ``<response id>:<strength>``, and for safety the label of the pair."""

    rating: str = ""
    safety: str = ""
    rationale: str = ""
    confirm: bool = False
    """The annotator was told that the chosen response is the unsafe one, and means it."""


class SkipForm(ProtectedForm):
    """Why a comparison cannot be rated."""

    reason: SkipReason
    note: StorableText = Field(default="", max_length=_NOTE_CHARACTERS)
