"""Records decode steps as CUDA graphs: a step of few rows then costs its arithmetic, not a thousand kernel launches.

Recording needs CUDA and **has not been run for this project**: no GPU was at hand. Which shapes are recorded, and how
rows are filled up to them, is tested on processors with a recorder that runs the step anew.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import torch
from torch import Tensor

from model_worker.sampling.slots.forward import DecodeForward

_FEWEST_ROWS: Final = 2
# Libraries choose their kernels, and take their workspaces, in the first runs.
_WARM_UPS: Final = 3

Replay = Callable[[], Tensor]


class Recorder(Protocol):
    """Turns work on tensors that stay where they are into something that can be repeated."""

    def __call__(self, work: Callable[[], Tensor]) -> Replay:
        """Record ``work``, which reads its input from fixed tensors; the replay returns the same tensor each time."""


class CudaRecorder:
    """Records CUDA graphs that share their memory, since never two of them run at once."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Callable[[], Tensor]) -> Replay:
        """Run ``work`` a few times on a stream of its own, then record it."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                work()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            output = work()

        def replay() -> Tensor:
            graph.replay()
            return output

        return replay


@dataclass(frozen=True, slots=True)
class _Inputs:
    """Where recorded steps of some number of rows read from."""

    input_ids: Tensor
    position_ids: Tensor
    lengths: Tensor


class GraphedDecode:
    """Runs another decode step through recordings, one for each number of rows (2, 4, 8, ...) and each bucket.

    A recording is made when its shape first occurs. It holds the addresses of weights, keys and values: weights are
    replaced in place, and a new cache needs a new ``GraphedDecode``.
    """

    def __init__(self, decode: DecodeForward, *, slots: int, length: int, record: Recorder) -> None:
        """Nothing is recorded yet.

        Args:
            decode: What is recorded.
            slots: How many rows there can be.
            length: How many tokens fit into a slot.
            record: How.

        """
        self._decode = decode
        self._slots = slots
        self._length = length
        self._record = record
        self._inputs: dict[int, _Inputs] = {}
        self._replays: dict[tuple[int, int], Replay] = {}

    def __call__(self, input_ids: Tensor, position_ids: Tensor, lengths: Tensor, bucket: int) -> Tensor:
        """See :class:`~model_worker.sampling.slots.forward.DecodeForward`."""
        count = input_ids.shape[0]
        rows = filled_up(count, self._slots)
        inputs = self._inputs.get(rows)
        if inputs is None:
            inputs = self._inputs[rows] = self._spare_inputs(rows, input_ids.device)
        self._fill(inputs, count, (input_ids, position_ids, lengths))
        replay = self._replays.get((rows, bucket))
        if replay is None:
            replay = self._record(lambda: self._decode(inputs.input_ids, inputs.position_ids, inputs.lengths, bucket))
            self._replays[rows, bucket] = replay
        return replay()[:count]

    def _fill(self, inputs: _Inputs, count: int, given: tuple[Tensor, Tensor, Tensor]) -> None:
        """Put the active rows in front; rows behind them that were active before become spare again."""
        for held, new, spare in zip(
            (inputs.input_ids, inputs.position_ids, inputs.lengths), given, (0, self._length - 1, 1), strict=True
        ):
            held[:count].copy_(new)
            held[count:].fill_(spare)

    def _spare_inputs(self, rows: int, device: torch.device) -> _Inputs:
        """Rows that nobody needs: they see one key, and write their own to where no row ever has one.

        The slot of a spare row may hold a prompt that was just read. A row's last token is drawn, yet never fed back,
        so the last place of a slot is always free.
        """
        return _Inputs(
            input_ids=torch.zeros((rows, 1), dtype=torch.int64, device=device),
            position_ids=torch.full((rows, 1), self._length - 1, dtype=torch.int64, device=device),
            lengths=torch.ones(rows, dtype=torch.int32, device=device),
        )


def filled_up(rows: int, slots: int) -> int:
    """The number of rows that is recorded for ``rows`` active ones: a power of two, or all slots."""
    return min(max(_FEWEST_ROWS, 1 << (rows - 1).bit_length()), slots)
