"""Finds out before the first job whether a server does as it is asked: temperature, top_p, seed, one request each.

Some servers take these parameters and ignore them; ``transformers serve`` does so in three ways (SAMPLING.md, 1.3).
A record of such a response would be a lie, hence the server is refused.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from contract.conversation import Message
from contract.vocabulary import Role
from model_worker.sampling.openai_compat.dialect import DrawRequest
from model_worker.sampling.openai_compat.drawing import Drawer, Drawn
from model_worker.sampling.openai_compat.errors import UnfaithfulServerError
from model_worker.sampling.openai_compat.served import ServedCheckpoint
from model_worker.sampling.openai_compat.together import together

log = logging.getLogger(__name__)

_PROMPT: Final = "Write the beginning of a story about a garden."
_TOKENS: Final = 16
_HOT: Final = 1.5
# So small that only the most likely token is left.
_NARROW_TOP_P: Final = 1e-4
_SEEDS: Final = (11, 22, 33)
# In bfloat16 two logits may be so close that another batch turns them round: a good server may fail once.
_TRIES: Final = 2
# How far the logprobs of one text, drawn twice, may be apart, in nats per token.
_LOGPROB_TOLERANCE: Final = 0.05


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the probe found out about a server that does as it is asked."""

    is_seeded: bool
    has_raw_logprobs: bool
    """Whether its logprobs are those before temperature and top_p."""
    weight_version: str | None


@dataclass(frozen=True, slots=True)
class _Findings:
    greedy: Drawn
    greedy_again: tuple[Drawn, ...]
    """The first right after, the others in the company of hot requests."""
    narrow: Drawn
    hot: tuple[Drawn, ...]
    hot_again: tuple[Drawn, ...]


def probe_request(checkpoint: ServedCheckpoint) -> DrawRequest:
    """The request that all requests of the probe are like; greedy."""
    prompt_ids = tuple(checkpoint.encode([Message(role=Role.USER, content=_PROMPT)]))
    return _request(checkpoint, prompt_ids, temperature=0.0)


async def probe(drawer: Drawer, *, accepts_unseeded: bool) -> Verdict:
    """Draw some short responses and compare them.

    Args:
        drawer: For the server and its checkpoint.
        accepts_unseeded: Whether a server may ignore the seed.

    Raises:
        UnfaithfulServerError: The server ignores a part of what it is asked; the message says which.
        ServerError: It does not answer.

    """
    for tries_left in reversed(range(_TRIES)):
        found = await _ask(drawer)
        fault = _temperature_fault(found) or _seed_fault(found, accepts_unseeded=accepts_unseeded)
        if fault is None:
            break
        log.warning("the server's answers do not fit together", extra={"reason": fault, "tries_left": tries_left})
    if fault is not None:
        raise UnfaithfulServerError(fault)
    return Verdict(
        is_seeded=_is_seeded(found),
        has_raw_logprobs=_has_raw_logprobs(found),
        weight_version=found.greedy.weight_version,
    )


async def _ask(drawer: Drawer) -> _Findings:
    prompt_ids = tuple(drawer.checkpoint.encode([Message(role=Role.USER, content=_PROMPT)]))

    def ask(temperature: float, *, seed: int = 0, top_p: float = 1.0) -> DrawRequest:
        return _request(drawer.checkpoint, prompt_ids, temperature=temperature, seed=seed, top_p=top_p)

    greedy = await drawer.draw(ask(0.0))
    again = await drawer.draw(ask(0.0))
    narrow = await drawer.draw(ask(_HOT, top_p=_NARROW_TOP_P))
    # Together, since a server may keep the parameters of whatever came first, or seed one generator for all; and once
    # more in another order, in which such a generator gives other responses.
    first = await _draw_all(drawer, [*(ask(_HOT, seed=seed) for seed in _SEEDS), ask(0.0)])
    second = await _draw_all(drawer, [ask(0.0), *(ask(_HOT, seed=seed) for seed in reversed(_SEEDS))])
    return _Findings(
        greedy=greedy,
        greedy_again=(again, first[-1], second[0]),
        narrow=narrow,
        hot=tuple(first[:-1]),
        hot_again=tuple(reversed(second[1:])),
    )


async def _draw_all(drawer: Drawer, requests: Sequence[DrawRequest]) -> list[Drawn]:
    return await together([drawer.draw(request) for request in requests])


def _request(
    checkpoint: ServedCheckpoint, prompt_ids: tuple[int, ...], *, temperature: float, seed: int = 0, top_p: float = 1.0
) -> DrawRequest:
    return DrawRequest(
        request_id=f"probe-{temperature}-{top_p}-{seed}",
        prompt_ids=prompt_ids,
        prompt_text=checkpoint.spell(prompt_ids),
        temperature=temperature,
        top_p=top_p,
        top_k=0,
        seed=seed,
        max_new_tokens=_TOKENS,
        stop_token_ids=tuple(sorted(checkpoint.stop_ids)),
    )


def _temperature_fault(found: _Findings) -> str | None:
    greedy = found.greedy.text
    hot = [drawn.text for drawn in (*found.hot, *found.hot_again)]
    if found.greedy_again[0].text != greedy:
        return (
            "The server draws at random although temperature 0 was asked for: it ignores the temperature, or keeps "
            "another request's. (transformers serve --continuous-batching keeps the first request's.)"
        )
    if all(text == greedy for text in hot):
        return (
            f"The server ignores the temperature: {len(hot)} responses at temperature {_HOT} are those of temperature "
            "0. (transformers serve does so where generation_config.json lacks do_sample: true, and, with "
            "--continuous-batching, where the first request was greedy.)"
        )
    if found.greedy_again[1].text != greedy and found.greedy_again[2].text != greedy:
        return "The server gives requests that it works on together each other's temperature."
    if found.narrow.text != greedy:
        return f"The server ignores top_p: with top_p {_NARROW_TOP_P} the response is not the most likely one."
    return None


def _seed_fault(found: _Findings, *, accepts_unseeded: bool) -> str | None:
    if len({drawn.text for drawn in (*found.hot, *found.hot_again)}) == 1:
        return "The server gives the same response whatever the seed: one seed for all would make pairs equal."
    if not accepts_unseeded and not _is_seeded(found):
        return (
            "The server ignores the seed, or honours it only for a request that is alone: its responses could not be "
            "drawn again from their records. (SGLang needs --enable-deterministic-inference.) To accept that, set "
            "PREFERABLY_WORKER_OPENAI_ACCEPTS_UNSEEDED=true; the records will say so."
        )
    return None


def _is_seeded(found: _Findings) -> bool:
    """Whether most seeds gave their response again; all but one, for the sake of rounding."""
    equal = sum(one.text == other.text for one, other in zip(found.hot, found.hot_again, strict=True))
    return equal >= len(_SEEDS) - 1


def _has_raw_logprobs(found: _Findings) -> bool:
    """Whether the greedy response has the same logprob when it is drawn hot: then temperature and top_p come after."""
    cold, hot = found.greedy.sum_logprob, found.narrow.sum_logprob
    tolerance = _LOGPROB_TOLERANCE * found.greedy.completion_tokens
    return cold is not None and hot is not None and abs(cold - hot) <= tolerance
