"""The built-in sampler: one thread owns the device and steps a slot engine for each checkpoint that is served."""

import logging
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

import torch
from transformers.utils.logging import disable_progress_bar

from contract.checkpoint_files import CheckpointError, CheckpointFiles
from contract.sampling import Lease, PairJob
from model_worker.checkpoint import Checkpoint, load_checkpoint
from model_worker.sampling.interface import JobError, NoRoomError, SamplerFacts, Sink
from model_worker.sampling.slots.architectures import check_config
from model_worker.sampling.slots.engine import MakeDecode, PassError, SlotEngine
from model_worker.sampling.slots.memory import plan_memory
from model_worker.sampling.slots.pair import ENGINE, VERSIONS, Pair, device_name, dtype_name
from model_worker.sampling.slots.rows import Row
from model_worker.sampling.slots.staging import load_verified, release, shares_shape
from model_worker.sampling.slots.switches import decode_maker
from model_worker.settings import WorkerSettings
from model_worker.threads import use_fitting_threads

log = logging.getLogger(__name__)

# The contract's limit for the reason of a failed job, in characters.
_LONGEST_REASON: Final = 2000
_STOPPING: Final = "This model worker is stopping."


class SlotSampler:
    """A :class:`~model_worker.sampling.interface.Sampler` over one or several loaded checkpoints."""

    def __init__(
        self,
        checkpoints: Sequence[Checkpoint],
        *,
        max_pairs: int,
        max_length: int | None = None,
        make_decode: MakeDecode | None = None,
    ) -> None:
        """Take the memory for keys and values, and start the thread.

        Raises:
            CheckpointError: A checkpoint's architecture is not supported, or there is no room for one pair.

        """
        self._max_pairs = max_pairs
        self._max_length = max_length
        self._make_decode = make_decode or decode_maker(attention="sdpa", cuda_graphs=False)
        self._device = checkpoints[0].device
        self._dtype = checkpoints[0].dtype
        self._engines = {checkpoint.files.digest: self._engine(checkpoint) for checkpoint in checkpoints}
        self._draining: set[str] = set()
        self._pairs: dict[Lease, Pair] = {}
        self._tokens_drawn = 0
        self._changed = threading.Condition()
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="slot-engine", daemon=True)
        self._thread.start()

    @classmethod
    def from_settings(cls, settings: WorkerSettings, files: Mapping[Path, CheckpointFiles]) -> Self:
        """Load the checkpoints that were inspected before.

        Raises:
            CheckpointError: One of them cannot be served.

        """
        disable_progress_bar()  # type: ignore[no-untyped-call]
        checkpoints = [
            load_checkpoint(folder, device=settings.device, dtype=settings.dtype, files=inspected)
            for folder, inspected in files.items()
        ]
        use_fitting_threads([checkpoint.model for checkpoint in checkpoints])
        return cls(
            checkpoints,
            max_pairs=settings.max_pairs,
            max_length=settings.max_length,
            make_decode=decode_maker(attention=settings.attention, cuda_graphs=settings.cuda_graphs),
        )

    def facts(self) -> SamplerFacts:
        """Engine, versions, device and checkpoints."""
        with self._changed:
            served = [engine.checkpoint for digest, engine in self._engines.items() if digest not in self._draining]
            return SamplerFacts(
                engine=ENGINE,
                versions=VERSIONS,
                device=device_name(self._device),
                dtype=str(self._dtype).removeprefix("torch."),
                max_pairs=self._max_pairs,
                checkpoints=tuple(checkpoint.files for checkpoint in served),
            )

    def capacity(self) -> int:
        """How many more pairs are taken: a slot that a response has left waits for no other response to end."""
        with self._changed:
            free_rows = 2 * self._max_pairs - sum(pair.open_rows for pair in self._pairs.values())
            return 0 if self._is_closing else max(0, free_rows // 2)

    def submit(self, job: PairJob, sink: Sink) -> None:
        """Take a pair; it joins the others at the next step."""
        pair = Pair(job, sink)
        with self._changed:
            unserved = sorted(pair.digests - self._engines.keys() | pair.digests & self._draining)
            is_taken = not unserved and not self._is_closing
            if is_taken:
                self._pairs[pair.lease] = pair
                self._changed.notify_all()
        if not is_taken:
            reason = f"This model worker does not serve the checkpoint {unserved[0][:12]}." if unserved else _STOPPING
            sink.returned(pair.lease, reason)

    def cancel(self, lease: Lease) -> None:
        """Stop a pair before its next forward pass."""
        with self._changed:
            if lease in self._pairs:
                self._pairs[lease].is_cancelled = True
                self._changed.notify_all()

    def tokens_drawn(self) -> int:
        """How many tokens were drawn so far."""
        return self._tokens_drawn

    def close(self, drain_s: float) -> None:
        """Drain, cancel what is left, end the thread."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._pairs, timeout=drain_s)
            for pair in self._pairs.values():
                pair.is_cancelled = True
        self._thread.join()

    # Swapping: in the caller's thread, while the sampler's own goes on ------------------------------------------------

    def swap(self, folder: Path, files: CheckpointFiles, *, instead_of: str | None) -> None:
        """Serve a checkpoint: see :meth:`model_worker.sampling.interface.Sampler.swap`."""
        if instead_of is None:
            checkpoint = load_verified(folder, files, device=str(self._device), dtype=dtype_name(self._any()))
            engine = self._engine(checkpoint)
            with self._changed:
                self._engines[files.digest] = engine
            return
        # In host memory, since there may be no room for both on the device.
        staged = load_verified(folder, files, device="cpu", dtype=dtype_name(self._any()))
        check_config(staged.files.name, staged.model.config)
        with self._changed:
            self._draining.add(instead_of)
            self._changed.wait_for(lambda: self._is_closing or not self._is_asked(instead_of))
        try:
            if self._is_closing:
                raise CheckpointError(_STOPPING)
            self._put(staged, instead_of)
        finally:
            with self._changed:
                self._draining.discard(instead_of)

    def _is_asked(self, digest: str) -> bool:
        return any(digest in pair.digests for pair in self._pairs.values())

    def _put(self, staged: Checkpoint, instead_of: str) -> None:
        """Change the weights of an engine that nobody uses, or build another one in its place."""
        engine = self._engines[instead_of]
        if shares_shape(staged, engine.checkpoint) and staged.context_length == engine.checkpoint.context_length:
            engine.replace_weights(staged)
            with self._changed:
                del self._engines[instead_of]
                self._engines[staged.files.digest] = engine
            return
        with self._changed:
            del self._engines[instead_of]
        old = engine.checkpoint
        del engine
        release(old)
        try:
            torch.nn.Module.to(staged.model, self._device)
            built = {staged.files.digest: self._engine(staged.on(staged.model))}
        except (CheckpointError, RuntimeError, MemoryError) as error:
            release(staged)
            torch.nn.Module.to(old.model, self._device)
            built = {instead_of: self._engine(old)}
            if isinstance(error, CheckpointError):
                raise
            msg = f"{staged.files.name} does not fit on {self._device}: {error}"
            raise NoRoomError(msg) from error
        finally:
            with self._changed:
                self._engines.update(built)

    def _any(self) -> Checkpoint:
        with self._changed:
            return next(iter(self._engines.values())).checkpoint

    def _engine(self, checkpoint: Checkpoint) -> SlotEngine:
        config = checkpoint.model.config
        check_config(checkpoint.files.name, config)
        plan = plan_memory(
            config,
            dtype=checkpoint.dtype,
            device=checkpoint.device,
            max_pairs=self._max_pairs,
            max_length=self._max_length,
            weight_bytes=0,
        )
        self._max_pairs = min(self._max_pairs, plan.slots // 2)
        log.info("memory planned", extra={"checkpoint": checkpoint.files.name, "plan": plan.describe})
        return SlotEngine(checkpoint, slots=plan.slots, length=plan.length, make_decode=self._make_decode)

    # The thread that owns the device ----------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pairs or self._is_closing)
                if not self._pairs:
                    return
                pairs, engines = list(self._pairs.values()), dict(self._engines)
            for pair in [pair for pair in pairs if pair.is_cancelled]:
                self._leave(pair, engines)
                pair.sink.cancelled(pair.lease)
                pairs.remove(pair)
            self._admit(pairs, engines)
            owner = {row: pair for pair in pairs for row in pair.rows}
            for engine in engines.values():
                if not engine.is_idle:
                    self._step(engine, owner, engines)

    def _admit(self, pairs: Sequence[Pair], engines: Mapping[str, SlotEngine]) -> None:
        """Give slots to the rows that wait, in the order of submission; the first that has no room waits for it."""
        for pair in pairs:
            try:
                if not pair.is_prepared:
                    pair.prepare(engines)
            except JobError as error:
                self._refuse(pair, engines, error, is_retryable=False)
                continue
            except Exception as error:
                # Whatever is wrong with this job, the others go on, and this one is handed out again.
                log.exception("job failed", extra={"job_id": str(pair.job.job_id)})
                self._refuse(pair, engines, error, is_retryable=True)
                continue
            wanted = Counter(row.spec.checkpoint_digest for rows in pair.waiting for row in rows)
            if any(engines[digest].free_slots < count for digest, count in wanted.items()):
                return
            for rows in pair.waiting:
                engines[rows[0].spec.checkpoint_digest].admit(rows)
            pair.waiting = []

    def _step(self, engine: SlotEngine, owner: Mapping[Row, Pair], engines: Mapping[str, SlotEngine]) -> None:
        try:
            rows = engine.step()
        except torch.OutOfMemoryError as error:
            self._make_room(engine, owner, engines, error)
            return
        except PassError as error:
            log.exception("a forward pass went wrong", extra={"rows": len(error.rows)})
            for pair in dict.fromkeys(owner[row] for row in error.rows):
                self._refuse(pair, engines, error.__cause__ or error, is_retryable=True)
            return
        self._tokens_drawn += len(rows)
        for row in rows:
            owner[row].say(row)
        for pair in dict.fromkeys(owner[row] for row in rows if row.is_done):
            if all(row.is_done for row in pair.rows) and not pair.draws_again():
                self._leave(pair, engines)
                pair.sink.done(pair.lease, pair.responses())

    def _make_room(
        self,
        engine: SlotEngine,
        owner: Mapping[Row, Pair],
        engines: Mapping[str, SlotEngine],
        error: torch.OutOfMemoryError,
    ) -> None:
        """Halve the pairs and give the newest back: another worker may have room. A lone pair has failed here."""
        digest = engine.checkpoint.files.digest
        pairs = [pair for pair in dict.fromkeys(owner.values()) if digest in pair.digests and pair.lease in self._pairs]
        kept = len(pairs) // 2
        log.warning("out of memory", extra={"pairs": len(pairs), "kept": kept, "reason": str(error)[:200]})
        with self._changed:
            rows = sum(pair.open_rows for pair in pairs)
            self._max_pairs = max(1, min(self._max_pairs, round(rows / 4)))
        if kept == 0:
            self._refuse(pairs[0], engines, error, is_retryable=True)
        for pair in pairs[max(1, kept) :]:
            self._leave(pair, engines)
            pair.sink.returned(pair.lease, "This model worker ran out of memory.")
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _refuse(
        self, pair: Pair, engines: Mapping[str, SlotEngine], error: BaseException, *, is_retryable: bool
    ) -> None:
        self._leave(pair, engines)
        reason = str(error) if isinstance(error, JobError) else f"{type(error).__name__}: {error}"
        pair.sink.failed(pair.lease, reason[:_LONGEST_REASON] or type(error).__name__, is_retryable=is_retryable)

    def _leave(self, pair: Pair, engines: Mapping[str, SlotEngine]) -> None:
        for digest in pair.digests & engines.keys():
            engines[digest].remove(pair.rows)
        with self._changed:
            self._pairs.pop(pair.lease, None)
            self._changed.notify_all()
