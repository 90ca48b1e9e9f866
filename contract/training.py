"""The training half of the worker protocol, and the evaluation report of a reward model."""

from typing import Literal
from uuid import UUID

from pydantic import AwareDatetime, Field

from contract.base import Contract
from contract.recipe import Recipe
from contract.sampling import Lease
from contract.vocabulary import Split


class ClaimRun(Contract):
    """A worker asks for one training run; it must be able to load the run's chat checkpoint."""

    worker_id: UUID
    digests: tuple[str, ...]


class DatasetRef(Contract):
    """A frozen dataset by name and by the digest of its manifest."""

    name: str
    manifest_sha256: str


class RewardModelRef(Contract):
    """A reward model by the place where its worker saved it, and by its digest."""

    name: str
    path: str
    digest: str


class RunJob(Contract):
    """A training run handed out to a worker."""

    job_id: UUID
    attempt: int
    name: str
    """The name of the reward model to be made."""
    checkpoint_digest: str
    """The chat checkpoint that the reward model starts from."""
    previous: RewardModelRef | None = None
    """The newest reward model that has not seen the newest dataset's batch: evaluated on it before training, where the
    worker can read its folder, as the measure of drift."""
    datasets: tuple[DatasetRef, ...]
    recipe: Recipe


class ClaimedRun(Contract):
    """The run handed out, if there was one."""

    job: RunJob | None


class TrainingPoint(Contract):
    """One optimiser step's figures, as the run's page draws them."""

    step: int = Field(ge=0)
    total_steps: int = Field(ge=1)
    loss: float
    accuracy: float
    """Share of the step's pairs whose chosen response got the higher reward."""
    reward_gap: float
    """Mean of r(chosen) - r(rejected) over the step's pairs."""
    learning_rate: float
    pairs: int
    """Pairs seen so far."""
    elapsed_s: float


class RunEvents(Contract):
    """Heartbeat of a training run, with the steps since the last one."""

    worker_id: UUID
    lease: Lease
    points: tuple[TrainingPoint, ...] = ()
    log: str = ""
    """Lines to append to the run's log."""


class RunControl(Contract):
    """The answer to a training run's events."""

    is_cancelled: bool
    lease_until: AwareDatetime


class AccuracyCell(Contract):
    """Accuracy over some comparisons, with the Wilson interval at 95 %. A tie counts as wrong and is counted."""

    name: str
    """A strength, a safety bin, or ``all``."""
    n: int
    correct: int
    ties: int
    accuracy: float | None
    """``None`` where there is nothing to average."""
    low: float | None
    high: float | None


class EvaluationReport(Contract):
    """What a reward model got right on one split of one dataset (Llama 2, Tables 8 and 29)."""

    dataset: str
    split: Split
    kind: Literal["before_training", "after_training", "held_out"]
    overall: AccuracyCell
    by_strength: tuple[AccuracyCell, ...]
    by_safety_bin: tuple[AccuracyCell, ...]
    longer_wins: AccuracyCell
    """The baseline that always prefers the longer response, in characters."""
    a_wins: AccuracyCell
    """The baseline that always prefers the response that was shown as A."""
    mean_reward_gap: float | None


class FinishRun(Contract):
    """A training run ended well."""

    worker_id: UUID
    lease: Lease
    path: str
    """Where the worker saved the reward model, in Hugging Face format."""
    digest: str
    evaluations: tuple[EvaluationReport, ...]


class FailRun(Contract):
    """A training run ended badly; the reason is shown on its page."""

    worker_id: UUID
    lease: Lease
    reason: str = Field(min_length=1, max_length=8000)
    is_retryable: bool
