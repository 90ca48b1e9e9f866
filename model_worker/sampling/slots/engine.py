"""Decodes many responses of one checkpoint together; a response joins at any step, and leaves as it ends."""

import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from model_worker.checkpoint import Checkpoint
from model_worker.sampling.nucleus import DrawPlan
from model_worker.sampling.slots.cache import SlotCache
from model_worker.sampling.slots.forward import DecodeForward, EagerDecode, Prompt, read_prompts
from model_worker.sampling.slots.rows import Row

# How many tokens of new prompts are read in one step, unless a single prompt is longer: rows that are under way
# wait for them (SAMPLING.md, section 4.2).
PROMPT_BUDGET: Final = 2048
# The attended length is rounded up, so that few shapes occur. A graph is recorded for each shape, so a GPU has fewer.
BUCKET_CPU: Final = 32
BUCKET_GPU: Final = 256

MakeDecode = Callable[[Checkpoint, SlotCache], DecodeForward]


class PassError(Exception):
    """A forward pass went wrong, and with it the rows that took part."""

    def __init__(self, rows: Sequence[Row]) -> None:
        super().__init__(f"a forward pass of {len(rows)} rows went wrong")
        self.rows = tuple(rows)


@dataclass(frozen=True, slots=True)
class _Batch:
    """The active rows as tensors: made anew when a row joins or leaves, and advanced in place otherwise."""

    input_ids: Tensor
    """int64 (rows, 1)."""
    position_ids: Tensor
    """int64 (rows, 1)."""
    lengths: Tensor
    """int32 (rows,)."""
    plan: DrawPlan


