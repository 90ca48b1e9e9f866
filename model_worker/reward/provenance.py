"""The file that says where a reward model comes from, beside its weights."""

from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, ValidationError

from contract.base import Contract
from contract.external import explain
from contract.recipe import Recipe
from contract.training import DatasetRef, EvaluationReport
from model_worker.errors import RewardModelError

PROVENANCE_FILE = "reward_model.json"


class BaseCheckpoint(Contract):
    """The chat checkpoint that the reward model started from."""

    name: str
    digest: str
    tokenizer_digest: str
    template_digest: str


class ExternalSource(Contract):
    """A file of external preference data."""

    name: str
    sha256: str
    comparisons: int
    left_out: dict[str, int]


class Provenance(Contract):
    """Everything needed to make the reward model again, and what it was worth when it was made."""

    format_version: Literal[1] = 1
    recipe: Recipe
    base_checkpoint: BaseCheckpoint
    datasets: tuple[DatasetRef, ...]
    external: tuple[ExternalSource, ...]
    max_length: int
    """Tokens: the recipe's, or the checkpoint's context where that is shorter. Scoring uses the same."""
    training_comparisons: int
    steps: int
    notes: tuple[str, ...]
    """Warnings of the run, and what it left out."""
    evaluations: tuple[EvaluationReport, ...]
    versions: dict[str, str]
    """Versions of the libraries that computed it."""
    made_at: AwareDatetime


def write_provenance(folder: Path, provenance: Provenance) -> None:
    """Write `reward_model.json`."""
    (folder / PROVENANCE_FILE).write_text(provenance.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_provenance(folder: Path) -> Provenance | None:
    """Read `reward_model.json`; ``None`` for a reward model that another tool made.

    Raises:
        RewardModelError: The file is there and is damaged.

    """
    path = folder / PROVENANCE_FILE
    if not path.is_file():
        return None
    try:
        return Provenance.model_validate_json(path.read_bytes())
    except ValidationError as error:
        msg = f"{path}: {explain(error)}"
        raise RewardModelError(msg) from None
