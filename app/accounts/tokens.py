"""Random tokens: handed out once, stored only as hashes."""

import hashlib
import secrets

_TOKEN_BYTES = 32


def new_token() -> str:
    """A fresh token with 256 random bits, safe in URLs and headers."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def hash_token(token: str) -> str:
    """What the database keeps of a token. A random token needs no slow hash: it cannot be guessed."""
    return hashlib.sha256(token.encode()).hexdigest()
