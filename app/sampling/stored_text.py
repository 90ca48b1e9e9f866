"""Text from outside, such as a model's, as both databases can store it."""

_NUL = "\0"


def storable(text: str) -> str:
    """Text without NUL, which a tokenizer may know as a byte and PostgreSQL cannot store."""
    return text.replace(_NUL, "\N{REPLACEMENT CHARACTER}")
