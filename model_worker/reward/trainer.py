"""The training loop: a thin subclass of transformers' Trainer.

What is theirs: the loop, device placement, gradient clipping, AdamW, checkpoints and resuming. What is ours: the
plan, the minibatches, the loss and the schedule. One item of the training data is one whole optimiser step with
all of its minibatches, so that the trainer's step counter is the plan's index (resuming needs nothing else), and
so that steps may have minibatches of any number and size: a step's loss is the sum over its pairs divided by
their number, which makes accumulation exactly equal to one big minibatch.
"""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from contract.recipe import Recipe
from contract.training import TrainingPoint
from model_worker.errors import TrainingError
from model_worker.reward.batching import EncodedComparison, Minibatch, make_minibatch
from model_worker.reward.loss import pair_loss
from model_worker.reward.model import RewardModel
from model_worker.reward.plan import PlannedStep
from model_worker.reward.schedule import learning_rate_factor


class StepItem(TypedDict):
    """One optimiser step's tensors."""

    pairs: int
    minibatches: list[Minibatch]


class StepDataset(Dataset[StepItem]):
    """The planned steps as tensors, made when they are asked for."""

    def __init__(
        self, steps: Sequence[PlannedStep], comparisons: Sequence[EncodedComparison], pad_token_id: int
    ) -> None:
        self._steps = steps
        self._comparisons = comparisons
        self._pad_token_id = pad_token_id

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, index: int) -> StepItem:
        step = self._steps[index]
        minibatches = [
            make_minibatch([self._comparisons[place] for place in minibatch], self._pad_token_id)
            for minibatch in step.minibatches
        ]
        return StepItem(pairs=step.pairs, minibatches=minibatches)


class RewardTrainer(Trainer):
    """Runs the plan of one recipe over a reward model."""

    def __init__(
        self,
        model: RewardModel,
        steps: StepDataset,
        recipe: Recipe,
        *,
        folder: Path,
        on_point: Callable[[TrainingPoint], None],
        should_stop: Callable[[], bool],
    ) -> None:
        super().__init__(model=model, args=_arguments(recipe, folder), train_dataset=steps)
        self.remove_callback(PrinterCallback)  # It prints a summary that belongs on no terminal of ours.
        self.add_callback(_StepEnd(self, on_point, should_stop))
        self.was_stopped = False
        self.figures = _Figures()
        self._recipe = recipe
        self._steps = steps

    def get_train_dataloader(self) -> Any:
        """The steps in the plan's order, one at a time."""
        return self.accelerator.prepare(DataLoader(self._steps, batch_size=1, collate_fn=_only_item))

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> LambdaLR:
        """Warm-up and cosine as the recipe has them."""
        scheduler = LambdaLR(
            optimizer or cast("Optimizer", self.optimizer),
            lambda step: learning_rate_factor(step, num_training_steps, self._recipe),
        )
        self.lr_scheduler = scheduler
        return scheduler

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: Tensor | int | None = None,  # noqa: ARG002 the base class passes it.
    ) -> Tensor:
        """Accumulate the gradients of one optimiser step (a `StepItem`) and return its loss, a scalar."""
        model.train()
        total = torch.zeros((), device=self.args.device)
        gaps: list[Tensor] = []
        for minibatch in inputs["minibatches"]:
            # (2 B,) -> (2, B): the chosen responses first.
            rewards = model(minibatch.input_ids, minibatch.ends).view(2, -1)
            losses = pair_loss(
                rewards, minibatch.margins, minibatch.safe, safety_weight=self._recipe.safety_loss_weight
            )
            loss = losses.sum() / inputs["pairs"]
            self.accelerator.backward(loss)
            total += loss.detach()
            gaps.append((rewards[0] - rewards[1]).detach())
        self.figures.keep(total, torch.cat(gaps), self._get_learning_rate())
        return total


class _Figures:
    """The last step's figures, as `TrainingPoint` wants them."""

    def __init__(self) -> None:
        self.loss = self.accuracy = self.reward_gap = self.learning_rate = 0.0
        self.pairs = 0
        self._started = time.monotonic()

    def keep(self, loss: Tensor, gaps: Tensor, learning_rate: float) -> None:
        self.loss = loss.item()
        self.accuracy = (gaps > 0).float().mean().item()
        self.reward_gap = gaps.mean().item()
        self.learning_rate = learning_rate
        self.pairs += len(gaps)

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._started


class _StepEnd(TrainerCallback):
    """Reports every optimiser step, and looks whether the run is to stop."""

    def __init__(
        self, trainer: RewardTrainer, on_point: Callable[[TrainingPoint], None], should_stop: Callable[[], bool]
    ) -> None:
        self._trainer = trainer
        self._on_point = on_point
        self._should_stop = should_stop

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        if not math.isfinite(self._trainer.figures.loss):
            msg = (
                f"The loss is {self._trainer.figures.loss} in step {state.global_step + 1} of {state.max_steps}. "
                "Try a lower learning rate."
            )
            raise TrainingError(msg)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        figures = self._trainer.figures
        self._on_point(
            TrainingPoint(
                step=state.global_step,
                total_steps=state.max_steps,
                loss=figures.loss,
                accuracy=figures.accuracy,
                reward_gap=figures.reward_gap,
                learning_rate=figures.learning_rate,
                pairs=figures.pairs,
                elapsed_s=figures.elapsed_s,
            )
        )
        if self._should_stop():
            self._trainer.was_stopped = True
            control.should_training_stop = True


def _only_item(items: list[StepItem]) -> StepItem:
    return items[0]


def _arguments(recipe: Recipe, folder: Path) -> TrainingArguments:
    arguments = TrainingArguments(
        output_dir=str(folder),
        # One item is one optimiser step, and all epochs are in the plan.
        per_device_train_batch_size=1,
        gradient_accumulation_steps=1,
        num_train_epochs=1,
        optim="adamw_torch",
        learning_rate=recipe.learning_rate,
        adam_beta1=recipe.adam_beta1,
        adam_beta2=recipe.adam_beta2,
        adam_epsilon=recipe.adam_epsilon,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        seed=recipe.seed,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        # A loss that is not finite ends the run; the filter would hide it.
        logging_nan_inf_filter=False,
    )
    # Several GPUs in one process would be driven by nn.DataParallel, which cannot split a step's minibatches.
    arguments._n_gpu = min(arguments.n_gpu, 1)  # noqa: SLF001 there is no public way to say it.
    return arguments
