"""Which decode steps are recorded, and how rows are filled up to them; nothing is recorded on a processor."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from torch import Tensor

from contract.checkpoint_files import CheckpointError
from model_worker.checkpoint import Checkpoint
from model_worker.sampling.slots.cache import SlotCache
from model_worker.sampling.slots.engine import SlotEngine
from model_worker.sampling.slots.forward import EagerDecode
from model_worker.sampling.slots.graphs import GraphedDecode, Replay, filled_up
from model_worker.sampling.slots.rowwise import RowwiseDecode
from model_worker.sampling.slots.switches import decode_maker
from tests.model_worker.sampling.slots.greedy import generated, greedy_row, prompts_of, run_staggered

TOKENS = 40


@dataclass
class RunsAnew:
    """A recorder whose replay runs the work again, into the same tensor as a graph's would."""

    recordings: int = 0
    replays: int = 0

    def __call__(self, work: Callable[[], Tensor]) -> Replay:
        """Keep the output's place."""
        self.recordings += 1
        output = work().clone()

        def replay() -> Tensor:
            self.replays += 1
            return output.copy_(work())

        return replay


@pytest.mark.parametrize(
    ("rows", "slots", "filled"), [(1, 16, 2), (2, 16, 2), (3, 16, 4), (9, 16, 16), (5, 6, 6), (1, 1, 1)]
)
def test_rows_are_filled_up_to_a_power_of_two_or_all_slots(rows: int, slots: int, filled: int) -> None:
    assert filled_up(rows, slots) == filled


def test_replayed_steps_give_the_responses_of_generate_and_spare_rows_spoil_none(tiny: Checkpoint) -> None:
    recorder = RunsAnew()

    def make_decode(checkpoint: Checkpoint, cache: SlotCache) -> GraphedDecode:
        eager = EagerDecode(checkpoint.model, cache)
        return GraphedDecode(eager, slots=cache.slots, length=cache.length, record=recorder)

    engine = SlotEngine(tiny, slots=6, length=96, make_decode=make_decode)
    # Prompts join while one or three rows are under way, so that they are read into slots of spare rows.
    rows = [greedy_row(tiny, prompt_ids, TOKENS - 3 * place) for place, prompt_ids in enumerate(prompts_of(tiny) * 2)]
    run_staggered(engine, rows)
    assert [row.token_ids for row in rows] == [generated(tiny, row.prompt_ids, row.limit) for row in rows]
    # Rows are 2, 4 or 6; buckets are multiples of 32 up to 96.
    assert 1 < recorder.recordings <= 9
    assert recorder.replays > 5 * recorder.recordings


def test_graphs_are_refused_on_a_processor(tiny: Checkpoint) -> None:
    with pytest.raises(CheckpointError, match="CUDA graphs need a CUDA device, not cpu"):
        SlotEngine(tiny, slots=2, length=32, make_decode=decode_maker(attention="sdpa", cuda_graphs=True))


def test_without_switches_a_processor_reads_row_by_row(tiny: Checkpoint) -> None:
    make_decode = decode_maker(attention="sdpa", cuda_graphs=False)
    config = tiny.model.config
    cache = SlotCache(config, slots=1, length=8, device=tiny.device, dtype=tiny.dtype)
    assert isinstance(make_decode(tiny, cache), RowwiseDecode)
