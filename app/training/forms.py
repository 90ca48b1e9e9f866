"""The form that queues a training run: everything arrives as text, so that a mistake can be shown as it was typed."""

from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, Field

from app.accounts.forms import ProtectedForm
from app.training.service import RunRequest
from app.web.fields import read_fields
from contract.recipe import Recipe
from contract.vocabulary import MarginScheme, Objective


def _nothing_if_empty(value: object) -> object:
    return None if value == "" else value


class RunForm(ProtectedForm):
    """What a trainer typed; an empty field takes the paper's value."""

    name: str = ""
    objective: str = Objective.HELPFULNESS
    datasets: list[str] = Field(default_factory=list)
    checkpoint: str = ""
    margin_scheme: str = MarginScheme.SMALL
    safety_loss_weight: str = "0"
    learning_rate: str = "1e-5"
    epochs: str = "1"
    pairs_per_step: str = ""
    """Empty: the paper's, or fewer where the data is small."""
    pairs_per_minibatch: str = "8"
    seed: str = "0"

    def read(self) -> tuple[RunRequest | None, dict[str, str]]:
        """The request, or a message for each field that makes no sense."""
        fields, problems = read_fields(_RunFields, self.model_dump(exclude={"csrf_token"}))
        if fields is None:
            return None, {name.partition("-")[0]: message for name, message in problems.items()}
        chosen = fields.model_dump(exclude={"name", "datasets", "checkpoint"}, exclude_none=True)
        request = RunRequest(
            recipe=Recipe(**chosen),
            dataset_ids=fields.datasets,
            name=fields.name,
            checkpoint_id=fields.checkpoint,
            fits_pairs_per_step=fields.pairs_per_step is None,
        )
        return request, {}


class _RunFields(BaseModel):
    """What the fields must say."""

    name: str = Field(max_length=100)
    objective: Objective
    datasets: list[UUID]
    checkpoint: Annotated[UUID | None, BeforeValidator(_nothing_if_empty)]
    margin_scheme: MarginScheme
    safety_loss_weight: float = Field(ge=0, allow_inf_nan=False)
    learning_rate: float = Field(gt=0, le=1, allow_inf_nan=False)
    epochs: int = Field(ge=1, le=100)
    pairs_per_step: Annotated[Annotated[int, Field(ge=1, le=100_000)] | None, BeforeValidator(_nothing_if_empty)]
    pairs_per_minibatch: int = Field(ge=1, le=4096)
    seed: int = Field(ge=0, lt=2**63)
