"""The engine equals generate(), keeps seeds, shares the prompt, and stops at once."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from contract.sampling import SampledResponse
from contract.vocabulary import FinishReason
from model_worker.checkpoint import Checkpoint
from model_worker.sampling.detokenise import readable
from model_worker.sampling.interface import Sampler, lease_of
from model_worker.sampling.seeds import redraw_seed
from model_worker.sampling.slots.sampler import SlotSampler
from tests.model_worker.jobs import PairJob, RecordingSink, make_job, make_spec

PROMPTS = (
    "read me a story",
    "tea",
    "why is it that the cat and the bird are in the garden this morning?",
    "long " * 60,
)


@contextmanager
def running(*checkpoints: Checkpoint, max_pairs: int = 8) -> Iterator[SlotSampler]:
    engine = SlotSampler(checkpoints, max_pairs=max_pairs)
    try:
        yield engine
    finally:
        engine.close(0.0)


def sample(checkpoint: Checkpoint, *jobs: PairJob) -> list[tuple[SampledResponse, ...]]:
    """The responses of jobs that run at the same time."""
    sink = RecordingSink()
    with running(checkpoint) as engine:
        for job in jobs:
            engine.submit(job, sink)
        sink.wait_for_ends(len(jobs))
    assert not sink.failures
    return [sink.responses[lease_of(job)] for job in jobs]


@contextmanager
def forward_passes(checkpoint: Checkpoint) -> Iterator[list[torch.Size]]:
    """The shapes of ``input_ids`` that the model is called with."""
    shapes: list[torch.Size] = []

    def note(_: Any, __: Any, arguments: dict[str, Any]) -> None:
        shapes.append(arguments["input_ids"].shape)

    hook = checkpoint.model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield shapes
    finally:
        hook.remove()


@contextmanager
def slow(checkpoint: Checkpoint, before_pass: Callable[[], object]) -> Iterator[None]:
    def hook_in(*_: Any) -> None:
        before_pass()

    hook = checkpoint.model.register_forward_pre_hook(hook_in)
    try:
        yield
    finally:
        hook.remove()


def test_it_is_a_sampler(tiny: Checkpoint) -> None:
    with running(tiny) as engine:
        sampler: Sampler = engine
        facts = sampler.facts()
        assert facts.checkpoints == (tiny.files,)
        assert (facts.device, facts.dtype) == ("cpu", "float32")
        assert set(facts.versions) == {"torch", "transformers"}


@pytest.mark.parametrize("fixture", ["tiny", "tiny_without_grouping"])
def test_greedy_output_is_that_of_generate(fixture: str, request: pytest.FixtureRequest) -> None:
    checkpoint: Checkpoint = request.getfixturevalue(fixture)
    digest = checkpoint.files.digest
    jobs = [
        make_job(make_spec(digest, temperature=0.0), make_spec(digest, temperature=0.9, seed=place), prompt=prompt)
        for place, prompt in enumerate(PROMPTS)
    ]
    for job, (greedy, _) in zip(jobs, sample(checkpoint, *jobs), strict=True):
        prompt_ids = torch.tensor([checkpoint.encode(job.messages)])
        generated = checkpoint.model.generate(
            prompt_ids, attention_mask=torch.ones_like(prompt_ids), do_sample=False, max_new_tokens=40
        )
        assert list(greedy.token_ids) == generated[0, prompt_ids.shape[1] :].tolist()
        assert greedy.prompt_tokens == prompt_ids.shape[1]


def test_responses_say_what_was_done(tiny: Checkpoint) -> None:
    specs = [make_spec(tiny.files.digest, seed=seed, temperature=0.8, max_new_tokens=200) for seed in (11, 12)]
    responses = sample(tiny, make_job(*specs))[0]
    for spec, response in zip(specs, responses, strict=True):
        ids = torch.tensor([tiny.encode(make_job().messages) + list(response.token_ids)])
        logprobs = tiny.model(ids).logits[0, response.prompt_tokens - 1 : -1].log_softmax(dim=-1)
        assert response.sum_logprob == pytest.approx(
            logprobs.gather(1, ids[0, response.prompt_tokens :, None]).sum().item(), abs=1e-3
        )
        assert (response.response_id, response.seed) == (spec.response_id, spec.seed)
        assert response.completion_tokens == len(response.token_ids)
        assert response.finish_reason is FinishReason.STOP
        assert response.token_ids[-1] in tiny.stop_ids
        assert response.text == readable(tiny.decode(response.token_ids[:-1]))
        assert 0 < response.first_token_s <= response.total_s


def test_max_new_tokens_ends_a_response(tiny: Checkpoint) -> None:
    specs = [make_spec(tiny.files.digest, seed=seed, max_new_tokens=count) for seed, count in ((1, 1), (3, 3))]
    short, longer = sample(tiny, make_job(*specs))[0]
    assert (short.completion_tokens, longer.completion_tokens) == (1, 3)
    assert short.finish_reason is longer.finish_reason is FinishReason.LENGTH


def test_first_tokens_follow_the_exact_distribution(tiny: Checkpoint) -> None:
    """Through the whole engine: 300 seeds at each of two temperatures, against softmax over the nucleus."""
    count, top_p = 300, 0.9
    ids = torch.tensor([tiny.encode(make_job().messages)])
    with torch.inference_mode():
        logits = tiny.model(ids).logits[0, -1]
    specs = [
        make_spec(tiny.files.digest, seed=seed, temperature=temperature, top_p=top_p, max_new_tokens=1)
        for temperature in (0.7, 1.3)
        for seed in range(count)
    ]
    # One spec a job, since the two of a pair would be drawn again where they are equal.
    engine_jobs = [make_job(spec) for spec in specs]
    sink = RecordingSink()
    with running(tiny, max_pairs=len(engine_jobs)) as engine:
        for job in engine_jobs:
            engine.submit(job, sink)
        sink.wait_for_ends(len(engine_jobs))
    for place, temperature in enumerate((0.7, 1.3)):
        drawn = [sink.responses[lease_of(job)][0].token_ids[0] for job in engine_jobs[place * count :][:count]]
        shares = torch.bincount(torch.tensor(drawn), minlength=logits.shape[0]) / count
        sorted_shares, order = (logits / temperature).softmax(dim=-1).sort(descending=True)
        kept = sorted_shares.cumsum(dim=-1) - sorted_shares < top_p
        expected = torch.zeros_like(logits)
        expected[order] = torch.where(kept, sorted_shares, 0.0) / sorted_shares[kept].sum()
        assert (shares[expected == 0] == 0).all()
        likely = expected * count >= 5
        chi_square = ((shares - expected) ** 2 / expected)[likely].sum().item() * count
        freedom = int(likely.sum()) - 1
        assert chi_square < freedom + 3.5 * (2 * freedom) ** 0.5


def test_a_seed_gives_the_same_response_beside_any_other(tiny: Checkpoint) -> None:
    digest = tiny.files.digest
    fixed = [make_spec(digest, seed=100 + seed, temperature=1.1, top_p=0.95) for seed in range(6)]
    alone = [sample(tiny, make_job(spec))[0][0] for spec in fixed]
    partners = [make_spec(digest, seed=seed, temperature=0.3 + seed / 5) for seed in range(6)]
    first = sample(tiny, *(make_job(spec, partner) for spec, partner in zip(fixed, partners, strict=True)))
    second = sample(tiny, *(make_job(partner, spec) for spec, partner in zip(fixed, reversed(partners), strict=True)))
    assert [response.token_ids for response in alone] == [pair[0].token_ids for pair in first]
    assert [response.token_ids for response in alone] == [pair[1].token_ids for pair in second]
    assert len({response.token_ids for response in alone}) == 6


def test_the_prompt_is_read_once_for_a_pair(tiny: Checkpoint) -> None:
    specs = [make_spec(tiny.files.digest, seed=seed) for seed in (3, 4)]
    with forward_passes(tiny) as shapes:
        responses = sample(tiny, make_job(*specs))[0]
    lengths = sorted(response.completion_tokens for response in responses)
    assert shapes[0] == (1, responses[0].prompt_tokens)
    assert shapes[1:] == [(2, 1)] * (lengths[0] - 1) + [(1, 1)] * (lengths[1] - lengths[0])


def test_two_checkpoints_answer_one_prompt(tiny: Checkpoint, tiny_without_grouping: Checkpoint) -> None:
    both = (tiny, tiny_without_grouping)
    job = make_job(*(make_spec(checkpoint.files.digest, temperature=0.0) for checkpoint in both))
    sink = RecordingSink()
    with running(*both) as engine:
        engine.submit(job, sink)
        sink.wait_for_ends(1)
    responses = sink.responses[lease_of(job)]
    for checkpoint, response in zip(both, responses, strict=True):
        assert response.checkpoint_digest == checkpoint.files.digest
        assert (
            response.token_ids
            == sample(checkpoint, make_job(make_spec(checkpoint.files.digest, temperature=0.0)))[0][0].token_ids
        )


def test_text_streams_and_adds_up(tiny: Checkpoint) -> None:
    sink = RecordingSink()
    job = make_job(*(make_spec(tiny.files.digest, seed=seed) for seed in (5, 6)))
    with running(tiny) as engine:
        engine.submit(job, sink)
        sink.wait_for_ends(1)
    for place, response in enumerate(sink.responses[lease_of(job)]):
        assert sink.texts[lease_of(job)][place].strip() == response.text


def test_cancel_stops_before_the_next_pass_and_others_go_on(tiny: Checkpoint) -> None:
    sink, digest = RecordingSink(), tiny.files.digest
    gate = threading.Event()
    stopped, other = make_job(make_spec(digest), make_spec(digest, seed=2)), make_job(make_spec(digest, seed=3))
    with slow(tiny, lambda: gate.wait(10)), forward_passes(tiny) as shapes, running(tiny) as engine:
        engine.submit(stopped, sink)
        engine.cancel(lease_of(stopped))
        engine.submit(other, sink)
        gate.set()
        sink.wait_for_ends(2)
        assert engine.capacity() == 8
    assert sink.cancellations == [lease_of(stopped)]
    assert lease_of(other) in sink.responses
    assert sum(shape[0] == 2 for shape in shapes) == 0


def test_slots_that_responses_have_left_are_filled_before_their_pairs_end(tiny: Checkpoint) -> None:
    digest = tiny.files.digest
    passes, goes_on = [], threading.Event()

    def hold(*_: object) -> None:
        passes.append(None)
        # The prompts are read, and the short responses have their only token.
        if len(passes) > 1:
            assert goes_on.wait(20)

    hook = tiny.model.register_forward_pre_hook(hold)
    sink = RecordingSink()
    jobs = [
        make_job(make_spec(digest, seed=seed, max_new_tokens=1), make_spec(digest, seed=seed + 10), prompt="tea")
        for seed in range(3)
    ]
    try:
        with running(tiny, max_pairs=2) as engine:
            for job in jobs[:2]:
                engine.submit(job, sink)
            while len(passes) < 2:
                time.sleep(0.01)
            assert not sink.responses
            assert engine.capacity() == 1
            engine.submit(jobs[2], sink)
            assert engine.capacity() == 0
            goes_on.set()
            sink.wait_for_ends(3)
    finally:
        hook.remove()
    assert not sink.failures


def test_capacity_counts_pairs(tiny: Checkpoint) -> None:
    gate, sink = threading.Event(), RecordingSink()
    with slow(tiny, lambda: gate.wait(10)), running(tiny, max_pairs=2) as engine:
        assert engine.capacity() == 2
        engine.submit(make_job(make_spec(tiny.files.digest)), sink)
        assert engine.capacity() == 1
        gate.set()
        sink.wait_for_ends(1)


def test_equal_texts_are_drawn_again_with_a_recorded_seed(tiny: Checkpoint) -> None:
    digest = tiny.files.digest
    asked = make_spec(digest, seed=9, temperature=0.9)
    first, second = sample(tiny, make_job(asked, make_spec(digest, seed=9, temperature=0.9)))[0]
    assert first.seed == 9
    assert second.seed == redraw_seed(9, 1)
    assert first.text != second.text
    # The record is enough to draw the response again.
    again = sample(tiny, make_job(make_spec(digest, seed=second.seed, temperature=0.9)))[0][0]
    assert again.token_ids == second.token_ids


def test_the_response_that_can_change_is_drawn_again(tiny: Checkpoint) -> None:
    digest = tiny.files.digest
    nearly_greedy = make_spec(digest, seed=9, temperature=1e-4)
    first, second = sample(tiny, make_job(nearly_greedy, make_spec(digest, temperature=0.0)))[0]
    assert first.text == second.text
    assert first.seed == redraw_seed(9, 4)
    assert second.seed == 1


def test_greedy_pairs_are_sent_as_they_are(tiny: Checkpoint) -> None:
    specs = [make_spec(tiny.files.digest, temperature=0.0, seed=seed) for seed in (1, 2)]
    with forward_passes(tiny) as shapes:
        first, second = sample(tiny, make_job(*specs))[0]
    assert first.text == second.text
    assert (first.seed, second.seed) == (1, 2)
    assert sum(shape[1] > 1 for shape in shapes) == 1


def test_a_long_prompt_shortens_the_response(tiny: Checkpoint) -> None:
    prompt = "x" * 490
    prompt_tokens = len(tiny.encode(make_job(prompt=prompt).messages))
    room = tiny.context_length - prompt_tokens
    assert 0 < room < 20
    spec = make_spec(tiny.files.digest, temperature=3.0, max_new_tokens=400)
    response = sample(tiny, make_job(spec, prompt=prompt))[0][0]
    assert response.completion_tokens == room
    assert response.finish_reason is FinishReason.LENGTH


def test_a_prompt_without_room_fails_for_good(tiny: Checkpoint) -> None:
    sink, job = RecordingSink(), make_job(make_spec(tiny.files.digest), prompt="long " * 600)
    with running(tiny) as engine:
        engine.submit(job, sink)
        sink.wait_for_ends(1)
    reason, is_retryable = sink.failures[lease_of(job)]
    assert "too long for tiny" in reason
    assert not is_retryable


def test_a_pass_that_raises_fails_its_job_alone(tiny: Checkpoint) -> None:
    sink, passes = RecordingSink(), iter(range(1000))

    def break_first() -> None:
        if next(passes) == 0:
            msg = "no memory left"
            raise RuntimeError(msg)

    jobs = [make_job(make_spec(tiny.files.digest, seed=seed)) for seed in (1, 2)]
    with slow(tiny, break_first), running(tiny) as engine:
        engine.submit(jobs[0], sink)
        sink.wait_for_ends(1)
        engine.submit(jobs[1], sink)
        sink.wait_for_ends(2)
    assert sink.failures == {lease_of(jobs[0]): ("RuntimeError: no memory left", True)}
    assert lease_of(jobs[1]) in sink.responses


def test_an_unknown_checkpoint_may_be_another_workers(tiny: Checkpoint) -> None:
    sink, job = RecordingSink(), make_job(make_spec("f" * 64))
    with running(tiny) as engine:
        engine.submit(job, sink)
        sink.wait_for_ends(1)
    assert "does not serve the checkpoint ffff" in sink.returns[lease_of(job)]


def test_close_cancels_what_does_not_end_in_time(tiny: Checkpoint) -> None:
    sink, pause = RecordingSink(), threading.Event()
    job = make_job(make_spec(tiny.files.digest, temperature=3.0, max_new_tokens=400))
    with slow(tiny, lambda: pause.wait(0.05)), running(tiny) as engine:
        engine.submit(job, sink)
        sink.wait_for_text()
        engine.close(0.0)
        engine.submit(job, sink)
    assert sink.cancellations == [lease_of(job)]
    assert "stopping" in sink.returns[lease_of(job)]


def test_stop_tokens_of_a_spec_end_its_response(tiny: Checkpoint) -> None:
    plain = make_spec(tiny.files.digest, seed=4)
    whole = sample(tiny, make_job(plain))[0][0]
    stop = whole.token_ids[2]
    ended = sample(tiny, make_job(plain.model_copy(update={"stop_token_ids": (stop,)})))[0][0]
    assert ended.token_ids == whole.token_ids[: whole.token_ids.index(stop) + 1]
    assert ended.finish_reason is FinishReason.STOP
    assert set(ended.stop_token_ids) == tiny.stop_ids | {stop}


def test_out_of_memory_gives_the_newest_back_and_goes_on(tiny: Checkpoint) -> None:
    tried = [make_job(make_spec(tiny.files.digest, seed=seed, temperature=3.0)) for seed in range(12)]
    alone = {lease_of(job): pair[0].token_ids for job, pair in zip(tried, sample(tiny, *tried), strict=True)}
    # Only those that are still under way when memory runs out.
    jobs = [job for job in tried if len(alone[lease_of(job)]) >= 8][:4]
    assert len(jobs) == 4
    sink, gate, passes = RecordingSink(), threading.Event(), iter(range(100_000))

    def run_out() -> None:
        gate.wait(10)
        if next(passes) == 3:
            raise torch.OutOfMemoryError

    with slow(tiny, run_out), running(tiny, max_pairs=4) as engine:
        for job in jobs:
            engine.submit(job, sink)
        gate.set()
        sink.wait_for_ends(4)
        # Four single rows were too many, so that two are allowed: one pair.
        assert engine.capacity() == engine.facts().max_pairs == 1
    assert set(sink.returns) == {lease_of(job) for job in jobs[2:]}
    assert {lease: pair[0].token_ids for lease, pair in sink.responses.items()} == {
        lease_of(job): alone[lease_of(job)] for job in jobs[:2]
    }
