"""Training: accumulation equals a bigger minibatch, TRL agrees, and it learns."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from contract.checkpoint_files import inspect_checkpoint
from contract.digests import sha256_of
from contract.recipe import Recipe
from contract.training import TrainingPoint
from contract.vocabulary import MarginScheme, Objective, Strength
from model_worker.errors import TrainingError, TrainingStoppedError
from model_worker.reward.batching import make_minibatch
from model_worker.reward.data import Comparison
from model_worker.reward.encoding import Encoder, encode_comparisons
from model_worker.reward.loss import pair_loss
from model_worker.reward.model import load_reward_model
from model_worker.reward.plan import plan_steps
from model_worker.reward.provenance import read_provenance
from model_worker.reward.schedule import learning_rate_factor
from model_worker.reward.score import Scorer, score
from model_worker.reward.train import TrainedRewardModel, TrainingRequest, train_reward_model
from model_worker.reward.trainer import RewardTrainer, StepDataset
from tests.model_worker.reward.builders import make_comparison, simulated_comparisons, write_dataset

HERE = Path(__file__).parent
QUICK: dict[str, Any] = {"objective": Objective.HELPFULNESS, "learning_rate": 1e-3, "warmup_min_steps": 2}


def run(request: TrainingRequest) -> tuple[TrainedRewardModel, list[TrainingPoint]]:
    points: list[TrainingPoint] = []
    trained = train_reward_model(request, on_point=points.append, should_stop=lambda: False)
    return trained, points


def trained_weights(
    checkpoint: Path, comparisons: Sequence[Comparison], recipe: Recipe, folder: Path
) -> tuple[dict[str, Tensor], list[TrainingPoint]]:
    """The weights after the trainer ran the recipe's plan, without saving and evaluating."""
    loaded = load_reward_model(checkpoint, seed=recipe.seed)
    encoder = Encoder(loaded.tokenizer, max_length=512)
    encoded = encode_comparisons(encoder, comparisons, recipe.margin_scheme).encoded
    steps = plan_steps([one.conversation_key for one in encoded], [one.length for one in encoded], recipe)
    points: list[TrainingPoint] = []
    data = StepDataset(steps, encoded, loaded.model.pad_token_id)
    trainer = RewardTrainer(
        loaded.model, data, recipe, folder=folder, on_point=points.append, should_stop=lambda: False
    )
    trainer.train()
    return loaded.model.state_dict(), points


def test_accumulation_equals_a_bigger_minibatch(checkpoint: Path, tmp_path: Path) -> None:
    comparisons = [
        make_comparison(i, chosen="tea " * (1 + i % 5), chosen_safe=True, rejected_safe=i % 2 == 0) for i in range(14)
    ]
    weights, points = [], []
    for pairs_per_minibatch in (1, 3, 8):
        recipe = Recipe(
            **QUICK, pairs_per_step=8, pairs_per_minibatch=pairs_per_minibatch, safety_loss_weight=0.5, epochs=2
        )
        state, seen = trained_weights(checkpoint, comparisons, recipe, tmp_path)
        weights.append(state)
        points.append(seen)
    assert [point.pairs for point in points[0]] == [8, 14, 22, 28]
    for state, seen in zip(weights[1:], points[1:], strict=True):
        # Adam turns rounding into steps where a gradient is almost zero, so the tolerance is the learning rate's.
        for name, weight in state.items():
            torch.testing.assert_close(weight, weights[0][name], rtol=0, atol=2e-5, msg=name)
        assert [point.loss for point in seen] == pytest.approx([point.loss for point in points[0]], abs=1e-5)


