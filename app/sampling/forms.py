"""The form that tries a failed pair again."""

from pydantic import Field

from app.accounts.forms import ProtectedForm


class RetryForm(ProtectedForm):
    """Trying again what has failed."""

    page: int = Field(default=1, ge=1, le=1_000_000)
    """Where the list was, to go back there."""
