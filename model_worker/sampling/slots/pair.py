"""One job in the slot engine: the rows of its responses, what is said of them, and when one is drawn again."""

import importlib.metadata
import time
from collections.abc import Mapping, Sequence
from typing import Final

import torch

from contract.digests import token_digest
from contract.sampling import PairJob, SampledResponse
from model_worker.checkpoint import Checkpoint
from model_worker.errors import EncodingError
from model_worker.sampling.interface import JobError, Sink, lease_of
from model_worker.sampling.redraw import next_redraw
from model_worker.sampling.slots.engine import SlotEngine
from model_worker.sampling.slots.rows import Row

VERSIONS: Final = {package: importlib.metadata.version(package) for package in ("torch", "transformers")}
ENGINE: Final = "slot-engine/1 " + " ".join(f"{package}/{version}" for package, version in VERSIONS.items())


class Pair:
    """A job, from its submission to its outcome. All but ``is_cancelled`` belongs to the sampler's thread."""

    def __init__(self, job: PairJob, sink: Sink) -> None:
        self.job = job
        self.lease = lease_of(job)
        self.sink = sink
        self.is_cancelled = False
        self.digests = {spec.checkpoint_digest for spec in job.specs}
        self.waiting: list[list[Row]] = []
        """Rows that have no slot yet: those of one engine together, since they share the prompt."""
        self._rows: list[Row] = []
        self._redraws = 0
        self._claimed_at = time.monotonic()

    @property
    def is_prepared(self) -> bool:
        """Whether its prompt has been turned into tokens."""
        return bool(self._rows)

    @property
    def rows(self) -> Sequence[Row]:
        """One for each of the job's specs, once it is prepared."""
        return self._rows

    @property
    def open_rows(self) -> int:
        """How many of its responses have not ended."""
        return sum(not row.is_done for row in self._rows) if self._rows else len(self.job.specs)

    def prepare(self, engines: Mapping[str, SlotEngine]) -> None:
        """Make the rows.

        Raises:
            JobError: A checkpoint cannot read the conversation, or has no room for a response to it.

        """
        prompts = {digest: _prompt(self.job, engines[digest]) for digest in self.digests}
        rows = []
        for spec in self.job.specs:
            engine, prompt = engines[spec.checkpoint_digest], prompts[spec.checkpoint_digest]
            limit = min(spec.max_new_tokens, engine.length - len(prompt))
            rows.append(Row(spec, spec.seed, engine.checkpoint, prompt, limit))
        self._rows = rows
        self.waiting = [[row for row in rows if row.spec.checkpoint_digest == digest] for digest in sorted(prompts)]

    def say(self, row: Row) -> None:
        """Pass on what a row has grown by; a row that is drawn again says nothing until it is complete."""
        if self._redraws == 0 and (text := row.new_text()):
            self.sink.text(self.lease, self._rows.index(row), text)

    def draws_again(self) -> bool:
        """Start a row anew where two texts are equal; every row must be done."""
        redraw = next_redraw(self.job.specs, [row.text for row in self._rows], redraws=self._redraws)
        if redraw is None:
            return False
        self._redraws += 1
        old = self._rows[redraw.spec_index]
        row = Row(old.spec, redraw.seed, old.checkpoint, old.prompt_ids, old.limit)
        self._rows[redraw.spec_index] = row
        self.waiting = [[row]]
        return True

    def responses(self) -> tuple[SampledResponse, ...]:
        """The complete responses, in the order of the specs."""
        return tuple(self._response(row) for row in self._rows)

    def _response(self, row: Row) -> SampledResponse:
        if row.finish_reason is None:
            msg = "a response was asked for before it ended"
            raise RuntimeError(msg)
        return SampledResponse(
            response_id=row.spec.response_id,
            checkpoint_digest=row.checkpoint.files.digest,
            seed=row.seed,
            text=row.text,
            token_ids=tuple(row.token_ids),
            prompt_digest=token_digest(row.prompt_ids),
            stop_token_ids=tuple(sorted(row.stop_ids)),
            prompt_tokens=len(row.prompt_ids),
            completion_tokens=len(row.token_ids),
            finish_reason=row.finish_reason,
            sum_logprob=row.sum_logprob,
            first_token_s=row.first_token_at - self._claimed_at,
            total_s=row.last_token_at - self._claimed_at,
            engine=ENGINE,
            dtype=dtype_name(row.checkpoint),
            device=device_name(row.checkpoint.device),
        )


def _prompt(job: PairJob, engine: SlotEngine) -> tuple[int, ...]:
    checkpoint = engine.checkpoint
    try:
        prompt = tuple(checkpoint.encode(job.messages))
    except EncodingError as error:
        msg = f"{checkpoint.files.name}: {error}"
        raise JobError(msg) from error
    if len(prompt) >= engine.length:
        msg = (
            f"The conversation is too long for {checkpoint.files.name}: it has {len(prompt)} tokens, "
            f"and {engine.length} are served, the response included."
        )
        raise JobError(msg)
    return prompt


def device_name(device: torch.device) -> str:
    """Such as ``NVIDIA H100`` or ``cpu``."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def dtype_name(checkpoint: Checkpoint) -> str:
    """Such as ``bfloat16``."""
    return str(checkpoint.dtype).removeprefix("torch.")
