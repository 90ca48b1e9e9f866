"""Many simulated annotators at once, each in a thread of its own, and what came of it in figures."""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import quantiles

from app.simulation.annotator import Annotator, Habits, Record
from app.simulation.browser import Browser, SimulationError
from app.simulation.preference import Taste, expected_accuracy
from app.simulation.prompts import Writer
from contract.vocabulary import Side, Strength


@dataclass(frozen=True)
class Crowd:
    """Who works, and how."""

    url: str
    links: Sequence[str]
    """One sign-in link for each annotator."""
    taste: Taste
    habits: Habits
    turns: int = 3
    scripts: Sequence[tuple[str, ...]] = ()


@dataclass(frozen=True)
class Summary:
    """The figures of a simulation."""

    wanted: int
    comparisons: int
    skipped: int
    without_pair: int
    cycle_p50_s: float
    cycle_p95_s: float
    submit_p50_s: float
    submit_p95_s: float
    strengths: dict[Strength, float]
    """Shares, which add up to 1 unless there is nothing."""
    a_share: float
    agreement: float
    """How often the response of higher utility was chosen."""
    ceiling: float
    """How often that was to be expected; no reward model can be right more often, but for chance."""
    errors: tuple[str, ...]
    is_closed: bool

    @property
    def is_good(self) -> bool:
        """Whether everything that was wanted was done without an error."""
        return not self.errors and self.comparisons >= self.wanted


def run_crowd(crowd: Crowd, comparisons: int, on_comparison: Callable[[], None]) -> Summary:
    """Have a crowd judge so many comparisons in all, spread evenly over the annotators."""
    share, rest = divmod(comparisons, len(crowd.links))
    with ThreadPoolExecutor(max_workers=len(crowd.links), thread_name_prefix="annotator") as pool:
        work = [
            pool.submit(_work, crowd, number, link, share + (number <= rest), on_comparison)
            for number, link in enumerate(crowd.links, start=1)
        ]
        return summarise([one.result() for one in work], comparisons, noise=crowd.taste.noise)


def summarise(records: Sequence[Record], wanted: int, *, noise: float) -> Summary:
    """The figures of what annotators did."""
    strengths = Counter(strength for record in records for strength in record.strengths)
    sides = [side for record in records for side in record.chosen_sides]
    gaps = [gap for record in records for gap in record.gaps]
    cycle_p50_s, cycle_p95_s = _middle_and_tail([seconds for record in records for seconds in record.cycles_s])
    submit_p50_s, submit_p95_s = _middle_and_tail([seconds for record in records for seconds in record.submits_s])
    return Summary(
        wanted=wanted,
        comparisons=sum(record.comparisons for record in records),
        skipped=sum(record.skipped for record in records),
        without_pair=sum(record.without_pair for record in records),
        cycle_p50_s=cycle_p50_s,
        cycle_p95_s=cycle_p95_s,
        submit_p50_s=submit_p50_s,
        submit_p95_s=submit_p95_s,
        strengths={strength: strengths[strength] / max(1, strengths.total()) for strength in Strength},
        a_share=sides.count(Side.A) / max(1, len(sides)),
        agreement=sum(gap > 0 for gap in gaps) / max(1, len(gaps)),
        ceiling=expected_accuracy(gaps, noise=noise),
        errors=tuple(error for record in records for error in record.errors),
        is_closed=any(record.is_closed for record in records),
    )


def _work(crowd: Crowd, number: int, link: str, comparisons: int, on_comparison: Callable[[], None]) -> Record:
    record = Record(name=f"annotator {number}")
    # Each annotator has prompts of their own, as long as there are enough.
    scripts = crowd.scripts[number - 1 :: len(crowd.links)] or crowd.scripts
    writer = Writer(f"{crowd.habits.seed}/{number}/prompts", turns=crowd.turns, scripts=scripts)
    with Browser(crowd.url) as browser:
        try:
            browser.sign_in(link)
        except SimulationError as error:
            record.errors.append(f"{record.name}: signing in: {error}")
            return record
        Annotator(browser, record, writer, crowd.taste, crowd.habits, on_comparison).work(comparisons)
        try:
            browser.sign_out()
        except SimulationError as error:
            record.errors.append(f"{record.name}: signing out: {error}")
    return record


def _middle_and_tail(values: Sequence[float]) -> tuple[float, float]:
    """The 50th and 95th percentile; 0 where there is nothing."""
    if not values:
        return 0.0, 0.0
    cuts = quantiles([*values, values[0]] if len(values) == 1 else values, n=100, method="inclusive")
    return cuts[49], cuts[94]
