"""The form that defines a training set: ticked boxes say what is kept."""

from pydantic import Field

from app.accounts.forms import ProtectedForm
from app.training_sets.service import SetWanted
from app.web.fields import read_fields
from contract.vocabulary import MarginScheme, Objective, SafetyBin, Strength

EXPORTED_BINS = tuple(label for label in SafetyBin if label.is_exported)


class SetForm(ProtectedForm):
    """What a trainer typed and ticked."""

    name: str = Field(default="", max_length=1000)
    frozen: list[str] = Field(default_factory=list)
    external: list[str] = Field(default_factory=list)
    margin_scheme: str = MarginScheme.SMALL
    objectives: list[str] = Field(default_factory=list)
    strengths: list[str] = Field(default_factory=list)
    safety_bins: list[str] = Field(default_factory=list)
    keeps_unrated: bool = False

    @classmethod
    def untouched(cls) -> "SetForm":
        """The form as it is shown first: everything is kept."""
        return cls(
            objectives=list(Objective), strengths=list(Strength), safety_bins=list(EXPORTED_BINS), keeps_unrated=True
        )

    def read(self) -> tuple[SetWanted | None, dict[str, str]]:
        """The wanted set, or a message for each field that makes no sense."""
        keep = {name: getattr(self, name) for name in ("objectives", "strengths", "safety_bins", "keeps_unrated")}
        # An empty list would keep everything, which is the opposite of what somebody ticked.
        problems = {name: "tick at least one." for name, ticked in keep.items() if ticked == []}
        if not self.frozen and not self.external:
            problems["members"] = "choose at least one dataset."
        wanted, wrong = read_fields(
            SetWanted, {**self.model_dump(include={"name", "frozen", "external", "margin_scheme"}), "keep": keep}
        )
        problems |= {name.removeprefix("keep-").partition("-")[0]: message for name, message in wrong.items()}
        return (None if problems else wanted), problems
