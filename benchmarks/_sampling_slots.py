"""Samples pairs with the slot engine as the model worker does, for `benchmarks.sampling`."""

import copy
import queue
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from uuid import UUID

from benchmarks._sampling_clock import Timing
from benchmarks._sampling_workload import CONTEXT, TEMPERATURES, TOP_P, Pair
from contract.sampling import Lease, PairJob, ResponseSpec, SampledResponse
from model_worker.checkpoint import Checkpoint
from model_worker.sampling.slots.sampler import SlotSampler


class PairNotDrawnError(RuntimeError):
    """The sampler gave a pair up: the measurement means nothing."""


class Slots:
    """One job for each pair. It is also the sink that the sampler reports to."""

    def __init__(self, sampler: SlotSampler, digest: str) -> None:
        self._sampler = sampler
        self._digest = digest
        self._live: dict[UUID, tuple[Pair, float]] = {}
        self._ends: queue.Queue[tuple[Lease, tuple[SampledResponse, ...] | PairNotDrawnError]] = queue.Queue()

    def has_room(self) -> bool:
        """Whether the worker would claim another pair."""
        return self._sampler.capacity() > 0

    def submit(self, pair: Pair) -> None:
        """Hand over a job."""
        self._start(pair, TEMPERATURES, pair.lengths)

    def ended(self, timeout_s: float | None) -> Sequence[Timing]:
        """Both responses of the next pair that ended."""
        try:
            pair, submitted_at, responses = self._next(timeout_s)
        except queue.Empty:
            return []
        drawn = tuple(response.completion_tokens for response in responses)
        if drawn != pair.lengths:
            msg = f"the slot engine drew {drawn} tokens in place of {pair.lengths}"
            raise RuntimeError(msg)
        return [
            Timing(
                pair,
                place,
                submitted_at + response.first_token_s,
                submitted_at + response.total_s,
                response.completion_tokens,
            )
            for place, response in enumerate(responses)
        ]

    def greedy(self, pairs: Sequence[Pair], tokens: int) -> dict[int, tuple[int, ...]]:
        """The likeliest tokens of each pair's first response, drawn while its second takes others."""
        waiting, drawn = list(pairs), {}
        while waiting or self._live:
            while waiting and self.has_room():
                self._start(waiting.pop(0), (0.0, TEMPERATURES[1]), (tokens, tokens))
            pair, _, responses = self._next(None)
            drawn[pair.number] = responses[0].token_ids
        return drawn

    def _start(self, pair: Pair, temperatures: Sequence[float], lengths: Sequence[int]) -> None:
        specs = tuple(
            ResponseSpec(
                response_id=UUID(int=response + 1),
                checkpoint_digest=self._digest,
                temperature=temperature,
                top_p=TOP_P,
                top_k=0,
                seed=2 * pair.number + response,
                max_new_tokens=length,
            )
            for response, (temperature, length) in enumerate(zip(temperatures, lengths, strict=True))
        )
        job = PairJob(job_id=UUID(int=pair.number + 1), attempt=1, messages=pair.messages, specs=specs)
        self._live[job.job_id] = (pair, time.perf_counter())
        self._sampler.submit(job, self)

    def _next(self, timeout_s: float | None) -> tuple[Pair, float, tuple[SampledResponse, ...]]:
        lease, outcome = self._ends.get(timeout=timeout_s)
        pair, submitted_at = self._live.pop(lease.job_id)
        if isinstance(outcome, PairNotDrawnError):
            raise outcome
        return pair, submitted_at, outcome

    # What the sampler says --------------------------------------------------------------------------------------------

    def text(self, lease: Lease, spec_index: int, text: str) -> None:
        """The worker would put it into its next events."""

    def done(self, lease: Lease, responses: tuple[SampledResponse, ...]) -> None:
        """A pair is complete."""
        self._ends.put((lease, responses))

    def failed(self, lease: Lease, reason: str, *, is_retryable: bool) -> None:
        """Nothing may fail here."""
        self._ends.put((lease, PairNotDrawnError(f"failed, is_retryable={is_retryable}: {reason}")))

    def returned(self, lease: Lease, reason: str) -> None:
        """Nor be given back."""
        self._ends.put((lease, PairNotDrawnError(f"returned: {reason}")))

    def cancelled(self, lease: Lease) -> None:
        """Nor be cancelled."""
        self._ends.put((lease, PairNotDrawnError("cancelled")))


@contextmanager
def slots(checkpoint: Checkpoint, rows: int) -> Iterator[Slots]:
    """Run the sampler over a copy of `checkpoint`, in which nothing but its length ends a response.

    The sampler changes how its model attends; the other ways are to be measured as they are.
    """
    endless = replace(checkpoint, model=copy.deepcopy(checkpoint.model), stop_ids=frozenset())
    sampler = SlotSampler([endless], max_pairs=rows // 2, max_length=CONTEXT)
    try:
        yield Slots(sampler, checkpoint.files.digest)
    finally:
        sampler.close(drain_s=0.0)
