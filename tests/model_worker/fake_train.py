"""Stands in for ``preferably-worker train``: the same options and files, no torch. The run's name says what to do."""

import argparse
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path


def point(step: int) -> str:
    numbers = {"loss": 0.7, "accuracy": 0.5, "reward_gap": 0.0, "learning_rate": 1e-5, "pairs": step, "elapsed_s": 0.1}
    return json.dumps({"step": step, "total_steps": 3} | numbers)


def end_with_stdin() -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os._exit(143)


parser = argparse.ArgumentParser()
for option in ("checkpoint", "recipe", "output", "progress", "result"):
    parser.add_argument(f"--{option}", type=Path, required=True)
parser.add_argument("--dataset", type=Path, action="append", required=True)
parser.add_argument("--previous", type=Path)
parser.add_argument("--watch-stdin", action="store_true", required=True)
options = parser.parse_args()

threading.Thread(target=end_with_stdin, daemon=True).start()
assert json.loads(options.recipe.read_text())["objective"] == "helpfulness"
assert (options.checkpoint / "config.json").is_file()
assert all((dataset / "manifest.json").is_file() for dataset in options.dataset)
if options.previous:
    sys.stderr.write(f"previous {options.previous.name}\n")
sys.stderr.write("reading data\n")
sys.stderr.flush()
with options.progress.open("w") as progress:
    progress.write(point(1) + "\n" + point(2) + "\nnot a point\n" + point(3)[:20])
    progress.flush()
    if "slow" in options.output.name:
        (options.progress.parent / "pid").write_text(str(os.getpid()))
        time.sleep(60)
    progress.write(point(3)[20:] + "\n")
if "killed" in options.output.name:
    os.kill(os.getpid(), signal.SIGKILL)
if "refused" in options.output.name:
    sys.stderr.write("week-1 has no helpfulness rows.\n")
    sys.exit(2)
options.output.mkdir(parents=True)
options.result.write_text(json.dumps({"digest": "d" * 64, "evaluations": []}))
