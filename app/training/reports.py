"""Reads evaluation reports: figures as text, and whether a reward model beats the plainest baseline."""

from dataclasses import dataclass

from contract.training import AccuracyCell, EvaluationReport


@dataclass(frozen=True)
class AccuracyRow:
    """One accuracy as a table shows it."""

    name: str
    n: int
    correct: int
    ties: int
    accuracy: str
    interval: str


def accuracy_row(cell: AccuracyCell, name: str = "") -> AccuracyRow:
    """An accuracy with its 95 % interval, as text."""
    is_known = cell.low is not None and cell.high is not None
    return AccuracyRow(
        name=name or cell.name.replace("_", " "),
        n=cell.n,
        correct=cell.correct,
        ties=cell.ties,
        accuracy=percent(cell.accuracy),
        interval=f"{(cell.low or 0) * 100:.1f} to {(cell.high or 0) * 100:.1f} %" if is_known else "-",
    )


def percent(share: float | None) -> str:
    """A share as a percentage; a dash where there is nothing to average."""
    return "-" if share is None else f"{share * 100:.1f} %"


def table(report: EvaluationReport) -> list[AccuracyRow]:
    """The report's table: everything, by strength, by safety bin where there is one, and the two baselines."""
    return [
        *(accuracy_row(cell) for cell in (report.overall, *report.by_strength, *report.by_safety_bin)),
        accuracy_row(report.longer_wins, "baseline: the longer response wins"),
        accuracy_row(report.a_wins, "baseline: the one shown as A wins"),
    ]


def length_verdict(report: EvaluationReport) -> str:
    """A plain sentence where the reward model does no better than preferring the longer response."""
    own, longer = report.overall, report.longer_wins
    if own.accuracy is None or own.low is None or longer.accuracy is None:
        return ""
    figures = f"{percent(own.accuracy)} against {percent(longer.accuracy)}, n = {own.n:,}"
    if own.accuracy <= longer.accuracy:
        return f"This reward model is no better than always preferring the longer response ({figures})."
    if own.low <= longer.accuracy:
        return (
            f"This reward model cannot be told apart from always preferring the longer response ({figures}): "
            "the baseline lies within its interval. More held-out comparisons would decide."
        )
    return ""
