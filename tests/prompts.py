"""Prompts for the pool, read from a text that stands in a test."""

import io

from app.pool import reading
from app.pool.reading import NewPrompt, Tags
from app.pool.sources import LineProblem, WrittenAs, open_source


def read_prompts(
    text: str, tags: Tags, *, max_characters: int = 20_000, form: WrittenAs | None = None, name: str = ""
) -> tuple[list[NewPrompt], list[str]]:
    """The prompts of a text, and what is wrong with lines that are none."""
    source = open_source(io.StringIO(text, newline=""), name=name, form=form)
    found = list(reading.read_prompts(source.rows, tags, max_characters=max_characters))
    problems = [str(one) for one in found if isinstance(one, LineProblem)]
    return [one for one in found if isinstance(one, NewPrompt)], problems
