"""The two forward passes of the slot engine: reading prompts, and one more token for each row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from model_worker.sampling.slots.cache import PromptPlacement, SlotCache, TokenPlacement


class DecodeForward(Protocol):
    """One token for each of the first slots. An implementation may record its work and play it again."""

    def __call__(self, input_ids: Tensor, position_ids: Tensor, lengths: Tensor, bucket: int) -> Tensor:
        """Run the model.

        Args:
            input_ids: int64 (rows, 1), the last token of each row.
            position_ids: int64 (rows, 1), where these tokens stand.
            lengths: int32 (rows,), how many tokens each row attends to, the new one included.
            bucket: At least the largest of ``lengths``.

        Returns:
            Logits for the next token, (rows, vocabulary), which the next call may overwrite.

        """


@dataclass(frozen=True, slots=True)
class EagerDecode:
    """Launches every kernel anew, and hides by a mask what lies behind the length of a row."""

    model: PreTrainedModel
    cache: SlotCache

    def __call__(self, input_ids: Tensor, position_ids: Tensor, lengths: Tensor, bucket: int) -> Tensor:
        """See :class:`DecodeForward`."""
        return self.run(input_ids, position_ids, lengths, bucket)

    def run(
        self, input_ids: Tensor, position_ids: Tensor, lengths: Tensor, bucket: int, **for_attention: object
    ) -> Tensor:
        """The same; ``for_attention`` reaches the model's attention as it is."""
        rows = torch.arange(input_ids.shape[0], device=input_ids.device)
        self.cache.place(TokenPlacement(rows, position_ids[:, 0], bucket))
        is_visible = torch.arange(bucket, device=input_ids.device) < lengths[:, None]  # (rows, bucket)
        output: Any = self.model(
            input_ids=input_ids,
            position_ids=position_ids,
            # A mask of four dimensions, (rows, heads, new tokens, bucket), is taken as it is.
            attention_mask=is_visible[:, None, None, :],
            past_key_values=self.cache,
            use_cache=True,
            **for_attention,
        )
        logits: Tensor = output.logits[:, -1]
        return logits


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt to read, and the slots of all responses to it."""

    token_ids: Sequence[int]
    slots: Sequence[int]


# Reading one long prompt is as fast as reading several short ones, and no padding is computed. Together they are
# read where a pass is too small to fill the device.
_SMALL_PASS: Final = 256


def batches(prompts: Sequence[Prompt]) -> list[list[int]]:
    """Which prompts are read in one pass, as places in ``prompts``: like lengths, since the shorter are padded."""
    order = sorted(range(len(prompts)), key=lambda place: len(prompts[place].token_ids))
    groups: list[list[int]] = []
    for place in order:
        longest = len(prompts[place].token_ids)
        if groups and longest * (len(groups[-1]) + 1) <= _SMALL_PASS:
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups


def read_prompts(model: PreTrainedModel, cache: SlotCache, prompts: Sequence[Prompt]) -> Tensor:
    """Write the keys and values of prompts into all their slots; each prompt is computed once.

    Returns:
        Logits for the first token of a response to each prompt, (prompts, vocabulary).

    """
    logits: list[Tensor] = [torch.empty(0)] * len(prompts)
    for group in batches(prompts):
        for place, row in zip(group, _read(model, cache, [prompts[place] for place in group]), strict=True):
            logits[place] = row
    return torch.stack(logits)


def _read(model: PreTrainedModel, cache: SlotCache, prompts: Sequence[Prompt]) -> Tensor:
    """One causal pass without a mask over prompts padded on the right: (prompts, vocabulary)."""
    device = model.device
    longest = max(len(prompt.token_ids) for prompt in prompts)
    padded = [[*prompt.token_ids, *[0] * (longest - len(prompt.token_ids))] for prompt in prompts]
    places = [(slot, place) for place, prompt in enumerate(prompts) for slot in prompt.slots]
    slots, sources = torch.tensor(places, dtype=torch.int64, device=device).unbind(dim=1)
    cache.place(PromptPlacement(slots, sources))
    last = torch.tensor([len(prompt.token_ids) - 1 for prompt in prompts], dtype=torch.int64, device=device)
    # The vocabulary is large: logits are computed where some prompt ends, and nowhere else.
    ends, end_of = last.unique(return_inverse=True)  # type: ignore[no-untyped-call]
    output: Any = model(
        input_ids=torch.tensor(padded, dtype=torch.int64, device=device),
        position_ids=torch.arange(longest, device=device).expand(len(prompts), -1),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=ends,
    )
    logits: Tensor = output.logits  # (prompts, ends, vocabulary)
    return logits[torch.arange(len(prompts), device=device), end_of]
