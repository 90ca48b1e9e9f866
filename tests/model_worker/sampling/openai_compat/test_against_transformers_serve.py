"""The client against real processes of ``transformers serve``, which has quirks that the probe must find.

With ``do_sample: true`` in the checkpoint's generation_config.json its plain mode honours the temperature. It has one
random generator for all requests, hence no seeds that hold.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from contract.checkpoint_files import CheckpointFiles, inspect_checkpoint
from contract.conversation import Message
from contract.sampling import PairJob, ResponseSpec
from contract.vocabulary import FinishReason, Role
from model_worker.sampling.openai_compat.connection import ServerOptions
from model_worker.sampling.openai_compat.errors import UnfaithfulServerError
from model_worker.sampling.openai_compat.sampler import OpenAICompatSampler
from tests.model_worker.sampling.openai_compat.recording_sink import RecordingSink

START_S = 300.0


@pytest.fixture(scope="module")
def faithful(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that ``transformers serve`` samples from at the temperature it is asked for."""
    folder = Path(shutil.copytree(tiny_folder, tmp_path_factory.mktemp("serve") / "faithful"))
    file = folder / "generation_config.json"
    # Without top_k the library's default of 50 would count, which a request cannot change.
    file.write_text(json.dumps(json.loads(file.read_text()) | {"do_sample": True, "top_k": 0}))
    return folder


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Addresses of two servers: the plain one, and one with continuous batching. Each loads what it is asked for."""
    log = tmp_path_factory.mktemp("logs")
    with started(log / "plain") as plain, started(log / "batching", "--continuous-batching") as batching:
        for url, file in ((plain, log / "plain"), (batching, log / "batching")):
            wait_until_healthy(url, file)
        yield plain, batching


@contextmanager
def started(log: Path, *options: str) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [Path(sys.executable).parent / "transformers", "serve", "--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--device", "cpu", *options], stdout=output, stderr=subprocess.STDOUT, env=environment
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def wait_until_healthy(url: str, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/health").is_success:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    pytest.fail(f"transformers serve did not start: {log.read_text()[-2000:]}")


def connect(url: str, folder: Path, *, accepts_unseeded: bool = False) -> OpenAICompatSampler:
    options = ServerOptions(url=url, model=str(folder), dialect="openai", retries=1, accepts_unseeded=accepts_unseeded)
    return OpenAICompatSampler(options, folder, inspect_checkpoint(folder), max_pairs=2)


def job_for(files: CheckpointFiles) -> PairJob:
    specs = tuple(
        ResponseSpec(
            response_id=uuid4(),
            checkpoint_digest=files.digest,
            temperature=temperature,
            top_p=0.95,
            top_k=0,
            seed=seed,
            max_new_tokens=24,
        )
        for temperature, seed in ((0.7, 1), (1.2, 2))
    )
    prompt = Message(role=Role.USER, content="What grows in a garden?")
    return PairJob(job_id=uuid4(), attempt=1, messages=(prompt,), specs=specs)


def test_a_faithful_server_draws_whole_pairs(servers: tuple[str, str], faithful: Path) -> None:
    files, sink = inspect_checkpoint(faithful), RecordingSink()
    sampler = connect(servers[0], faithful, accepts_unseeded=True)
    try:
        jobs = [job_for(files) for _ in range(2)]
        for job in jobs:
            sampler.submit(job, sink)
        for job in jobs:
            one, other = sink.wait_done(job)
            assert one.text != other.text
            for response in (one, other):
                assert response.text
                assert response.token_ids
                assert 1 <= response.completion_tokens <= 24
                assert response.finish_reason in FinishReason
                assert response.engine == "openai/unnamed (ids from text, unseeded)"
                assert response.sum_logprob is None, "this server gives no logprobs"
            assert sink.texts(job) == [one.text, other.text]
    finally:
        sampler.close(0.0)


def test_one_generator_for_all_requests_is_no_seed(servers: tuple[str, str], faithful: Path) -> None:
    with pytest.raises(UnfaithfulServerError, match=r"honours it only for a request that is alone"):
        connect(servers[0], faithful)


def test_a_checkpoint_without_do_sample_ignores_the_temperature(servers: tuple[str, str], tiny_folder: Path) -> None:
    with pytest.raises(UnfaithfulServerError, match="ignores the temperature"):
        connect(servers[0], tiny_folder, accepts_unseeded=True)


def test_continuous_batching_keeps_the_first_requests_temperature(servers: tuple[str, str], faithful: Path) -> None:
    with pytest.raises(UnfaithfulServerError, match="ignores the temperature"):
        connect(servers[1], faithful, accepts_unseeded=True)