class SlotEngine:
    """The slots of one loaded checkpoint. One thread may use it.

    Row ``i`` of the minibatch is slot ``i``: when a row leaves, the last one takes its place. Nothing changes before
    all forward passes of a step have succeeded, so that a step for which memory ran out can be repeated with fewer
    rows.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        slots: int,
        length: int,
        make_decode: MakeDecode = lambda checkpoint, cache: EagerDecode(checkpoint.model, cache),
    ) -> None:
        """Take the memory for all slots.

        Args:
            checkpoint: What to run.
            slots: How many rows fit.
            length: How many tokens of prompt and response fit into a row.
            make_decode: What runs the decode step.

        """
        self.checkpoint = checkpoint
        self.slots = slots
        self.length = length
        self._device = checkpoint.device
        self._bucket = BUCKET_GPU if self._device.type == "cuda" else BUCKET_CPU
        self._cache = SlotCache(
            checkpoint.model.config, slots=slots, length=length, device=checkpoint.device, dtype=checkpoint.dtype
        )
        self._decode = make_decode(checkpoint, self._cache)
        self._active: list[Row] = []
        self._waiting: list[list[Row]] = []
        self._batch: _Batch | None = None

    @property
    def free_slots(self) -> int:
        """How many more rows fit."""
        return self.slots - len(self._active) - sum(len(rows) for rows in self._waiting)

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._active and not self._waiting

    def admit(self, rows: Sequence[Row]) -> None:
        """Take responses to one prompt, which is read once for all of them. There must be ``free_slots``."""
        if len(rows) > self.free_slots:
            msg = f"{len(rows)} rows do not fit into {self.free_slots} free slots"
            raise RuntimeError(msg)
        self._waiting.append(list(rows))

    def remove(self, rows: Collection[Row]) -> None:
        """Give the slots of some rows free; a row that is not here is no error."""
        waiting = [[row for row in together if row not in rows] for together in self._waiting]
        self._waiting = [together for together in waiting if together]
        for slot in reversed(range(len(self._active))):
            if self._active[slot] in rows:
                self._close_gap(slot)

    def replace_weights(self, checkpoint: Checkpoint) -> None:
        """Serve another checkpoint of the same shape; the engine must be idle.

        The weights are copied to where the old ones are, so that what was recorded for them still holds.

        Args:
            checkpoint: Its weights may be anywhere; the engine does not keep them.

        """
        own = self.checkpoint.model.state_dict()
        with torch.no_grad():
            for name, weight in checkpoint.model.state_dict().items():
                own[name].copy_(weight)
        self.checkpoint = checkpoint.on(self.checkpoint.model)

    @torch.inference_mode()
    def step(self) -> list[Row]:
        """One token for each row; returns the rows, among which those that have ended have left.

        Raises:
            torch.OutOfMemoryError: Memory ran out; the step has not happened.
            PassError: A pass went wrong in another way; the step has not happened.

        """
        admitted = self._next_prompts()
        new_rows = [row for together in admitted for row in together]
        taken = self._guarded(new_rows, lambda: self._read(admitted)) if admitted else []
        if self._active:
            taken += self._guarded(self._active, self._advance)
        self._waiting = self._waiting[len(admitted) :]
        return self._commit(new_rows, taken)

    def _next_prompts(self) -> list[list[Row]]:
        """The first of those that wait, up to the budget."""
        chosen: list[list[Row]] = []
        tokens = 0
        for rows in self._waiting:
            tokens += len(rows[0].prompt_ids)
            if chosen and tokens > PROMPT_BUDGET:
                break
            chosen.append(rows)
        return chosen

    def _read(self, admitted: Sequence[Sequence[Row]]) -> list[tuple[Row, int, float]]:
        """Read prompts into the slots behind the active ones, and draw the first token of each response."""
        prompts: list[Prompt] = []
        prompt_of: list[int] = []
        slot = len(self._active)
        for place, rows in enumerate(admitted):
            prompts.append(Prompt(rows[0].prompt_ids, range(slot, slot + len(rows))))
            prompt_of += [place] * len(rows)
            slot += len(rows)
        logits = read_prompts(self.checkpoint.model, self._cache, prompts)
        rows = [row for together in admitted for row in together]
        plan = DrawPlan([row.next_draw() for row in rows], device=self._device)
        _, tokens, logprobs = plan.draw(logits[torch.tensor(prompt_of, device=self._device)])
        return list(zip(rows, tokens, logprobs, strict=True))

    def _advance(self) -> list[tuple[Row, int, float]]:
        """Draw the next token of each active row."""
        if self._batch is None:
            self._batch = self._make_batch()
        batch = self._batch
        longest = max(row.length for row in self._active)
        bucket = min(math.ceil(longest / self._bucket) * self._bucket, self.length)
        logits = self._decode(batch.input_ids, batch.position_ids, batch.lengths, bucket)
        device_tokens, tokens, logprobs = batch.plan.draw(logits)
        batch.input_ids.copy_(device_tokens[:, None])
        batch.position_ids.add_(1)
        batch.lengths.add_(1)
        batch.plan.advance()
        return list(zip(self._active, tokens, logprobs, strict=True))

    def _make_batch(self) -> _Batch:
        rows = self._active
        last = torch.tensor([row.token_ids[-1] for row in rows], dtype=torch.int64, device=self._device)
        lengths = torch.tensor([row.length for row in rows], dtype=torch.int32, device=self._device)
        return _Batch(
            input_ids=last[:, None],
            position_ids=(lengths - 1).long()[:, None],
            lengths=lengths,
            plan=DrawPlan([row.next_draw() for row in rows], device=self._device),
        )

    def _commit(self, new_rows: Sequence[Row], taken: Sequence[tuple[Row, int, float]]) -> list[Row]:
        """Let every row take its token, and leave if it has ended."""
        now = time.monotonic()
        if new_rows:
            self._active += new_rows
            self._batch = None
        for row, token, logprob in taken:
            row.add(token, logprob, now)
        for slot in reversed(range(len(self._active))):
            if self._active[slot].is_done:
                self._close_gap(slot)
        return [row for row, _, _ in taken]

    def _close_gap(self, slot: int) -> None:
        """Remove the row of a slot: the last row moves there."""
        last = self._active.pop()
        if slot < len(self._active):
            self._active[slot] = last
            self._cache.move(len(self._active), slot, last.length)
        self._batch = None

    def _guarded(
        self, rows: Sequence[Row], run: Callable[[], list[tuple[Row, int, float]]]
    ) -> list[tuple[Row, int, float]]:
        """Say which rows took part in a pass that goes wrong."""
        try:
            return run()
        except Exception as error:
            if is_out_of_memory(error):
                raise torch.OutOfMemoryError(str(error)) from error
            raise PassError(rows) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the device or on the host; torch has several ways to say so."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    said = str(error)
    return isinstance(error, RuntimeError) and any(word in said for word in ("DefaultCPUAllocator", "ALLOC_FAILED"))
