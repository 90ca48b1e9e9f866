"""Trains a reward model from a chat checkpoint and preference data (Llama 2, section 3.2.2).

The loop is transformers' Trainer under a thin subclass (`trainer.py`), rather than a loop of our own: resuming
after a kill, FSDP and gradient checkpointing come with it. Everything that decides what is learned is ours.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
import transformers

from contract.checkpoint_files import CheckpointFiles, inspect_checkpoint
from contract.digests import model_digest
from contract.recipe import Recipe
from contract.training import EvaluationReport, TrainingPoint
from model_worker.errors import TrainingError, TrainingStoppedError
from model_worker.reward.encoding import EncodedComparisons, Encoder, encode_comparisons
from model_worker.reward.evaluate import evaluate
from model_worker.reward.model import (
    LoadedRewardModel,
    load_reward_model,
    save_reward_model,
)
from model_worker.reward.plan import PlannedStep, plan_steps, step_warnings
from model_worker.reward.provenance import BaseCheckpoint, Provenance, write_provenance
from model_worker.reward.score import Scorer
from model_worker.reward.sources import Sources, gather_sources
from model_worker.reward.trainer import RewardTrainer, StepDataset


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRequest:
    """What to train, from what, and where to put it."""

    checkpoint: Path
    """The folder of the chat checkpoint."""
    recipe: Recipe
    output: Path
    """The reward model's folder; it must not exist yet, or be empty."""
    datasets: tuple[Path, ...] = ()
    """Folders of frozen preference datasets, the newest last."""
    external: tuple[Path, ...] = ()
    """Files of external preference data to train on, whatever the objective."""
    external_test: tuple[Path, ...] = ()
    """Files of external preference data to evaluate on."""
    previous: Path | None = None
    """The last reward model; it is evaluated on the newest dataset before training, as a measure of drift."""


@dataclass(frozen=True, slots=True)
class TrainedRewardModel:
    """A finished reward model."""

    folder: Path
    digest: str
    """Over ``config.json`` and the weights, as for chat checkpoints."""
    evaluations: tuple[EvaluationReport, ...]
    notes: tuple[str, ...]
    """What a person should know of the run: warnings, and what was left out."""


def train_reward_model(
    request: TrainingRequest,
    *,
    on_point: Callable[[TrainingPoint], None],
    should_stop: Callable[[], bool],
    on_note: Callable[[str], None] = lambda _: None,
) -> TrainedRewardModel:
    """Train, evaluate on every held-out split, and save; the output folder appears whole or not at all.

    Args:
        request: What to train.
        on_point: Called after every optimiser step.
        should_stop: Asked after every optimiser step.
        on_note: Called with each warning, when it is known.

    Raises:
        ContractError: An expected failure, with a message for a person.
        TrainingStoppedError: `should_stop` said so; nothing was saved.

    """
    _refuse_occupied(request.output)
    prepared = _prepare(request)
    for note in prepared.notes:
        on_note(note)
    evaluations = _evaluate_previous(request, prepared.sources)
    with _draft_folder(request.output) as draft:
        _run(prepared, request.recipe, on_point, should_stop)
        evaluations += tuple(
            evaluate(
                prepared.loaded.model,
                encoded,
                dataset=name,
                kind="after_training",
                pairs_per_minibatch=request.recipe.pairs_per_minibatch,
            )
            for name, encoded in prepared.held_out
        )
        save_reward_model(prepared.loaded, draft)
        write_provenance(draft, _provenance(prepared, request.recipe, evaluations))
        digest = model_digest(draft)
    return TrainedRewardModel(folder=request.output, digest=digest, evaluations=evaluations, notes=prepared.notes)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """Everything that is known before the first step."""

    base: CheckpointFiles
    sources: Sources
    loaded: LoadedRewardModel
    max_length: int
    training: EncodedComparisons
    held_out: tuple[tuple[str, EncodedComparisons], ...]
    steps: tuple[PlannedStep, ...]
    notes: tuple[str, ...]


