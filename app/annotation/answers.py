"""Reads what an annotator wrote and pressed. Pure functions: they take text and say what it means, or what is wrong."""

from dataclasses import dataclass, replace
from enum import StrEnum
from uuid import UUID

from app.models import Comparison, Response
from contract.vocabulary import Objective, SafetyBin, Side, Strength

RATIONALE_CHARACTERS = 5_000
_NUL = "\0"


class SafetyAnswer(StrEnum):
    """The safety label of a pair in the words of the screen, where the responses are A and B."""

    BOTH_SAFE = "both_safe"
    ONLY_A_SAFE = "only_a_safe"
    ONLY_B_SAFE = "only_b_safe"
    BOTH_UNSAFE = "both_unsafe"

    def is_safe(self, side: Side) -> bool:
        """Whether the response on this side was labelled safe."""
        only_safe = SafetyAnswer.ONLY_A_SAFE if side is Side.A else SafetyAnswer.ONLY_B_SAFE
        return self in {SafetyAnswer.BOTH_SAFE, only_safe}

    @classmethod
    def of(cls, *, chosen: Side, chosen_safe: bool, rejected_safe: bool) -> "SafetyAnswer":
        """The words for two labels that were stored by choice."""
        safe = {chosen: chosen_safe, chosen.other: rejected_safe}
        return next(answer for answer in cls if all(answer.is_safe(side) is safe[side] for side in Side))


@dataclass(frozen=True)
class Answer:
    """A choice, its strength, and for the safety objective what is safe."""

    chosen: Response
    strength: Strength
    chosen_safe: bool | None = None
    rejected_safe: bool | None = None
    rationale: str = ""


@dataclass(frozen=True)
class Rejected:
    """What is wrong with a form, in words that name the field."""

    message: str
    needs_confirmation: bool = False
    """Nothing is wrong; the annotator should look again and say so."""


def rating_value(response_id: UUID, strength: Strength) -> str:
    """How the screen's eight points are spelt: the id of the chosen response and the strength."""
    return f"{response_id}:{strength}"


def read_prompt(text: str, *, max_characters: int) -> str | Rejected:
    """A prompt without surrounding space, its line ends as the model will see them."""
    prompt = _clean(text)
    if not prompt:
        return Rejected("prompt: write something first.")
    if _NUL in prompt:
        return Rejected("prompt: it holds a NUL character, which cannot be stored.")
    if len(prompt) > max_characters:
        return Rejected(
            f"prompt: {len(prompt):,} characters are too many; {max_characters:,} are allowed. "
            "Your text is still here: shorten it."
        )
    return prompt


def read_answer(
    comparison: Comparison, *, rating: str, safety: str, rationale: str, is_confirmed: bool
) -> Answer | Rejected:
    """What was pressed below a comparison, whose responses must be loaded."""
    found = _read_rating(comparison, rating)
    if isinstance(found, Rejected):
        return found
    chosen, strength = found
    note = _clean(rationale)
    if len(note) > RATIONALE_CHARACTERS or _NUL in note:
        return Rejected(f"rationale: at most {RATIONALE_CHARACTERS:,} characters, and no NUL character.")
    if comparison.objective is Objective.SAFETY:
        return _label(Answer(chosen, strength, rationale=note), safety, is_confirmed=is_confirmed)
    if safety:
        return Rejected("safety: a helpfulness comparison has no safety label.")
    return Answer(chosen, strength, rationale=note)


def _label(answer: Answer, safety: str, *, is_confirmed: bool) -> Answer | Rejected:
    """The answer with its safety label; one that a dataset will not take must be confirmed."""
    if safety not in set(SafetyAnswer):
        return Rejected("safety: say which of the responses are safe.")
    label = SafetyAnswer(safety)
    side = answer.chosen.side
    chosen_safe, rejected_safe = label.is_safe(side), label.is_safe(side.other)
    if not SafetyBin.of(chosen_safe=chosen_safe, rejected_safe=rejected_safe).is_exported and not is_confirmed:
        return Rejected(
            f"You chose {side.upper()}, but labelled only {side.other.upper()} as safe. "
            "Such a comparison is recorded, but stays out of the datasets.",
            needs_confirmation=True,
        )
    return replace(answer, chosen_safe=chosen_safe, rejected_safe=rejected_safe)


def _read_rating(comparison: Comparison, rating: str) -> tuple[Response, Strength] | Rejected:
    for response in comparison.responses:
        for strength in Strength:
            if rating == rating_value(response.id, strength):
                return response, strength
    if rating:
        return Rejected("rating: it names neither of the two responses of this comparison.")
    return Rejected("rating: choose the better response and how much better it is.")


def _clean(text: str) -> str:
    """Browsers send CR LF for a line end; models were trained on LF."""
    return text.replace("\r\n", "\n").strip()
