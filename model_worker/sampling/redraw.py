"""Two equal texts cannot be compared: says which response is drawn again, and with which seed; imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass

from contract.sampling import ResponseSpec
from model_worker.sampling.interface import MAX_REDRAWS
from model_worker.sampling.seeds import redraw_seed


@dataclass(frozen=True, slots=True)
class Redraw:
    """One response of a job is to be drawn again."""

    spec_index: int
    seed: int
    """In place of the spec's own seed."""


def next_redraw(specs: Sequence[ResponseSpec], texts: Sequence[str], *, redraws: int) -> Redraw | None:
    """What is to be drawn again before a finished job can be handed in; ``None`` if it can be as it is.

    The last of equal texts that another seed may change is drawn again. A job whose texts stay equal is handed in
    after ``MAX_REDRAWS``: where one text is nearly certain, no seed helps.

    Args:
        specs: The job's.
        texts: The complete text of each spec's response.
        redraws: How many responses of the job were drawn again before.

    """
    if redraws >= MAX_REDRAWS:
        return None
    for spec_index in reversed(range(len(specs))):
        spec = specs[spec_index]
        if texts.count(texts[spec_index]) > 1 and _may_change(spec):
            return Redraw(spec_index, redraw_seed(spec.seed, redraws + 1))
    return None


def _may_change(spec: ResponseSpec) -> bool:
    return spec.temperature > 0 and spec.top_k != 1
