"""The sampler without a model."""

import subprocess
import sys

from contract.sampling import SampledResponse
from contract.vocabulary import FinishReason
from model_worker.sampling.interface import Sampler, lease_of
from model_worker.sampling.lorem import LoremSampler, lorem_checkpoint
from tests.model_worker.jobs import PairJob, RecordingSink, make_job, make_spec

DIGEST = lorem_checkpoint().digest


def sample(job: PairJob) -> tuple[SampledResponse, ...]:
    sampler: Sampler = LoremSampler(max_pairs=2, word_s=0.0)
    sink = RecordingSink()
    sampler.submit(job, sink)
    sink.wait_for_ends(1)
    sampler.close(1.0)
    responses = sink.responses[lease_of(job)]
    assert [sink.texts[lease_of(job)][place] for place in range(len(responses))] == [
        response.text for response in responses
    ]
    return responses


def test_words_are_seeded_and_readable() -> None:
    job = make_job(*(make_spec(DIGEST, seed=seed, max_new_tokens=200) for seed in (1, 2)))
    first, second = sample(job)
    assert first.text != second.text
    assert first.text.endswith(".")
    assert first.text[0].isupper()
    assert first.finish_reason is FinishReason.STOP
    assert [response.text for response in sample(job)] == [first.text, second.text]


def test_equal_seeds_are_drawn_again() -> None:
    first, second = sample(make_job(make_spec(DIGEST, seed=1), make_spec(DIGEST, seed=1)))
    assert first.text != second.text
    assert first.seed == 1
    assert second.seed != 1


def test_max_new_tokens_cuts() -> None:
    (response,) = sample(make_job(make_spec(DIGEST, max_new_tokens=4)))
    assert len(response.text.split()) == response.completion_tokens == 4
    assert response.finish_reason is FinishReason.LENGTH


def test_its_checkpoint_never_changes() -> None:
    assert lorem_checkpoint() == lorem_checkpoint()
    assert DIGEST == "cc0e16e791e0a889383b022fa5fe9925e7af21248b3b8048ec2bc18e1d1af4a2"
    assert lorem_checkpoint("other").digest != DIGEST


def test_it_needs_no_torch() -> None:
    program = (
        "import sys, model_worker.sampling.lorem, model_worker.cli; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'app', 'sqlalchemy')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
