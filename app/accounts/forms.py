"""The fields of the account forms."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from app.models import PersonRole, TokenScope

_NUL = "\0"


def refuse_nul(value: object) -> object:
    """What was sent, unless it is text with the one character that PostgreSQL cannot store.

    Raises:
        ValueError: It is.

    """
    if isinstance(value, str) and _NUL in value:
        msg = "holds a NUL character, which cannot be stored"
        raise ValueError(msg)
    return value


def _none_if_empty(typed: object) -> object:
    return None if typed == "" else typed


StorableText = Annotated[str, BeforeValidator(refuse_nul)]
"""Text that both databases can store."""


class ProtectedForm(BaseModel):
    """A form of a signed-in person: it carries the session's CSRF token, and no field that is not expected."""

    model_config = ConfigDict(extra="forbid")

    csrf_token: str = ""


class PasswordForm(BaseModel):
    """Signing in with a name and a password."""

    model_config = ConfigDict(extra="forbid")

    name: StorableText = Field(max_length=100)
    password: str = Field(max_length=1000)
    next: str = Field(default="/", max_length=500)


class NewPasswordForm(ProtectedForm):
    """Choosing a password."""

    password: str = Field(max_length=1000)


class PersonForm(ProtectedForm):
    """Inviting somebody."""

    name: StorableText = Field(min_length=1, max_length=100)
    role: PersonRole


class ActiveForm(ProtectedForm):
    """Disabling a person or letting them in again."""

    is_active: bool


class ExcludedForm(ProtectedForm):
    """Leaving a person's work out of datasets, or taking it again."""

    is_excluded: bool


class TokenForm(ProtectedForm):
    """Making an API token."""

    name: StorableText = Field(min_length=1, max_length=100)
    scope: TokenScope
    days: Annotated[int | None, Field(ge=1, le=3650), BeforeValidator(_none_if_empty)] = None
    """For how long it is valid; without a number, until it is revoked."""
