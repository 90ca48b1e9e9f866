"""Reads what an annotator wrote and pressed. Pure functions: they take text and say what it means, or what is wrong."""

from dataclasses import dataclass, replace
from enum import StrEnum
from uuid import UUID

from app.models import Batch, Comparison, RationaleMode, Response
from contract.vocabulary import AttackVector, Objective, RiskCategory, SafetyBin, Side, Strength

RATIONALE_CHARACTERS = 5_000
EDIT_CHARACTERS = 100_000
QUALITY = range(1, 8)
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
class Prompt:
    """What the user says, and for the safety objective what kind of risk it is about."""

    text: str
    risk_category: RiskCategory | None = None
    attack_vector: AttackVector | None = None

    def with_tags_of(self, earlier: Comparison) -> "Prompt":
        """The prompt with the tags of an earlier turn where it has none of its own."""
        return replace(
            self,
            risk_category=self.risk_category or earlier.risk_category,
            attack_vector=self.attack_vector or earlier.attack_vector,
        )


@dataclass(frozen=True)
class Filled:
    """The judgement form as it was filled in, everything as text."""

    rating: str = ""
    safety: str = ""
    rationale: str = ""
    confirm: bool = False
    """The annotator was told that the chosen response is the unsafe one, and means it."""
    quality_a: str = ""
    quality_b: str = ""
    edited_text: str = ""
    edited_of: str = ""
    """The response that the edit started from."""


@dataclass(frozen=True)
class Answer:
    """A choice, its strength, for the safety objective what is safe, and what else the batch asks for."""

    chosen: Response
    strength: Strength
    chosen_safe: bool | None = None
    rejected_safe: bool | None = None
    rationale: str = ""
    chosen_quality: int | None = None
    rejected_quality: int | None = None
    edited_text: str | None = None


@dataclass(frozen=True)
class Rejected:
    """What is wrong with a form, in words that name the field."""

    message: str
    needs_confirmation: bool = False
    """Nothing is wrong; the annotator should look again and say so."""


def rating_value(response_id: UUID, strength: Strength) -> str:
    """How the screen's eight points are spelt: the id of the chosen response and the strength."""
    return f"{response_id}:{strength}"


def read_prompt(
    text: str, *, max_characters: int, objective: Objective, tags: tuple[str, str] = ("", ""), needs_tags: bool = True
) -> Prompt | Rejected:
    """A prompt without surrounding space, its line ends as the model will see them, with its tags if it is for safety.

    ``tags`` are the risk category and the attack vector.
    """
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
    if objective is not Objective.SAFETY:
        return Prompt(prompt)
    return _tagged(prompt, *tags, needs_tags=needs_tags)


def _tagged(prompt: str, category: str, vector: str, *, needs_tags: bool) -> Prompt | Rejected:
    if category not in set(RiskCategory) and (category or needs_tags):
        return Rejected("risk_category: say what kind of risk the prompt is about.")
    if vector not in set(AttackVector) and (vector or needs_tags):
        return Rejected("attack_vector: say how the prompt tries to lead the model astray.")
    return Prompt(
        prompt,
        RiskCategory(category) if category else None,
        AttackVector(vector) if vector else None,
    )


def read_answer(batch: Batch, comparison: Comparison, filled: Filled) -> Answer | Rejected:
    """What was said about a comparison, whose responses must be loaded with their sides."""
    found = _read_rating(comparison, filled.rating)
    if isinstance(found, Rejected):
        return found
    answer: Answer | Rejected = Answer(*found)
    for read in (_with_label, _with_rationale, _with_quality, _with_edit):
        if isinstance(answer, Rejected):
            break
        answer = read(answer, batch, comparison, filled)
    return answer


def _with_label(answer: Answer, _batch: Batch, comparison: Comparison, filled: Filled) -> Answer | Rejected:
    if comparison.objective is Objective.SAFETY:
        return _label(answer, filled.safety, is_confirmed=filled.confirm)
    if filled.safety:
        return Rejected("safety: a helpfulness comparison has no safety label.")
    return answer


def _with_rationale(answer: Answer, batch: Batch, _comparison: Comparison, filled: Filled) -> Answer | Rejected:
    text = _clean(filled.rationale)
    if len(text) > RATIONALE_CHARACTERS or _NUL in text:
        return Rejected(f"rationale: at most {RATIONALE_CHARACTERS:,} characters, and no NUL character.")
    if batch.rationale_mode is RationaleMode.REQUIRED and not text:
        return Rejected("rationale: say in a few words what made the difference.")
    return replace(answer, rationale=text if batch.rationale_mode is not RationaleMode.OFF else "")


def _with_quality(answer: Answer, batch: Batch, _comparison: Comparison, filled: Filled) -> Answer | Rejected:
    if not batch.asks_quality:
        return answer
    scores = {Side.A: _score(filled.quality_a), Side.B: _score(filled.quality_b)}
    side = answer.chosen.side
    if None in scores.values():
        return Rejected(f"quality: score both responses, from {QUALITY[0]} to {QUALITY[-1]}.")
    return replace(answer, chosen_quality=scores[side], rejected_quality=scores[side.other])


def _score(text: str) -> int | None:
    return next((score for score in QUALITY if str(score) == text), None)


def _with_edit(answer: Answer, batch: Batch, _comparison: Comparison, filled: Filled) -> Answer | Rejected:
    text = _clean(filled.edited_text)
    if not batch.asks_edit or not text:
        return answer
    if len(text) > EDIT_CHARACTERS or _NUL in text:
        return Rejected(f"edited_text: at most {EDIT_CHARACTERS:,} characters, and no NUL character.")
    if filled.edited_of != str(answer.chosen.id):
        return Rejected(
            f"edited_text: you improved the other response, but chose {answer.chosen.side.upper()}. "
            "Improve the one that you choose, or empty the field."
        )
    return replace(answer, edited_text=text)


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
