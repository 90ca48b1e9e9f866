"""What every route of the worker API needs: the protocol's version and the terms of leases."""

from http import HTTPStatus
from typing import Annotated

from fastapi import Depends, Header, Request

from app.errors import AppError
from app.sampling.leases import LeaseTerms
from app.settings import Settings
from contract.sampling import PROTOCOL_HEADER, PROTOCOL_VERSION

WORKER_API = "/api/worker/v1"
MAX_BODY_BYTES = 64 * 1024 * 1024
"""Two long responses with all their token ids, or the report on a whole training run."""


class ProtocolMismatchError(AppError):
    """The worker speaks another version of the protocol; app and worker are upgraded together."""

    status = HTTPStatus.UPGRADE_REQUIRED
    code = "protocol_mismatch"


def require_protocol(version: Annotated[int | None, Header(alias=PROTOCOL_HEADER)] = None) -> None:
    """Refuse workers of another protocol version.

    Raises:
        ProtocolMismatchError: The version differs, or none was given.

    """
    if version != PROTOCOL_VERSION:
        msg = f"This app speaks worker protocol {PROTOCOL_VERSION}, the worker {version}. Install the same release."
        raise ProtocolMismatchError(msg)


def lease_terms(request: Request) -> LeaseTerms:
    """How long leases last here."""
    settings: Settings = request.state.settings
    return LeaseTerms(lease_s=settings.lease_s, max_attempts=settings.max_attempts)


LeaseTermsDep = Annotated[LeaseTerms, Depends(lease_terms)]
