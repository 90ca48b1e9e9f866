"""Examples for the documentation of the API for trainers."""

from typing import Any

SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

DATASET_ENTRY: dict[str, Any] = {
    "name": "batch-001",
    "version": 1,
    "batch": 1,
    "rows": 1240,
    "frozen_at": "2026-11-30T08:00:00Z",
    "manifest_sha256": SHA256,
}
MANIFEST: dict[str, Any] = {
    "format_version": 3,
    "name": "batch-001-v2",
    "version": 2,
    "parent": "batch-001",
    "batches": [1],
    "frozen_at": "2026-11-30T08:00:00Z",
    "margin_scheme": "small",
    "split_rule": {
        "unit": "conversation",
        "equal_prompts": "same side, across all batches",
        "held_out_share": 0.1,
        "held_out_max": 1000,
        "seed": 1,
    },
    "comparisons": 1300,
    "rows": 1240,
    "counts": [
        {
            "objective": "helpfulness",
            "split": "train",
            "rows": 1240,
            "conversations": 410,
            "by_strength": {
                "significantly_better": 200,
                "better": 400,
                "slightly_better": 400,
                "negligibly_better_or_unsure": 240,
            },
            "by_safety_bin": {},
        }
    ],
    "left_out": {"skipped": 60},
    "checkpoints": [
        {
            "name": "chat-1",
            "digest": SHA256,
            "tokenizer_digest": SHA256,
            "template_digest": SHA256,
            "responses": 2480,
        }
    ],
    "guidelines": [{"objective": "helpfulness", "version": 1, "sha256": SHA256, "annotations": 1240}],
    "files": [
        {
            "path": "helpfulness/train-00000-of-00001.parquet",
            "objective": "helpfulness",
            "split": "train",
            "rows": 1240,
            "bytes": 731022,
            "sha256": SHA256,
        }
    ],
}
EXTERNAL_ENTRY: dict[str, Any] = {
    "name": "hh-harmless",
    "rows": 1194,
    "objective": "safety",
    "licence": "MIT",
    "source_format": "jsonl",
    "source_sha256": SHA256,
    "created_at": "2026-11-30T08:00:00Z",
    "manifest_sha256": SHA256,
}
EXTERNAL_MANIFEST: dict[str, Any] = {
    "kind": "external",
    "format_version": 1,
    "name": "hh-harmless",
    "source_file": "harmless-base.jsonl.gz",
    "source_sha256": SHA256,
    "source_format": "jsonl",
    "forms": {"hh": 1194},
    "objective": "safety",
    "licence": "MIT",
    "source": "https://github.com/anthropics/hh-rlhf",
    "rows": 1194,
    "duplicates": 0,
    "left_out": {"empty message": 4},
    "imported_at": "2026-11-30T08:00:00Z",
    "files": [{"path": "data-00000-of-00001.parquet", "rows": 1194, "bytes": 420311, "sha256": SHA256}],
}
SET_DEFINITION: dict[str, Any] = {
    "format_version": 1,
    "members": [
        {"kind": "frozen", "name": "batch-001", "manifest_sha256": SHA256},
        {"kind": "external", "name": "hh-harmless", "manifest_sha256": SHA256},
    ],
    "margin_scheme": "small",
    "keep": {
        "objectives": [],
        "strengths": ["better", "significantly_better"],
        "safety_bins": [],
        "keeps_unrated": True,
    },
}
SET_DESCRIPTION: dict[str, Any] = {
    "name": "two-strongest",
    "digest": SHA256,
    "definition": SET_DEFINITION,
    "counts": [
        {
            "member": "batch-001",
            "train": 600,
            "test": 0,
            "filtered": 640,
            "held_out_elsewhere": 0,
            "by_strength": {"significantly_better": 200, "better": 400},
        },
        {
            "member": "hh-harmless",
            "train": 1192,
            "test": 0,
            "filtered": 0,
            "held_out_elsewhere": 2,
            "by_strength": {},
        },
    ],
    "created_at": "2026-11-30T09:00:00Z",
}
SET_WANTED: dict[str, Any] = {
    "name": "two-strongest",
    "frozen": ["batch-001"],
    "external": ["hh-harmless"],
    "margin_scheme": "small",
    "keep": {"strengths": ["significantly_better", "better"]},
}
