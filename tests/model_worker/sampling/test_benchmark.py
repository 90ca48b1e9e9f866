"""The sampling benchmark runs, on the least that it runs with: its figures mean nothing then."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_every_way_draws_the_same_pairs() -> None:
    """Each way checks that it draws as many tokens as it should, and ends with an error if not."""
    ways = ("naive", "batched", "per_row", "continuous", "slots")
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.sampling", "--tiny", "--pairs", "4", "--rate", "50", "--ways", *ways],
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    last = json.loads(result.stdout.splitlines()[-1])
    assert last["greedy_equal"] is True
    assert min(last["ratio_to_naive"], last["ratio_to_continuous_batching"]) > 0
    assert [(run["way"], run["rate"]) for run in last["runs"]] == [
        (way, rate) for rate in ("all at once", 50.0) for way in ways
    ]
    assert len({run["new_tokens"] for run in last["runs"]}) == 1