def test_one_step_is_adamw_on_the_gradient_by_hand(checkpoint: Path, tmp_path: Path) -> None:
    recipe = Recipe(**QUICK, pairs_per_step=6, pairs_per_minibatch=2, max_grad_norm=0.5)
    comparisons = [make_comparison(i, strength=list(Strength)[i % 4], chosen="warm " * (i + 1)) for i in range(6)]
    state, (point,) = trained_weights(checkpoint, comparisons, recipe, tmp_path)
    loaded = load_reward_model(checkpoint, seed=recipe.seed)
    encoder = Encoder(loaded.tokenizer, max_length=512)
    minibatch = make_minibatch(encode_comparisons(encoder, comparisons, recipe.margin_scheme).encoded, 2)
    rewards = loaded.model(minibatch.input_ids, minibatch.ends).view(2, -1)
    loss = pair_loss(rewards, minibatch.margins, minibatch.safe, safety_weight=0.0).mean()
    loss.backward()
    parameters = list(loaded.model.named_parameters())
    torch.nn.utils.clip_grad_norm_([weight for _, weight in parameters], 0.5)
    rate = 1e-3 * learning_rate_factor(0, 1, recipe)
    groups = [
        {"params": [weight for _, weight in parameters if weight.dim() > 1], "weight_decay": 0.1},
        {"params": [weight for _, weight in parameters if weight.dim() == 1], "weight_decay": 0.0},
    ]
    torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), eps=1e-5).step()
    for name, weight in parameters:
        torch.testing.assert_close(state[name], weight.detach(), rtol=0, atol=1e-6, msg=name)
    assert point.loss == pytest.approx(loss.item(), abs=1e-6)
    gaps = rewards[0] - rewards[1]
    assert point.accuracy == pytest.approx((gaps > 0).float().mean().item())
    assert point.reward_gap == pytest.approx(gaps.mean().item(), abs=1e-6)
    assert point.learning_rate == pytest.approx(rate)


def test_the_same_recipe_gives_the_same_weights(checkpoint: Path, tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "week", train=simulated_comparisons(8, seed=1), test=[make_comparison()])
    requests = [
        TrainingRequest(
            checkpoint=checkpoint, recipe=Recipe(**QUICK, pairs_per_step=8), output=tmp_path / name, datasets=(dataset,)
        )
        for name in ("one", "two")
    ]
    (one, points), (two, _) = run(requests[0]), run(requests[1])
    assert one.digest == two.digest
    assert one.evaluations == two.evaluations
    assert [point.step for point in points] == [1, 2]
    assert {point.total_steps for point in points} == {2}


def test_a_run_leaves_a_whole_folder_that_says_where_it_comes_from(checkpoint: Path, tmp_path: Path) -> None:
    week = write_dataset(
        tmp_path / "week", train=simulated_comparisons(9, seed=1), test=simulated_comparisons(3, seed=2)
    )
    extract = HERE / "hh_extract.jsonl"
    recipe = Recipe(**QUICK, pairs_per_step=16, margin_scheme=MarginScheme.LARGE)
    request = TrainingRequest(
        checkpoint=checkpoint, recipe=recipe, output=tmp_path / "out", datasets=(week,), external=(extract,)
    )
    trained, points = run(request)
    assert points[-1].pairs == 18 + 35
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    provenance = read_provenance(trained.folder)
    assert provenance is not None
    assert provenance.recipe == recipe
    assert provenance.base_checkpoint.digest == inspect_checkpoint(checkpoint).digest
    assert provenance.datasets[0].name == "week-1"
    assert provenance.datasets[0].manifest_sha256 == sha256_of(week / "manifest.json")
    assert provenance.external[0].sha256 == sha256_of(extract)
    assert provenance.max_length == 512
    assert provenance.training_comparisons == 53
    assert provenance.evaluations == trained.evaluations
    (evaluation,) = trained.evaluations
    assert (evaluation.dataset, evaluation.kind, evaluation.overall.n) == ("week-1", "after_training", 6)
    assert any("only 4 optimiser step(s)" in note for note in trained.notes)


