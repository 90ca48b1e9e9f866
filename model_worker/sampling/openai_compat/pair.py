"""One job: its responses are drawn at once, and one of two equal texts is drawn again."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from contract.digests import token_digest
from contract.sampling import PairJob, ResponseSpec, SampledResponse
from model_worker.errors import EncodingError
from model_worker.sampling.interface import JobError
from model_worker.sampling.openai_compat.dialect import DrawRequest
from model_worker.sampling.openai_compat.drawing import Drawer, Drawn
from model_worker.sampling.openai_compat.served import ServedCheckpoint
from model_worker.sampling.openai_compat.together import together
from model_worker.sampling.redraw import next_redraw

# Says that the response of the spec with this index grew by a text.
SayOf = Callable[[int, str], None]


@dataclass(frozen=True, slots=True)
class Provenance:
    """What every response's record says of where it was drawn."""

    engine: str
    dtype: str
    device: str
    has_raw_logprobs: bool


@dataclass(frozen=True, slots=True)
class Place:
    """Where a job is drawn."""

    drawer: Drawer
    provenance: Provenance
    context_length: int
    """The checkpoint's, or the server's where that is shorter; in tokens of prompt and response."""
    ranks: int
    """How many data-parallel engines the server chooses among."""


async def draw_job(job: PairJob, place: Place, say: SayOf) -> tuple[SampledResponse, ...]:
    """Draw all responses of a job, which must be for the place's checkpoint.

    Args:
        job: What to draw.
        place: Where to draw it.
        say: Called with each text that a response grew by; not for one that is drawn again.

    Raises:
        JobError: The job cannot be done.
        ServerError: The server did not do it.

    """
    claimed_at = time.monotonic()
    requests = _requests(job, place)

    def say_of(spec_index: int) -> Callable[[str], None]:
        return lambda text: say(spec_index, text)

    drawn = await together([place.drawer.draw(request, say_of(index)) for index, request in enumerate(requests)])
    redraws = 0
    while redraw := next_redraw(job.specs, [one.text for one in drawn], redraws=redraws):
        redraws += 1
        request = replace(requests[redraw.spec_index], seed=redraw.seed)
        drawn[redraw.spec_index] = await place.drawer.draw(request)
    return tuple(
        _response(spec, request, one, place.provenance, claimed_at)
        for spec, request, one in zip(job.specs, requests, drawn, strict=True)
    )


def _requests(job: PairJob, place: Place) -> list[DrawRequest]:
    checkpoint = place.drawer.checkpoint
    try:
        prompt_ids = tuple(checkpoint.encode(job.messages))
    except EncodingError as error:
        msg = f"{checkpoint.files.name}: {error}"
        raise JobError(msg) from error
    room = place.context_length - len(prompt_ids)
    if room < 1:
        msg = (
            f"The conversation has {len(prompt_ids)} tokens, and the checkpoint's context holds "
            f"{place.context_length} with the response."
        )
        raise JobError(msg)
    prompt_text = checkpoint.spell(prompt_ids)
    # Jobs are spread over the engines; the responses of one share an engine, and so its cache of the prompt.
    rank = job.job_id.int % place.ranks if place.ranks > 1 else None
    return [
        DrawRequest(
            request_id=f"{job.job_id}-{job.attempt}-{'abcdefgh'[index % 8]}",
            prompt_ids=prompt_ids,
            prompt_text=prompt_text,
            temperature=spec.temperature,
            top_p=spec.top_p,
            top_k=spec.top_k,
            seed=spec.seed,
            max_new_tokens=min(spec.max_new_tokens, room),
            stop_token_ids=_stop_ids(spec, checkpoint),
            extra_stop_token_ids=tuple(sorted(set(spec.stop_token_ids) - checkpoint.stop_ids)),
            rank=rank,
        )
        for index, spec in enumerate(job.specs)
    ]


def _stop_ids(spec: ResponseSpec, checkpoint: ServedCheckpoint) -> tuple[int, ...]:
    return tuple(sorted(checkpoint.stop_ids | set(spec.stop_token_ids)))


def _response(
    spec: ResponseSpec, request: DrawRequest, drawn: Drawn, provenance: Provenance, claimed_at: float
) -> SampledResponse:
    return SampledResponse(
        response_id=spec.response_id,
        checkpoint_digest=spec.checkpoint_digest,
        seed=drawn.seed,
        text=drawn.text,
        token_ids=drawn.token_ids,
        prompt_digest=token_digest(request.prompt_ids),
        stop_token_ids=request.stop_token_ids,
        prompt_tokens=len(request.prompt_ids),
        completion_tokens=drawn.completion_tokens,
        finish_reason=drawn.finish_reason,
        sum_logprob=drawn.sum_logprob if provenance.has_raw_logprobs else None,
        first_token_s=drawn.first_token_at - claimed_at,
        total_s=drawn.last_token_at - claimed_at,
        engine=provenance.engine,
        dtype=provenance.dtype,
        device=provenance.device,
    )