def _prepare(request: TrainingRequest) -> _Prepared:
    """Read, load and encode everything first, so that what can fail fails before hours of training."""
    recipe = request.recipe
    base = inspect_checkpoint(request.checkpoint)
    sources = gather_sources(request.datasets, request.external, request.external_test, recipe)
    loaded = load_reward_model(request.checkpoint, seed=recipe.seed)
    encoder = Encoder(loaded.tokenizer, max_length=min(recipe.max_length, loaded.model.context_length))
    training = encode_comparisons(encoder, sources.train, recipe.margin_scheme)
    if not training.encoded:
        msg = f"No training comparison fits into {encoder.max_length} tokens."
        raise TrainingError(msg)
    held_out = tuple(
        (split.name, encode_comparisons(encoder, split.comparisons, recipe.margin_scheme)) for split in sources.held_out
    )
    conversations = [one.conversation_key for one in training.encoded]
    steps = plan_steps(conversations, [one.length for one in training.encoded], recipe)
    return _Prepared(
        base=base,
        sources=sources,
        loaded=loaded,
        max_length=encoder.max_length,
        training=training,
        held_out=held_out,
        steps=steps,
        notes=(
            *sources.notes,
            *_too_long_notes([("training", training), *held_out], encoder.max_length),
            *step_warnings(len(steps), len(training.encoded), recipe),
            *(() if held_out else ("There is no held-out split, so nothing is evaluated.",)),
        ),
    )


def _run(
    prepared: _Prepared, recipe: Recipe, on_point: Callable[[TrainingPoint], None], should_stop: Callable[[], bool]
) -> None:
    """Run the plan; the model's weights are the result."""
    model = prepared.loaded.model
    with tempfile.TemporaryDirectory(prefix="preferably-") as folder:
        trainer = RewardTrainer(
            model,
            StepDataset(prepared.steps, prepared.training.encoded, model.pad_token_id),
            recipe,
            folder=Path(folder),
            on_point=on_point,
            should_stop=should_stop,
        )
        trainer.train()
    if trainer.was_stopped:
        msg = "Training was stopped before it was finished; nothing was saved."
        raise TrainingStoppedError(msg)


def _evaluate_previous(request: TrainingRequest, sources: Sources) -> tuple[EvaluationReport, ...]:
    """Evaluate the last reward model on data that it has not seen, the newest dataset's: the measure of drift."""
    names = [dataset.name for dataset in sources.datasets[-1:]]
    newest = [split for split in sources.held_out if split.name in names]
    if request.previous is None or not newest:
        return ()
    previous = Scorer.load(request.previous)
    encoded = encode_comparisons(previous.encoder, newest[0].comparisons, request.recipe.margin_scheme)
    return (
        evaluate(
            previous.model,
            encoded,
            dataset=newest[0].name,
            kind="before_training",
            pairs_per_minibatch=request.recipe.pairs_per_minibatch,
        ),
    )


def _too_long_notes(encoded: Sequence[tuple[str, EncodedComparisons]], max_length: int) -> tuple[str, ...]:
    return tuple(
        f"{name}: {comparisons.too_long} comparisons left out, a response alone is longer than {max_length} tokens."
        for name, comparisons in encoded
        if comparisons.too_long
    )


def _provenance(prepared: _Prepared, recipe: Recipe, evaluations: tuple[EvaluationReport, ...]) -> Provenance:
    base = prepared.base
    return Provenance(
        recipe=recipe,
        base_checkpoint=BaseCheckpoint(
            name=base.name,
            digest=base.digest,
            tokenizer_digest=base.tokenizer_digest,
            template_digest=base.template_digest,
        ),
        datasets=prepared.sources.datasets,
        external=prepared.sources.external,
        max_length=prepared.max_length,
        training_comparisons=len(prepared.training.encoded),
        steps=len(prepared.steps),
        notes=prepared.notes,
        evaluations=evaluations,
        versions={"torch": str(torch.__version__), "transformers": transformers.__version__},
        made_at=datetime.now(UTC),
    )


def _refuse_occupied(output: Path) -> None:
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        msg = f"{output} exists and is not an empty folder. A reward model is never overwritten; choose another output."
        raise TrainingError(msg)


@contextmanager
def _draft_folder(output: Path) -> Iterator[Path]:
    """A folder beside `output` that becomes it in one rename when the block ends well, and vanishes otherwise."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as folder:
        # A folder within: the temporary one itself is readable by its owner only.
        draft = Path(folder) / output.name
        draft.mkdir()
        yield draft
        _refuse_occupied(output)
        draft.replace(output)
