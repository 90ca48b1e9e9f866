"""Three ways to sample pairs with transformers' `generate()`, for `benchmarks.sampling`."""

import time
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel, StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from benchmarks._sampling_clock import Timing
from benchmarks._sampling_workload import TEMPERATURES, TOP_P, Pair
from model_worker.demo.template import PAD_TOKEN_ID


class TwoCalls:
    """Two calls for each prompt, one prompt at a time: what is written first."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model

    def sample(self, pairs: Sequence[Pair]) -> list[Timing]:
        """One response after the other."""
        timings = []
        for pair in pairs:
            for response, temperature in enumerate(TEMPERATURES):
                timings += _generate(self._model, [(pair, response)], _config(temperature))
        return timings


class BatchedCalls:
    """All prompts at the one temperature in a call, then all at the other."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model

    def sample(self, pairs: Sequence[Pair]) -> list[Timing]:
        """Two calls."""
        timings = []
        for response, temperature in enumerate(TEMPERATURES):
            timings += _generate(self._model, [(pair, response) for pair in pairs], _config(temperature))
        return timings


class OneCall:
    """Both responses of all prompts in a call, in which every row has its own temperature."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model

    def sample(self, pairs: Sequence[Pair]) -> list[Timing]:
        """One call."""
        rows = [(pair, response) for pair in pairs for response in range(len(TEMPERATURES))]
        temperatures = [TEMPERATURES[response] for _, response in rows]
        # The nucleus is cut at each row's temperature, so the processor does what top_p would do after it.
        return _generate(self._model, rows, _config(1.0, top_p=1.0), PerRow(temperatures, self._model.device))


class PerRow(LogitsProcessor):
    """Temperature and nucleus for each row."""

    def __init__(self, temperatures: Sequence[float], device: torch.device) -> None:
        self._temperatures = torch.tensor(temperatures, device=device)[:, None]  # (rows, 1)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: ARG002
        """Scores are (rows, vocabulary); those outside the nucleus become -inf."""
        scaled = scores / self._temperatures
        ascending, order = scaled.sort(dim=-1)
        is_outside = ascending.softmax(dim=-1).cumsum(dim=-1) <= 1 - TOP_P
        is_outside[:, -1] = False
        return scaled.masked_fill(is_outside.scatter(1, order, is_outside), -torch.inf)


class _EndsAt(StoppingCriteria):
    """Ends each row at its own length; `generate` pads it until the last one has ended."""

    def __init__(self, ends: Sequence[int], device: torch.device) -> None:
        self._ends = torch.tensor(ends, device=device)  # (rows,)

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: object) -> Tensor:  # noqa: ARG002
        return input_ids.shape[1] >= self._ends


class _Stopwatch(BaseStreamer):
    """Notes when each token of a batch was there; `generate` hands it the prompt first."""

    def __init__(self) -> None:
        self.moments: list[float] = []

    def put(self, value: Tensor) -> None:  # noqa: ARG002
        """A token for each row, or the prompts."""
        self.moments.append(time.perf_counter())

    def end(self) -> None:
        """Nothing to flush."""


def greedy(model: PreTrainedModel, pair: Pair, tokens: int) -> list[int]:
    """The likeliest tokens, one after the other."""
    prompt = torch.tensor([pair.prompt_ids], device=model.device)
    config = GenerationConfig(do_sample=False, max_new_tokens=tokens, pad_token_id=PAD_TOKEN_ID, top_k=0)
    generated = model.generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=config)
    return generated[0, prompt.shape[1] :].tolist()


def forget_end_token(model: PreTrainedModel) -> None:
    """Let nothing but its length end a response: `generate` asks the model where a call names no end token."""
    model.generation_config = GenerationConfig(pad_token_id=PAD_TOKEN_ID)
    model.config.eos_token_id = None


def _config(temperature: float, *, top_p: float = TOP_P) -> GenerationConfig:
    return GenerationConfig(do_sample=True, temperature=temperature, top_p=top_p, top_k=0, pad_token_id=PAD_TOKEN_ID)


def _generate(
    model: PreTrainedModel,
    rows: Sequence[tuple[Pair, int]],
    config: GenerationConfig,
    processor: LogitsProcessor | None = None,
) -> list[Timing]:
    """One call for these rows, padded on the left."""
    width = max(len(pair.prompt_ids) for pair, _ in rows)
    pads = [width - len(pair.prompt_ids) for pair, _ in rows]
    padded = [[PAD_TOKEN_ID] * pad + list(pair.prompt_ids) for (pair, _), pad in zip(rows, pads, strict=True)]
    prompts = torch.tensor(padded)  # (rows, width)
    mask = torch.arange(width) >= torch.tensor(pads)[:, None]  # (rows, width)
    lengths = [pair.lengths[response] for pair, response in rows]
    stopwatch = _Stopwatch()
    config.max_new_tokens = max(lengths)
    generated = model.generate(
        prompts.to(model.device),
        attention_mask=mask.long().to(model.device),
        generation_config=config,
        logits_processor=LogitsProcessorList([processor] if processor else []),
        stopping_criteria=[_EndsAt([width + length for length in lengths], model.device)],
        streamer=stopwatch,
    )
    if generated.shape[1] != width + max(lengths):
        msg = f"generate() drew {generated.shape[1] - width} tokens in place of {max(lengths)}"
        raise RuntimeError(msg)
    moments = stopwatch.moments[1:]
    return [
        Timing(pair, response, moments[0], moments[length - 1], length)
        for (pair, response), length in zip(rows, lengths, strict=True)
    ]
