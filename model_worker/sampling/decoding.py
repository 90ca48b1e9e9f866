"""Decodes the responses to one prompt together: the prompt is read once, then every row draws its own tokens."""

import time
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from contract.sampling import ResponseSpec
from contract.vocabulary import FinishReason
from model_worker.checkpoint import Checkpoint
from model_worker.sampling.detokenise import Detokeniser, readable
from model_worker.sampling.interface import JobError
from model_worker.sampling.nucleus import Draw, draw_tokens


class Row:
    """One response under way."""

    def __init__(self, spec_index: int, spec: ResponseSpec, seed: int, checkpoint: Checkpoint) -> None:
        self.spec_index = spec_index
        self.spec = spec
        self.seed = seed
        self.token_ids: list[int] = []
        self.sum_logprob = 0.0
        self.finish_reason: FinishReason | None = None
        self.first_token_at = 0.0
        self.last_token_at = 0.0
        self._checkpoint = checkpoint
        self._detokeniser = Detokeniser(checkpoint.decode)

    def next_draw(self) -> Draw:
        """How this row's next token is to be drawn."""
        spec = self.spec
        return Draw(spec.temperature, spec.top_p, spec.top_k, self.seed, len(self.token_ids))

    def add(self, token_id: int, logprob: float, *, limit: int) -> str:
        """Take a token and return the text it adds; ends the row at a stop token or at ``limit`` tokens."""
        self.last_token_at = time.monotonic()
        self.first_token_at = self.first_token_at or self.last_token_at
        self.token_ids.append(token_id)
        self.sum_logprob += logprob
        if token_id in self._checkpoint.stop_ids:
            self.finish_reason = FinishReason.STOP
            return self._detokeniser.finish()
        text = self._detokeniser.push(token_id)
        if len(self.token_ids) >= limit:
            self.finish_reason = FinishReason.LENGTH
            text += self._detokeniser.finish()
        return text

    @property
    def text(self) -> str:
        """The whole response so far."""
        is_stopped = self.finish_reason is FinishReason.STOP
        return readable(self._checkpoint.decode(self.token_ids[:-1] if is_stopped else self.token_ids))


class RowGroup:
    """The rows of one job that share a checkpoint, and hence the prompt's keys and values."""

    def __init__(self, checkpoint: Checkpoint, prompt_ids: Sequence[int], rows: Sequence[Row]) -> None:
        """Nothing is computed until the first step.

        Raises:
            JobError: The prompt leaves no room for a response in the checkpoint's context.

        """
        self.checkpoint = checkpoint
        self.prompt_ids = list(prompt_ids)
        self.rows = tuple(rows)
        self._room = checkpoint.context_length - len(self.prompt_ids)
        if self._room < 1:
            msg = (
                f"The conversation is too long for {checkpoint.files.name}: it has {len(self.prompt_ids)} tokens, "
                f"and the checkpoint's context holds {checkpoint.context_length} with the response."
            )
            raise JobError(msg)
        self._active = list(rows)
        self._cache: DynamicCache | None = None

    @property
    def is_done(self) -> bool:
        """Whether every row has ended."""
        return not self._active

    @torch.inference_mode()
    def step(self) -> list[tuple[Row, str]]:
        """One forward pass, one token for each active row; returns the text that each of them grew by."""
        logits = self._prefill() if self._cache is None else self._decode(self._cache)
        tokens, logprobs = draw_tokens(logits, [row.next_draw() for row in self._active])
        grown = [
            (row, row.add(token, logprob, limit=min(row.spec.max_new_tokens, self._room)))
            for row, token, logprob in zip(self._active, tokens.tolist(), logprobs.tolist(), strict=True)
        ]
        self._leave_ended_rows()
        return grown

    def _prefill(self) -> Tensor:
        """Read the prompt as one row, then copy its keys and values: (rows, vocabulary) logits."""
        self._cache = DynamicCache(config=self.checkpoint.model.config)
        prompt = torch.tensor([self.prompt_ids], device=self.checkpoint.device)  # (1, prompt)
        output = self.checkpoint.model(input_ids=prompt, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        self._cache.batch_repeat_interleave(len(self._active))
        logits: Tensor = output.logits[:, -1]
        return logits.expand(len(self._active), -1)

    def _decode(self, cache: DynamicCache) -> Tensor:
        last = torch.tensor([[row.token_ids[-1]] for row in self._active], device=self.checkpoint.device)  # (rows, 1)
        output = self.checkpoint.model(input_ids=last, past_key_values=cache, use_cache=True)
        logits: Tensor = output.logits[:, -1]
        return logits

    def _leave_ended_rows(self) -> None:
        kept = [place for place, row in enumerate(self._active) if row.finish_reason is None]
        if len(kept) == len(self._active):
            return
        self._active = [self._active[place] for place in kept]
        if self._active and self._cache is not None:
            self._cache.batch_select_indices(torch.tensor(kept, device=self.checkpoint.device))
        else:
            self._cache = None  # the memory is free as soon as the last row ends
