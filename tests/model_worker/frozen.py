"""A dataset as the app serves it: a manifest and its files."""

import hashlib
from datetime import UTC, datetime

from contract.dataset import DatasetFile, Manifest, SplitRule
from contract.training import DatasetRef
from contract.vocabulary import MarginScheme, Objective, Split


def serve_dataset(
    files: dict[str, bytes], name: str = "week-1", contents: dict[str, bytes] | None = None
) -> DatasetRef:
    """Put a dataset among ``files``, the answers of the app by path; returns its reference."""
    contents = contents or {
        "helpfulness/train-00000-of-00001.parquet": b"train" * 1000,
        "helpfulness/test-00000-of-00001.parquet": b"test" * 1000,
    }
    manifest = Manifest(
        name=name,
        version=1,
        parent=None,
        batches=(1,),
        frozen_at=datetime(2026, 1, 5, tzinfo=UTC),
        margin_scheme=MarginScheme.SMALL,
        split_rule=SplitRule(held_out_share=0.1, held_out_max=1000, seed=1),
        comparisons=2,
        rows=2,
        counts=(),
        left_out={},
        checkpoints=(),
        guidelines=(),
        files=tuple(
            DatasetFile(
                path=path,
                objective=Objective.HELPFULNESS,
                split=Split.TRAIN,
                rows=1,
                bytes=len(content),
                sha256=hashlib.sha256(content).hexdigest(),
            )
            for path, content in contents.items()
        ),
    )
    content = manifest.model_dump_json(indent=2).encode()
    files[f"/api/v1/datasets/{name}"] = content
    for path, file_content in contents.items():
        files[f"/api/v1/datasets/{name}/files/{path}"] = file_content
    return DatasetRef(name=name, manifest_sha256=hashlib.sha256(content).hexdigest())