def test_external_data_alone_trains_and_is_evaluated(checkpoint: Path, tmp_path: Path) -> None:
    lines = (HERE / "hh_extract.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "train.jsonl").write_text("".join(lines[:25]), encoding="utf-8")
    (tmp_path / "test.jsonl").write_text("".join(lines[25:]), encoding="utf-8")
    trained, points = run(
        TrainingRequest(
            checkpoint=checkpoint,
            recipe=Recipe(**(QUICK | {"objective": Objective.SAFETY}), pairs_per_step=8),
            output=tmp_path / "out",
            external=(tmp_path / "train.jsonl",),
            external_test=(tmp_path / "test.jsonl",),
        )
    )
    assert len(points) >= 3
    assert all(math.isfinite(point.loss) for point in points)
    (evaluation,) = trained.evaluations
    assert (evaluation.dataset, evaluation.overall.n, evaluation.a_wins.n) == ("test", 10, 0)
    assert all(cell.n == 0 for cell in evaluation.by_strength)


def test_scores_equal_the_evaluations_rewards(checkpoint: Path, tmp_path: Path) -> None:
    held_out = simulated_comparisons(4, seed=2)
    week = write_dataset(tmp_path / "week", train=simulated_comparisons(8, seed=1), test=held_out)
    recipe = Recipe(**QUICK, pairs_per_step=8, max_length=40)
    trained, _ = run(TrainingRequest(checkpoint=checkpoint, recipe=recipe, output=tmp_path / "out", datasets=(week,)))
    scorer = Scorer.load(trained.folder)
    assert scorer.encoder.max_length == 40
    chosen = scorer.score([(comparison.prompt, comparison.chosen) for comparison in held_out])
    rejected = scorer.score([(comparison.prompt, comparison.rejected) for comparison in held_out])
    gaps = [one.reward - other.reward for one, other in zip(chosen, rejected, strict=True)]
    (evaluation,) = trained.evaluations
    assert evaluation.mean_reward_gap == pytest.approx(sum(gaps) / len(gaps), abs=1e-6)
    assert evaluation.overall.correct == sum(gap > 0 for gap in gaps)
    alone = score(trained.folder, held_out[0].prompt, held_out[0].chosen)
    assert alone.reward == pytest.approx(chosen[0].reward, abs=1e-6)
    assert alone.sigmoid == pytest.approx(1 / (1 + math.exp(-alone.reward)))


def test_the_previous_reward_model_is_evaluated_on_the_newest_dataset_first(checkpoint: Path, tmp_path: Path) -> None:
    weeks = [
        write_dataset(
            tmp_path / name,
            train=simulated_comparisons(5, seed=seed),
            test=simulated_comparisons(2, seed=seed + 1),
            name=name,
        )
        for name, seed in (("week-1", 1), ("week-2", 3))
    ]
    recipe = Recipe(**QUICK, pairs_per_step=8)
    first, _ = run(
        TrainingRequest(checkpoint=checkpoint, recipe=recipe, output=tmp_path / "rm-1", datasets=(weeks[0],))
    )
    second, _ = run(
        TrainingRequest(
            checkpoint=checkpoint,
            recipe=recipe,
            output=tmp_path / "rm-2",
            datasets=tuple(weeks),
            previous=first.folder,
        )
    )
    assert [(one.kind, one.dataset) for one in second.evaluations] == [
        ("before_training", "week-2"),
        ("after_training", "week-1"),
        ("after_training", "week-2"),
    ]


def test_an_occupied_output_is_refused_before_any_work(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    request = TrainingRequest(checkpoint=checkpoint, recipe=Recipe(**QUICK), output=tmp_path / "out")
    with pytest.raises(TrainingError, match="is not an empty folder"):
        run(request)
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


def test_a_stopped_run_leaves_nothing(checkpoint: Path, tmp_path: Path) -> None:
    week = write_dataset(tmp_path / "week", train=simulated_comparisons(8, seed=1))
    points: list[TrainingPoint] = []
    request = TrainingRequest(
        checkpoint=checkpoint, recipe=Recipe(**QUICK, pairs_per_step=4), output=tmp_path / "out", datasets=(week,)
    )
    with pytest.raises(TrainingStoppedError):
        train_reward_model(request, on_point=points.append, should_stop=lambda: len(points) == 2)
    assert len(points) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["week"]


def test_a_loss_that_is_not_finite_ends_the_run(checkpoint: Path, tmp_path: Path) -> None:
    week = write_dataset(tmp_path / "week", train=simulated_comparisons(8, seed=1))
    recipe = Recipe(**(QUICK | {"learning_rate": 1e30, "warmup_min_steps": 0}), pairs_per_step=4)
    request = TrainingRequest(checkpoint=checkpoint, recipe=recipe, output=tmp_path / "out", datasets=(week,))
    with pytest.raises(TrainingError, match=r"The loss is (nan|inf) in step \d of 4"):
        run(request)
    assert not (tmp_path / "out").exists()


def test_it_learns_a_simulated_preference(checkpoint: Path, tmp_path: Path) -> None:
    """600 training pairs with 10 % of mistakes; clean held-out pairs are told apart almost always."""
    week = write_dataset(
        tmp_path / "week",
        train=simulated_comparisons(300, seed=1),
        test=simulated_comparisons(75, seed=2, noise=0.0),
    )
    recipe = Recipe(**QUICK, pairs_per_step=16, pairs_per_minibatch=16, epochs=3)
    trained, points = run(
        TrainingRequest(checkpoint=checkpoint, recipe=recipe, output=tmp_path / "out", datasets=(week,))
    )
    (evaluation,) = trained.evaluations
    print(evaluation.overall, evaluation.longer_wins.accuracy, points[0].loss, points[-1].loss)  # noqa: T201
    assert evaluation.overall.low is not None
    assert evaluation.overall.low > 0.8
    assert evaluation.mean_reward_gap is not None
    assert evaluation.mean_reward_gap > 1
