"""What the trainer computes is what TRL's RewardTrainer computes on the same pairs with a margin column."""

from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from trl.trainer.reward_config import RewardConfig
from trl.trainer.reward_trainer import RewardTrainer

from contract.vocabulary import MarginScheme
from model_worker.reward.batching import make_minibatch
from model_worker.reward.encoding import Encoder, encode_comparisons
from model_worker.reward.loss import ranking_loss
from model_worker.reward.model import LoadedRewardModel, save_reward_model
from tests.model_worker.reward.builders import simulated_comparisons


# TRL's own warnings are not ours to mend.
@pytest.mark.filterwarnings("ignore")
def test_our_loss_is_trls_with_a_margin_column(loaded: LoadedRewardModel, tmp_path: Path) -> None:
    comparisons = simulated_comparisons(4, seed=5)
    encoded = encode_comparisons(Encoder(loaded.tokenizer, max_length=512), comparisons, MarginScheme.SMALL).encoded
    minibatch = make_minibatch(encoded, loaded.model.pad_token_id)
    rewards = loaded.model(minibatch.input_ids, minibatch.ends).view(2, -1)
    ours = ranking_loss(rewards[0], rewards[1], minibatch.margins).mean()
    save_reward_model(loaded, tmp_path / "model")
    trainer = RewardTrainer(
        model=AutoModelForSequenceClassification.from_pretrained(tmp_path / "model"),
        processing_class=AutoTokenizer.from_pretrained(tmp_path / "model"),
        args=RewardConfig(
            output_dir=str(tmp_path / "trl"),
            per_device_train_batch_size=len(comparisons),
            bf16=False,
            gradient_checkpointing=False,
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        ),
        train_dataset=Dataset.from_list(
            [
                {
                    "prompt": [message.model_dump(mode="json") for message in comparison.prompt],
                    "chosen": [{"role": "assistant", "content": comparison.chosen}],
                    "rejected": [{"role": "assistant", "content": comparison.rejected}],
                    "margin": one.margin,
                }
                for comparison, one in zip(comparisons, encoded, strict=True)
            ]
        ),
    )
    with torch.no_grad():
        theirs = trainer.compute_loss(trainer.model, next(iter(trainer.get_train_dataloader())))
    assert theirs.item() == pytest.approx(ours.item(), abs=1e-6)
