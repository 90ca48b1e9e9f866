"""How fast the reward-model trainer computes, against TRL's RewardTrainer, in one run on one machine.

    python -m benchmarks.training

Both compute the loss and all gradients of the same pairs with the same model, in minibatches of 8 pairs: TRL with
its own collator and loss in random order, ours as the trainer does it. The pairs are shaped like Llama 2's
dialogues (Table 6: 3.9 turns, 31 tokens a prompt, 234 a response), shortened by ``--scale`` for a processor. Prints
one line of JSON; only its ratios mean anything, since both sides shared the machine.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from datasets import Dataset
from torch import Tensor
from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerBase
from trl.trainer.reward_config import RewardConfig
from trl.trainer.reward_trainer import RewardTrainer

from contract.recipe import Recipe
from contract.vocabulary import Objective
from model_worker.demo.tiny import make_tiny_checkpoint
from model_worker.reward.batching import NO_LABEL, EncodedComparison, make_minibatch
from model_worker.reward.loss import pair_loss
from model_worker.reward.model import RewardModel, load_reward_model
from model_worker.reward.plan import plan_steps

PAIRS_PER_MINIBATCH = 8
VOCABULARY = 4000
PAD = 2
TURNS, TURNS_SPREAD, PROMPT, RESPONSE, SPREAD = 3.9, 2.1, 31, 234, 0.6


def dialogues(count: int, *, turns: float, scale: float, seed: int) -> list[EncodedComparison]:
    """Random token ids in the shape of dialogues in which the chosen response goes on and every turn is compared."""
    generator = torch.Generator().manual_seed(seed)

    def draw(mean: float) -> tuple[int, ...]:
        length = max(2, round(mean * scale * (1 + SPREAD * float(torch.randn((), generator=generator)))))
        return tuple(torch.randint(3, VOCABULARY, (length,), generator=generator).tolist())

    comparisons = []
    for number in range(count):
        context: tuple[int, ...] = (0,)
        spread = TURNS_SPREAD * float(torch.randn((), generator=generator)) if turns > 1 else 0.0
        for _ in range(max(1, round(turns + spread))):
            context += draw(PROMPT)
            chosen, rejected = context + draw(RESPONSE), context + draw(RESPONSE)
            comparisons.append(EncodedComparison(chosen, rejected, 1 / 3, NO_LABEL, NO_LABEL, str(number)))
            context = chosen
    return comparisons


def make_model(hidden: int, layers: int) -> LlamaForSequenceClassification:
    """A small Llama with a scalar head."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=hidden * 3,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        max_position_embeddings=8192,
        pad_token_id=PAD,
        num_labels=1,
    )
    return LlamaForSequenceClassification(config)


def our_pass(model: RewardModel, comparisons: Sequence[EncodedComparison]) -> None:
    """Gradients of one optimiser step over all pairs, laid out as the trainer lays it out."""
    recipe = Recipe(
        objective=Objective.HELPFULNESS, pairs_per_step=len(comparisons), pairs_per_minibatch=PAIRS_PER_MINIBATCH
    )
    keys = [one.conversation_key for one in comparisons]
    (step,) = plan_steps(keys, [one.length for one in comparisons], recipe)
    for members in step.minibatches:
        minibatch = make_minibatch([comparisons[index] for index in members], model.pad_token_id)
        rewards = model(minibatch.input_ids, minibatch.ends).view(2, -1)
        losses = pair_loss(rewards, minibatch.margins, minibatch.safe, safety_weight=0.0)
        (losses.sum() / step.pairs).backward()


def trl_pass(trainer: RewardTrainer, comparisons: Sequence[EncodedComparison]) -> None:
    """The same with TRL's collator and loss, in random order; each minibatch weighs what it holds."""
    order = torch.randperm(len(comparisons), generator=torch.Generator().manual_seed(1)).tolist()
    for start in range(0, len(order), PAIRS_PER_MINIBATCH):
        members = [comparisons[index] for index in order[start : start + PAIRS_PER_MINIBATCH]]
        rows = [{"chosen_ids": one.chosen, "rejected_ids": one.rejected, "margin": one.margin} for one in members]
        loss = trainer.compute_loss(trainer.model, trainer.data_collator([dict(row) for row in rows]))
        (loss * len(members) / len(comparisons)).backward()


def make_trl_trainer(
    model: LlamaForSequenceClassification,
    tokenizer: PreTrainedTokenizerBase,
    comparisons: Sequence[EncodedComparison],
    folder: Path,
) -> RewardTrainer:
    """TRL's trainer on token ids; nothing is left out for its length."""
    arguments = RewardConfig(
        output_dir=str(folder / "trl"),
        max_length=None,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )
    rows = [{"chosen_ids": list(one.chosen), "rejected_ids": list(one.rejected)} for one in comparisons]
    return RewardTrainer(model=model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)


def cpu_seconds(compute: Callable[[], None], model: torch.nn.Module, repeats: int) -> tuple[float, dict[str, Tensor]]:
    """The median processor time of a pass, and its gradients by parameter."""
    seconds = []
    for _ in range(repeats):
        model.zero_grad()
        started = time.process_time()
        compute()
        seconds.append(time.process_time() - started)
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    return statistics.median(seconds), gradients


def measure(name: str, turns: float, options: argparse.Namespace, folder: Path) -> dict[str, float | int | str]:
    """One shape of data."""
    comparisons = dialogues(options.dialogues, turns=turns, scale=options.scale, seed=0)
    tokenizer = load_reward_model(make_tiny_checkpoint(folder / "tiny"), seed=0).tokenizer
    classifier = make_model(options.hidden, options.layers)
    trainer = make_trl_trainer(classifier, tokenizer, comparisons, folder)
    theirs, their_gradients = cpu_seconds(lambda: trl_pass(trainer, comparisons), classifier, options.repeats)
    model = RewardModel(classifier)
    ours, our_gradients = cpu_seconds(lambda: our_pass(model, comparisons), model, options.repeats)
    error = max(
        float((our_gradients[f"classifier.{key}"] - value).norm() / value.norm())
        for key, value in their_gradients.items()
    )
    return {
        "shape": name,
        "pairs": len(comparisons),
        "times_trl": round(theirs / ours, 2),
        "largest_relative_gradient_difference": error,
        "trl_cpu_s": round(theirs, 2),
        "our_cpu_s": round(ours, 2),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer dialogues and repeats, under 50 seconds")
    parser.add_argument("--dialogues", type=int, default=16)
    parser.add_argument("--scale", type=float, default=0.25, help="1 is Llama 2's lengths")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if options.quick:
        options.dialogues, options.repeats = 8, 1
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        shapes = [
            measure("llama2_dialogues", TURNS, options, Path(folder)),
            measure("one_turn", 1.0, options, Path(folder)),
        ]
    print(json.dumps({"benchmark": "training", "torch": str(torch.__version__), "shapes": shapes}))


if __name__ == "__main__":
    main()
