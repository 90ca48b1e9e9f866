"""The fields of the account forms."""

from pydantic import BaseModel, ConfigDict, Field

from app.models import PersonRole, TokenScope


class ProtectedForm(BaseModel):
    """A form of a signed-in person: it carries the session's CSRF token, and no field that is not expected."""

    model_config = ConfigDict(extra="forbid")

    csrf_token: str = ""


class PasswordForm(BaseModel):
    """Signing in with a name and a password."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=100)
    password: str = Field(max_length=1000)
    next: str = Field(default="/", max_length=500)


class NewPasswordForm(ProtectedForm):
    """Choosing a password."""

    password: str = Field(max_length=1000)


class PersonForm(ProtectedForm):
    """Inviting somebody."""

    name: str = Field(min_length=1, max_length=100)
    role: PersonRole


class ActiveForm(ProtectedForm):
    """Disabling a person or letting them in again."""

    is_active: bool


class TokenForm(ProtectedForm):
    """Making an API token."""

    name: str = Field(min_length=1, max_length=100)
    scope: TokenScope
