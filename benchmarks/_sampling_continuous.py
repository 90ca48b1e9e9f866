"""Samples pairs with transformers' continuous batching, for `benchmarks.sampling`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from transformers import ContinuousBatchingConfig, GenerationConfig, PreTrainedModel
from transformers.generation.continuous_batching import ContinuousBatchingManager

from benchmarks._sampling_clock import Timing
from benchmarks._sampling_workload import CONTEXT, TEMPERATURES, TOP_P, Pair
from model_worker.demo.template import PAD_TOKEN_ID

PAGE = 16
# No token has this id: only the length ends a response.
_NO_END_TOKEN = -1


class ContinuousBatching:
    """Two requests for each pair, each with its own temperature."""

    def __init__(self, manager: ContinuousBatchingManager) -> None:
        self._manager = manager
        self._live: dict[str, tuple[Pair, int]] = {}

    def has_room(self) -> bool:
        """It has a queue of its own."""
        return True

    def submit(self, pair: Pair) -> None:
        """Queue both requests; nothing is streamed, since token times are noted for each request."""
        for response, temperature in enumerate(TEMPERATURES):
            name = f"{pair.number}-{response}"
            self._live[name] = (pair, response)
            self._manager.add_request(
                list(pair.prompt_ids),
                request_id=name,
                max_new_tokens=pair.lengths[response],
                record_timestamps=True,
                eos_token_id=_NO_END_TOKEN,
                temperature=temperature,
                top_p=TOP_P,
            )

    def ended(self, timeout_s: float | None) -> Sequence[Timing]:
        """The next request that ended.

        Raises:
            RuntimeError: A request failed, or was cut short.

        """
        output = self._manager.get_result(timeout=timeout_s)
        if output is None:
            if self._manager.is_running():
                return []
            msg = "the thread of transformers' continuous batching has ended"
            raise RuntimeError(msg)
        pair, response = self._live.pop(output.request_id)
        moments = output.timestamps or []
        if output.error or len(moments) != pair.lengths[response]:
            msg = f"continuous batching drew {len(moments)} of {pair.lengths[response]} tokens: {output.error}"
            raise RuntimeError(msg)
        return [Timing(pair, response, moments[0], moments[-1], len(moments))]


@contextmanager
def continuous_batching(model: PreTrainedModel, rows: int) -> Iterator[ContinuousBatching]:
    """Run its thread over `model`, which stays as it was, with at most `rows` requests at once.

    Per-request temperatures exist only where the defaults are not 1 (SAMPLING.md, section 2.2).
    """
    attention = model.config._attn_implementation  # noqa: SLF001
    manager = model.init_continuous_batching(
        generation_config=GenerationConfig(
            do_sample=True,
            temperature=TEMPERATURES[0],
            top_p=TOP_P,
            top_k=0,
            pad_token_id=PAD_TOKEN_ID,
            eos_token_id=_NO_END_TOKEN,
        ),
        continuous_batching_config=ContinuousBatchingConfig(
            page_size=PAGE,
            num_blocks=rows * CONTEXT // PAGE,
            max_requests_per_batch=rows,
            per_request_processors=True,
            auto_switch_to_flash=False,
        ),
    )
    manager.start()
    try:
        yield ContinuousBatching(manager)
    finally:
        manager.stop(block=True, hard_stop=True)
        model.set_attn_implementation(attention)
