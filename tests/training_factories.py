"""Makes rows for tests of training: frozen datasets that are only rows, and evaluation reports."""

from datetime import timedelta

from sqlalchemy.orm import Session

from app.batches import service as batches
from app.batches.service import BatchSettings
from app.models import BatchState, PreferenceDataset, now
from contract.dataset import Manifest, RowCounts, SplitRule
from contract.training import AccuracyCell, EvaluationReport
from contract.vocabulary import MarginScheme, Objective, SafetyBin, Split, Strength


def make_dataset(
    session: Session,
    *,
    rows: int = 200,
    objective: Objective = Objective.HELPFULNESS,
    parent: PreferenceDataset | None = None,
) -> PreferenceDataset:
    """A frozen dataset of a new batch, or a further version of one, without any files."""
    if parent is None:
        opens_at = now() - timedelta(days=7)
        batch = batches.create(session, BatchSettings(opens_at=opens_at, closes_at=now()))
        batch.state = BatchState.FROZEN
        batch_id, number, version = batch.id, batch.number, 1
    else:
        batch_id, version = parent.batch_id, parent.version + 1
        number = int(parent.manifest["batches"][0])
    name = f"batch-{number}" + (f"-v{version}" if version > 1 else "")
    manifest = Manifest(
        name=name,
        version=version,
        parent=parent.name if parent is not None else None,
        batches=(number,),
        frozen_at=now(),
        margin_scheme=MarginScheme.SMALL,
        split_rule=SplitRule(held_out_share=0.1, held_out_max=1000, seed=1),
        comparisons=rows + 20,
        rows=rows + 20,
        counts=(
            _counts(objective, Split.TRAIN, rows),
            _counts(objective, Split.TEST, 20),
        ),
        left_out={},
        checkpoints=(),
        guidelines=(),
    )
    dataset = PreferenceDataset(
        name=name,
        batch_id=batch_id,
        version=version,
        manifest_sha256=f"{number:x}{version:x}".rjust(64, "0"),
        manifest=manifest.model_dump(mode="json"),
        rows=rows + 20,
        frozen_at=now(),
        parent_id=parent.id if parent is not None else None,
    )
    session.add(dataset)
    session.flush()
    return dataset


def _counts(objective: Objective, split: Split, rows: int) -> RowCounts:
    return RowCounts(
        objective=objective,
        split=split,
        rows=rows,
        conversations=rows,
        by_strength={Strength.BETTER: rows},
        by_safety_bin={SafetyBin.BOTH_SAFE: rows} if objective is Objective.SAFETY else {},
    )


def cell(name: str, n: int, correct: int, ties: int = 0) -> AccuracyCell:
    """An accuracy with an interval that is wide enough for a test."""
    if not n:
        return AccuracyCell(name=name, n=0, correct=0, ties=0, accuracy=None, low=None, high=None)
    share = correct / n
    return AccuracyCell(
        name=name, n=n, correct=correct, ties=ties, accuracy=share, low=max(0, share - 0.1), high=min(1, share + 0.1)
    )


def evaluation_report(
    dataset: str, *, correct: int = 70, longer: int = 55, safety: bool = False, kind: str = "after_training"
) -> EvaluationReport:
    """A report on 100 held-out comparisons."""
    return EvaluationReport.model_validate(
        {
            "dataset": dataset,
            "split": Split.TEST,
            "kind": kind,
            "overall": cell("all", 100, correct, ties=1),
            "by_strength": tuple(cell(strength, 25, correct // 4) for strength in Strength),
            "by_safety_bin": tuple(cell(name, 0, 0) for name in SafetyBin) if safety else (),
            "longer_wins": cell("longer_wins", 100, longer),
            "a_wins": cell("a_wins", 100, 50),
            "mean_reward_gap": 0.25,
        }
    )
