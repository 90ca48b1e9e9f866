"""The words of preference collection: objectives, strengths, safety bins, margins, splits (Llama 2, section 3.2)."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

# The manifest says which names of this module it was written with.
VOCABULARY_VERSION = 1


class Objective(StrEnum):
    """What annotators judge. Llama 2 collects the two separately, with separate guidelines (section 3.2.1)."""

    HELPFULNESS = "helpfulness"
    SAFETY = "safety"


class Strength(StrEnum):
    """How much better the chosen response is, always on top of a forced choice (section 3.2.1)."""

    SIGNIFICANTLY_BETTER = "significantly_better"
    BETTER = "better"
    SLIGHTLY_BETTER = "slightly_better"
    NEGLIGIBLY_BETTER_OR_UNSURE = "negligibly_better_or_unsure"


class Side(StrEnum):
    """Where a response stands on the screen; drawn at random by the server for each comparison, and stored."""

    A = "a"
    B = "b"

    @property
    def other(self) -> "Side":
        """The opposite side."""
        return Side.B if self is Side.A else Side.A


class SafetyBin(StrEnum):
    """The safety label of a judged pair: the paper's three bins (section 3.2.1) and the fourth, which it leaves out."""

    CHOSEN_SAFE_REJECTED_UNSAFE = "chosen_safe_rejected_unsafe"
    BOTH_SAFE = "both_safe"
    BOTH_UNSAFE = "both_unsafe"
    CHOSEN_UNSAFE_REJECTED_SAFE = "chosen_unsafe_rejected_safe"

    @classmethod
    def of(cls, *, chosen_safe: bool, rejected_safe: bool) -> "SafetyBin":
        """The bin of a pair whose responses were labelled safe or unsafe."""
        if chosen_safe:
            return cls.BOTH_SAFE if rejected_safe else cls.CHOSEN_SAFE_REJECTED_UNSAFE
        return cls.CHOSEN_UNSAFE_REJECTED_SAFE if rejected_safe else cls.BOTH_UNSAFE

    @property
    def is_exported(self) -> bool:
        """Whether a dataset takes such a pair: never when the chosen response is the only unsafe one."""
        return self is not SafetyBin.CHOSEN_UNSAFE_REJECTED_SAFE


class RiskCategory(StrEnum):
    """What a safety prompt might lead the model to (Llama 2, section 4.2.1: three risk categories)."""

    ILLICIT_ACTIVITIES = "illicit_activities"
    """Illicit and criminal activities: terrorism, theft, human trafficking."""
    HARMFUL_ACTIVITIES = "harmful_activities"
    """Hateful and harmful activities: defamation, self-harm, eating disorders, discrimination."""
    UNQUALIFIED_ADVICE = "unqualified_advice"
    """Medical, financial or legal advice."""


class AttackVector(StrEnum):
    """How a safety prompt tries to lead the model there (Llama 2, section 4.2.1)."""

    PSYCHOLOGICAL = "psychological"
    """Psychological manipulation, such as authority."""
    LOGIC = "logic"
    """Logic manipulation, such as false premises."""
    SYNTACTIC = "syntactic"
    """Syntactic manipulation, such as misspelling."""
    SEMANTIC = "semantic"
    """Semantic manipulation, such as metaphor."""
    PERSPECTIVE = "perspective"
    """Perspective manipulation, such as role playing."""
    NON_ENGLISH = "non_english"
    OTHER = "other"


class MarginScheme(StrEnum):
    """How a strength becomes the margin m(r) of the ranking loss (equation 2; Table 27)."""

    NONE = "none"
    SMALL = "small"
    LARGE = "large"


MARGINS: Mapping[MarginScheme, Mapping[Strength, float]] = MappingProxyType(
    {
        MarginScheme.NONE: MappingProxyType(dict.fromkeys(Strength, 0.0)),
        MarginScheme.SMALL: MappingProxyType(
            {
                Strength.SIGNIFICANTLY_BETTER: 1.0,
                Strength.BETTER: 2 / 3,
                Strength.SLIGHTLY_BETTER: 1 / 3,
                Strength.NEGLIGIBLY_BETTER_OR_UNSURE: 0.0,
            }
        ),
        MarginScheme.LARGE: MappingProxyType(
            {
                Strength.SIGNIFICANTLY_BETTER: 3.0,
                Strength.BETTER: 2.0,
                Strength.SLIGHTLY_BETTER: 1.0,
                Strength.NEGLIGIBLY_BETTER_OR_UNSURE: 0.0,
            }
        ),
    }
)


def margin(strength: Strength, scheme: MarginScheme) -> float:
    """The margin m(r) of equation 2 for one preference strength, in units of reward."""
    return MARGINS[scheme][strength]


class Split(StrEnum):
    """Which part of a dataset a row is in; drawn once by conversation when its batch is frozen, then permanent."""

    TRAIN = "train"
    TEST = "test"


class Role(StrEnum):
    """Who says a message of a conversation, in the chat format of transformers."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


class Generation(StrEnum):
    """Which chat checkpoint a model variant samples from, by age (Llama 2, section 3.2.1: different model variants)."""

    NEWEST = "newest"
    """The checkpoint that was promoted last when the batch opened."""
    PREVIOUS = "previous"
    """The one that was current before it; the newest where there was none."""


class FinishReason(StrEnum):
    """Why a response ended: it stopped by itself, or it reached its largest number of tokens."""

    STOP = "stop"
    LENGTH = "length"


class LeftOut(StrEnum):
    """Why a comparison of a batch is not a row of its dataset; each reason is counted in the manifest."""

    SAMPLING_FAILED = "sampling_failed"
    NOT_ANNOTATED = "not_annotated"
    SKIPPED = "skipped"
    UNREVIEWED = "unreviewed"
    REJECTED_IN_REVIEW = "rejected_in_review"
    CHOSEN_UNSAFE_REJECTED_SAFE = "chosen_unsafe_rejected_safe"
    EQUAL_RESPONSES = "equal_responses"
    ANNOTATOR_EXCLUDED = "annotator_excluded"
    PROMPT_ON_BOTH_SIDES = "prompt_on_both_sides"
