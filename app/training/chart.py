"""Turns figures by step into the coordinates of a small line chart; the template only draws."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 560
HEIGHT = 200
_LEFT = 44
_RIGHT = 8
_TOP = 10
_BOTTOM = 24
_NICE_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_WANTED_TICKS = 5
# A number this close to a round one is that one: 1 / 0.2 is not quite 5.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Tick:
    """A labelled line across the chart, or a labelled place under it."""

    at: float
    label: str


@dataclass(frozen=True)
class Chart:
    """One line, its grid, and what it says in words."""

    title: str
    summary: str
    points: str
    """The line, as an SVG polyline's ``points``."""
    last: tuple[float, float] | None
    """Where the line ends, if there is one."""
    rows: list[Tick]
    columns: list[Tick]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    bottom: int = HEIGHT - _BOTTOM


def line_chart(
    title: str,
    figures: Sequence[tuple[float, float]],
    *,
    total_steps: int,
    bounds: tuple[float, float] | None = None,
) -> Chart:
    """A chart of ``(step, value)`` figures over the whole length of a run.

    Without ``bounds`` the vertical axis covers the values.
    """
    low, high = bounds or _bounds([value for _, value in figures])
    last_step = max(total_steps, 1)

    def x(step: float) -> float:
        return round(_LEFT + (WIDTH - _LEFT - _RIGHT) * step / last_step, 1)

    def y(value: float) -> float:
        share = (min(max(value, low), high) - low) / (high - low)
        return round(HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * share, 1)

    places = [(x(step), y(value)) for step, value in figures]
    return Chart(
        title=title,
        summary=_summary(title, figures),
        points=" ".join(f"{place[0]},{place[1]}" for place in places),
        last=places[-1] if places else None,
        rows=[Tick(at=y(value), label=f"{value:g}") for value in _ticks(low, high)],
        columns=[Tick(at=x(step), label=f"{step:,}") for step in sorted({0, last_step // 2, last_step})],
    )


def _summary(title: str, figures: Sequence[tuple[float, float]]) -> str:
    if not figures:
        return f"{title}: no step yet."
    return f"{title}: {figures[0][1]:.3f} at first, {figures[-1][1]:.3f} at step {figures[-1][0]:,.0f}."


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    """The lowest and highest value with some air, never the same number twice."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    air = (high - low) * 0.08 or max(abs(high) * 0.1, 0.05)
    return low - air, high + air


def _ticks(low: float, high: float) -> list[float]:
    """A few round numbers between two values."""
    raw = (high - low) / _WANTED_TICKS
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(nice * magnitude for nice in _NICE_STEPS if nice * magnitude >= raw * (1 - _ROUNDING))
    first = math.ceil(low / step - _ROUNDING)
    last = math.floor(high / step + _ROUNDING)
    return [round(number * step, 10) for number in range(first, last + 1)]
