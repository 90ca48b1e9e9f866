"""The fields of the review form."""

from pydantic import Field

from app.accounts.forms import ProtectedForm, StorableText
from app.models import Verdict


class VerdictForm(ProtectedForm):
    """A reviewer's verdict on an annotation."""

    verdict: Verdict
    feedback: StorableText = Field(default="", max_length=4000)
    revision: int = Field(ge=1)
    """The revision that the reviewer read."""
    page: int = Field(default=1, ge=1)
    """Where the list was, to go back there."""
