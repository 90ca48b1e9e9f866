"""The secret that every form of a session carries, shown in another disguise on every page.

Pages are compressed, and they show text that others wrote beside this secret. From the length of many such pages one
could guess a secret that always looks the same (the BREACH attack); one that never looks the same twice tells nothing.
"""

import secrets


def disguise(token: str) -> str:
    """The token under a random mask, with the mask before it; both in hexadecimal."""
    plain = token.encode()
    mask = secrets.token_bytes(len(plain))
    return mask.hex() + _masked(plain, mask).hex()


def is_disguised(given: str, token: str) -> bool:
    """Whether what a form sent is the token, in whatever disguise or in none."""
    plain = token.encode()
    try:
        sent = bytes.fromhex(given)
    except ValueError:
        sent = b""
    mask, masked = sent[: len(plain)], sent[len(plain) :]
    shown = _masked(masked, mask) if len(masked) == len(mask) == len(plain) else given.encode()
    return secrets.compare_digest(shown, plain)


def _masked(text: bytes, mask: bytes) -> bytes:
    return bytes(one ^ other for one, other in zip(text, mask, strict=True))
