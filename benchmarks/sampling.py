"""How fast pairs are sampled: the slot engine against what else could draw them, in one run on one machine.

    python -m benchmarks.sampling [--quick]

Every way draws the same pairs from the same random Llama (8 layers, hidden 512, grouped-query attention, 4,096
pieces, float32; SAMPLING.md, section 3): 16 to 512 tokens of prompt, two responses at temperatures 0.7 and 1.2 with
top_p 0.95, whose lengths of 4 to 192 tokens are drawn once and forced on every way.

    naive       two calls of generate() for each prompt, one prompt at a time
    batched     generate() for as many prompts as there are rows at the one temperature, then at the other
    per_row     generate() for half as many prompts, both responses at once, each row with its own temperature
    continuous  transformers' continuous batching, a temperature for each request
    slots       the slot engine, through the interface that the model worker uses, text included

Pairs arrive all at once, and then at random (``--rate`` a second, a Poisson process on a clock that skips the time in
which nobody waits). Shows a table, and prints one line of JSON. Only its ratios mean anything, since all ways shared
the machine: ``ratio_to_...`` is the slot engine's tokens per second against another way's, all at once, and the same
under ``cpu_ratios`` per second of processor time, which is steadier where others use the machine. Times to the first
token are of responses, from their pair's arrival; a pair is complete when its later response is.

``--quick`` leaves out the two ways that nobody would choose and the random arrivals, and draws every fourth pair
the naive way. ``--gpu`` measures a decode step of a random Llama 2 7B against the copy bandwidth of the same device
instead.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from benchmarks._sampling_clock import Figures, Run, run_engine, run_in_groups
from benchmarks._sampling_continuous import continuous_batching
from benchmarks._sampling_generate import BatchedCalls, OneCall, TwoCalls, forget_end_token, greedy
from benchmarks._sampling_gpu import measure_gpu
from benchmarks._sampling_slots import slots
from benchmarks._sampling_workload import (
    FULL_SHAPE,
    PROMPTS,
    RESPONSES,
    Pair,
    Shape,
    Spread,
    describe,
    make_pairs,
    poisson_arrivals,
    write_model,
)
from model_worker.checkpoint import Checkpoint, load_checkpoint

WAYS = ("naive", "batched", "per_row", "continuous", "slots")
RATIOS = {
    "ratio_to_naive": "naive",
    "ratio_to_batched": "batched",
    "ratio_to_per_row": "per_row",
    "ratio_to_continuous_batching": "continuous",
}
# No number but these is needed to run the program; the least that it runs with is for its own test.
TINY_SHAPE = Shape(layers=2, hidden=64, vocabulary=420)
TINY_PROMPTS = Spread(median=20, sigma=0.3, least=16, most=30)
TINY_RESPONSES = Spread(median=6, sigma=0.5, least=4, most=10)
GREEDY_PAIRS = 16
COLUMNS = ("pairs_per_s", "tokens_per_s", "cpu_s", "first_token_s_mean", "first_token_s_p95", "pair_s_mean")
MORE_COLUMNS = ("pair_s_p50", "pair_s_p95", "new_tokens")


def main() -> None:
    """Measure and print."""
    options = parse_options()
    disable_progress_bar()
    set_verbosity_error()
    if options.gpu:
        print(
            json.dumps(
                {"benchmark": "sampling", "torch": str(torch.__version__), "gpu": measure_gpu(is_tiny=options.tiny)}
            )
        )
        return
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="preferably-") as folder:
        checkpoint = make_checkpoint(Path(folder), TINY_SHAPE if options.tiny else FULL_SHAPE)
        pairs = make_pairs(
            checkpoint,
            options.pairs,
            seed=options.seed,
            prompts=TINY_PROMPTS if options.tiny else PROMPTS,
            responses=TINY_RESPONSES if options.tiny else RESPONSES,
        )
        note(f"{describe(pairs)}; load of the machine {load_before:.1f}")
        runs = measure(checkpoint, pairs, options)
        torch.set_num_threads(options.threads[0])
        is_equal = greedy_is_equal(checkpoint, pairs, options.greedy_tokens)
    print(
        json.dumps(
            {
                "benchmark": "sampling",
                **ratios(runs, "tokens_per_s"),
                "greedy_equal": is_equal,
                "cpu_ratios": ratios(runs, "tokens_per_cpu_s"),
                "torch": str(torch.__version__),
                "transformers": transformers.__version__,
                "cores": len(os.sched_getaffinity(0)),
                "load_before": round(load_before, 2),
                "load_after": round(os.getloadavg()[0], 2),
                "workload": describe(pairs),
                "runs": runs,
            }
        )
    )


def parse_options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="40 pairs, all at once, three of the ways; about three minutes"
    )
    parser.add_argument("--pairs", type=int, help="how many pairs; 32 by default")
    parser.add_argument("--rows", type=int, nargs="+", default=[16], help="how many responses are drawn at once")
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="threads of torch, the same for every way")
    parser.add_argument(
        "--rate", type=float, default=0.2, help="pairs a second where they arrive at random; 0 for none"
    )
    parser.add_argument("--ways", nargs="+", choices=WAYS, help="which ways, instead of all")
    parser.add_argument("--naive-every", type=int, default=1, help="draw only every n-th pair the naive way")
    parser.add_argument("--greedy-tokens", type=int, default=32, help="how many tokens are compared with generate()")
    parser.add_argument("--seed", type=int, default=0, help="of prompts, lengths and arrivals")
    parser.add_argument("--gpu", action="store_true", help="a decode step of Llama 2 7B on a CUDA device, instead")
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.pairs, options.rate, options.naive_every = options.pairs or 40, 0.0, 4
        options.ways = options.ways or ["naive", "continuous", "slots"]
    options.ways = options.ways or list(WAYS)
    options.pairs = options.pairs or 32
    return options


def make_checkpoint(folder: Path, shape: Shape) -> Checkpoint:
    """Write the model, and load it as the worker does."""
    checkpoint = load_checkpoint(write_model(folder, shape), device="cpu", dtype="float32")
    forget_end_token(checkpoint.model)
    return checkpoint


def measure(checkpoint: Checkpoint, pairs: Sequence[Pair], options: argparse.Namespace) -> list[Figures]:
    """Every way with every number of threads and rows, under each kind of arrival."""
    runs = []
    for threads in options.threads:
        torch.set_num_threads(threads)
        for rows in options.rows:
            for rate in [None, *([options.rate] if options.rate else [])]:
                heading(rows, threads, rate)
                for way in options.ways:
                    # The naive way draws one response at a time, however many rows there could be.
                    if way == "naive" and rows != options.rows[0]:
                        continue
                    chosen = every_nth(pairs, options.naive_every) if way == "naive" else pairs
                    figures = measure_way(way, checkpoint, chosen, rows, rate, options.seed)
                    about: Figures = {"way": way, "rows": rows, "threads": threads, "rate": rate or "all at once"}
                    runs.append(about | figures)
                    show(runs[-1])
    return runs


def every_nth(pairs: Sequence[Pair], count: int) -> list[Pair]:
    """Every `count`-th pair by length, from the middle of the first few on: as long on average as all are."""
    by_length = sorted(pairs, key=lambda pair: (sum(pair.lengths), pair.number))
    return sorted(by_length[count // 2 :: count], key=lambda pair: pair.number)


def measure_way(
    way: str, checkpoint: Checkpoint, pairs: Sequence[Pair], rows: int, rate: float | None, seed: int
) -> Figures:
    """One way, after a pair that does not count."""
    arrivals = dict(
        zip((pair.number for pair in pairs), poisson_arrivals(len(pairs), rate=rate, seed=seed), strict=True)
    )
    run_pairs = runner(way, checkpoint, rows)
    run_pairs(pairs[:1], dict.fromkeys(arrivals, 0.0))
    run = run_pairs(pairs, arrivals)
    expected = sum(sum(pair.lengths) for pair in pairs)
    if run.tokens != expected:
        msg = f"{way} drew {run.tokens} tokens in place of {expected}"
        raise RuntimeError(msg)
    return run.figures()


def runner(way: str, checkpoint: Checkpoint, rows: int) -> Callable[[Sequence[Pair], dict[int, float]], Run]:
    """What draws pairs this way."""
    model: Any = checkpoint.model

    def with_slots(pairs: Sequence[Pair], arrivals: dict[int, float]) -> Run:
        with slots(checkpoint, rows) as engine:
            return run_engine(engine, pairs, arrivals)

    def with_continuous_batching(pairs: Sequence[Pair], arrivals: dict[int, float]) -> Run:
        with continuous_batching(model, rows) as engine:
            return run_engine(engine, pairs, arrivals)

    return {
        "naive": lambda pairs, arrivals: run_in_groups(TwoCalls(model).sample, 1, pairs, arrivals),
        "batched": lambda pairs, arrivals: run_in_groups(BatchedCalls(model).sample, rows, pairs, arrivals),
        "per_row": lambda pairs, arrivals: run_in_groups(OneCall(model).sample, rows // 2, pairs, arrivals),
        "continuous": with_continuous_batching,
        "slots": with_slots,
    }[way]


def greedy_is_equal(checkpoint: Checkpoint, pairs: Sequence[Pair], tokens: int) -> bool:
    """Whether the slot engine's likeliest tokens are those of `generate()`, whatever is drawn beside them."""
    chosen = pairs[:GREEDY_PAIRS]
    with slots(checkpoint, GREEDY_PAIRS) as engine:
        drawn = engine.greedy(chosen, tokens)
    equal = [list(drawn[pair.number]) == greedy(checkpoint.model, pair, tokens) for pair in chosen]
    note(f"greedy responses equal to those of generate(): {sum(equal)} of {len(equal)}, {tokens} tokens each")
    return all(equal)


def ratios(runs: Sequence[Figures], measure: str) -> Figures:
    """The slot engine against each other way, all at once, with the first number of rows and of threads."""
    at_once = [run for run in runs if run["rate"] == "all at once"]
    first: dict[object, float] = {}
    for run in at_once:
        first.setdefault(run["way"], float(run[measure]))
    if "slots" not in first:
        return {}
    return {name: round(first["slots"] / first[way], 2) for name, way in RATIOS.items() if way in first}


def heading(rows: int, threads: int, rate: float | None) -> None:
    """What the next lines of the table are about."""
    arrival = f"{rate} pairs a second" if rate else "all at once"
    note(f"\n{arrival}, {rows} rows, {threads} threads")
    names = [*COLUMNS, *MORE_COLUMNS]
    note(f"{'':12}" + "".join(f"{name.replace('_s_', ' '):>17}" for name in names))


def show(figures: Figures) -> None:
    """One line of the table."""
    note(f"{figures['way']:12}" + "".join(f"{figures[name]:>17}" for name in [*COLUMNS, *MORE_COLUMNS]))


def note(text: str) -> None:
    """For people, apart from the result."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
