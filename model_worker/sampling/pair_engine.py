"""The built-in sampler: decodes both responses of a pair together, and several pairs in turn."""

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

import torch
from transformers.utils.logging import disable_progress_bar

from contract.checkpoint_files import CheckpointFiles
from contract.sampling import Lease, PairJob, SampledResponse
from model_worker.checkpoint import Checkpoint, load_checkpoint
from model_worker.errors import EncodingError
from model_worker.sampling.decoding import Row, RowGroup
from model_worker.sampling.interface import MAX_REDRAWS, JobError, SamplerFacts, Sink
from model_worker.sampling.seeds import redraw_seed
from model_worker.sampling.stepping import Stepper
from model_worker.settings import WorkerSettings
from model_worker.threads import use_fitting_threads

ENGINE: Final = "pair-engine/1"


class PairEngine:
    """A :class:`~model_worker.sampling.interface.Sampler` over one or several loaded checkpoints."""

    def __init__(self, checkpoints: Sequence[Checkpoint], *, max_pairs: int) -> None:
        self._checkpoints = {checkpoint.files.digest: checkpoint for checkpoint in checkpoints}
        self._stepper = Stepper(self._start, max_pairs=max_pairs, name="pair-engine")

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
        return cls(checkpoints, max_pairs=settings.max_pairs)

    def facts(self) -> SamplerFacts:
        """Engine, versions, device and checkpoints."""
        first = next(iter(self._checkpoints.values()))
        return SamplerFacts(
            engine=ENGINE,
            versions={package: importlib.metadata.version(package) for package in ("torch", "transformers")},
            device=_device_name(first.device),
            dtype=_dtype_name(first),
            checkpoints=tuple(checkpoint.files for checkpoint in self._checkpoints.values()),
        )

    def capacity(self) -> int:
        """How many more pairs are taken."""
        return self._stepper.capacity()

    def submit(self, job: PairJob, sink: Sink) -> None:
        """Start a pair; it joins the others at the next step."""
        self._stepper.submit(job, sink)

    def cancel(self, lease: Lease) -> None:
        """Stop a pair before its next forward pass."""
        self._stepper.cancel(lease)

    def close(self, drain_s: float) -> None:
        """Drain, cancel what is left, end the thread."""
        self._stepper.close(drain_s)

    def _start(self, job: PairJob, say: Callable[[int, str], None], claimed_at: float) -> "_Pair":
        return _Pair(job, say, claimed_at, self._checkpoints)


class _Pair:
    """One job under way: a group of rows for each checkpoint it asks for."""

    def __init__(
        self, job: PairJob, say: Callable[[int, str], None], claimed_at: float, checkpoints: dict[str, Checkpoint]
    ) -> None:
        self._say = say
        self._claimed_at = claimed_at
        self._redraws = 0
        self._rows: list[Row] = []
        rows_of: dict[str, list[Row]] = {}
        for spec_index, spec in enumerate(job.specs):
            if spec.checkpoint_digest not in checkpoints:
                msg = f"This model worker does not serve the checkpoint {spec.checkpoint_digest[:12]}."
                raise LookupError(msg)
            row = Row(spec_index, spec, spec.seed, checkpoints[spec.checkpoint_digest])
            self._rows.append(row)
            rows_of.setdefault(spec.checkpoint_digest, []).append(row)
        self._groups = [_group(checkpoints[digest], job, rows) for digest, rows in rows_of.items()]
        self._group_of = {row.spec_index: group for group in self._groups for row in group.rows}

    def step(self) -> tuple[SampledResponse, ...] | None:
        """One token for each row of each group; a redrawn row says nothing until it is complete."""
        for group in self._groups:
            if not group.is_done:
                for row, text in group.step():
                    if text and self._redraws == 0:
                        self._say(row.spec_index, text)
        if not all(group.is_done for group in self._groups) or self._draws_again():
            return None
        return tuple(self._response(row) for row in self._rows)

    def _draws_again(self) -> bool:
        """Start a row anew where two texts are equal, if another seed can change one of them."""
        equal = _changeable_equal_row(self._rows) if self._redraws < MAX_REDRAWS else None
        if equal is None:
            return False
        self._redraws += 1
        group = self._group_of[equal.spec_index]
        seed = redraw_seed(equal.spec.seed, self._redraws)
        row = Row(equal.spec_index, equal.spec, seed, group.checkpoint)
        self._rows[equal.spec_index] = row
        self._groups = [RowGroup(group.checkpoint, group.prompt_ids, [row])]
        return True

    def _response(self, row: Row) -> SampledResponse:
        group = self._group_of[row.spec_index]
        if row.finish_reason is None:
            msg = "a response was asked for before it ended"
            raise RuntimeError(msg)
        return SampledResponse(
            response_id=row.spec.response_id,
            checkpoint_digest=group.checkpoint.files.digest,
            seed=row.seed,
            text=row.text,
            token_ids=tuple(row.token_ids),
            prompt_tokens=len(group.prompt_ids),
            completion_tokens=len(row.token_ids),
            finish_reason=row.finish_reason,
            sum_logprob=row.sum_logprob,
            first_token_s=row.first_token_at - self._claimed_at,
            total_s=row.last_token_at - self._claimed_at,
            engine=ENGINE,
            dtype=_dtype_name(group.checkpoint),
            device=_device_name(group.checkpoint.device),
        )


def _group(checkpoint: Checkpoint, job: PairJob, rows: Sequence[Row]) -> RowGroup:
    try:
        prompt_ids = checkpoint.encode(job.messages)
    except EncodingError as error:
        msg = f"{checkpoint.files.name}: {error}"
        raise JobError(msg) from error
    return RowGroup(checkpoint, prompt_ids, rows)


def _changeable_equal_row(rows: Sequence[Row]) -> Row | None:
    """The last row whose text another row has too and whose next draw may differ; ``None`` if there is none."""
    texts = [row.text for row in rows]
    for row, text in reversed(list(zip(rows, texts, strict=True))):
        if texts.count(text) > 1 and row.spec.temperature > 0 and row.spec.top_k != 1:
            return row
    return None


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _dtype_name(checkpoint: Checkpoint) -> str:
    return str(checkpoint.dtype).removeprefix("torch.")
