"""The client against a scripted server: each dialect's wire format, and everything that goes wrong on the way."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from transformers import PreTrainedTokenizerBase

from contract.checkpoint_files import CheckpointError, CheckpointFiles, inspect_checkpoint
from contract.conversation import Message
from contract.digests import token_digest
from contract.sampling import PairJob, ResponseSpec
from contract.vocabulary import FinishReason, Role
from model_worker.chat_format import encode_messages, load_tokenizer
from model_worker.sampling.interface import lease_of
from model_worker.sampling.openai_compat.connection import ServerOptions
from model_worker.sampling.openai_compat.errors import ServerError, UnfaithfulServerError
from model_worker.sampling.openai_compat.sampler import OpenAICompatSampler
from model_worker.sampling.seeds import redraw_seed
from tests.model_worker.sampling.openai_compat.recording_sink import RecordingSink
from tests.model_worker.sampling.openai_compat.scripted_server import TOKENS, ScriptedServer, serving

DIALECTS = ("vllm", "sglang", "openai")
MESSAGES = (Message(role=Role.USER, content="Tell me about tea."),)


@pytest.fixture(scope="module")
def files(tiny_folder: Path) -> CheckpointFiles:
    return inspect_checkpoint(tiny_folder)


@pytest.fixture(scope="module")
def tokenizer(tiny_folder: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(tiny_folder)


@pytest.fixture(params=DIALECTS)
def scripted(request: pytest.FixtureRequest, tokenizer: PreTrainedTokenizerBase) -> Iterator[ScriptedServer]:
    with serving(ScriptedServer(tokenizer, request.param)) as server:
        yield server


@pytest.fixture
def vllm(tokenizer: PreTrainedTokenizerBase) -> Iterator[ScriptedServer]:
    with serving(ScriptedServer(tokenizer, "vllm")) as server:
        yield server


@pytest.fixture
def sglang(tokenizer: PreTrainedTokenizerBase) -> Iterator[ScriptedServer]:
    with serving(ScriptedServer(tokenizer, "sglang")) as server:
        yield server


@contextmanager
def sampling(
    server: ScriptedServer, folder: Path, files: CheckpointFiles, **options: Any
) -> Iterator[OpenAICompatSampler]:
    """A sampler connected to the server; what the probe asked is forgotten."""
    given = {"url": f"{server.url}/v1", "model": "chat", "dialect": server.dialect, "timeout_s": 20.0} | options
    sampler = OpenAICompatSampler(ServerOptions(**given), folder, files, max_pairs=4)
    server.draws.clear()
    server.headers.clear()
    try:
        yield sampler
    finally:
        sampler.close(0.0)


def pair(files: CheckpointFiles, *, seeds: tuple[int, int] = (1, 2), **spec: Any) -> PairJob:
    given = {"temperature": 0.8, "top_p": 0.95, "top_k": 0, "max_new_tokens": 32} | spec
    specs = tuple(
        ResponseSpec(response_id=uuid4(), checkpoint_digest=files.digest, seed=seed, **given) for seed in seeds
    )
    return PairJob(job_id=uuid4(), attempt=1, messages=MESSAGES, specs=specs)


def test_a_pair_is_drawn_and_streamed(
    scripted: ScriptedServer, tiny_folder: Path, files: CheckpointFiles, tokenizer: PreTrainedTokenizerBase
) -> None:
    job, sink = pair(files), RecordingSink()
    with sampling(scripted, tiny_folder, files) as sampler:
        assert sampler.capacity() == 4
        before = sampler.tokens_drawn()
        sampler.submit(job, sink)
        responses = sink.wait_done(job)
        assert sampler.tokens_drawn() > before
    prompt_ids = encode_messages(tokenizer, MESSAGES, add_generation_prompt=True)
    for spec, response in zip(job.specs, responses, strict=True):
        ids = scripted.ids(spec.temperature, spec.top_p, spec.seed)
        assert response.text == str(tokenizer.decode(ids, skip_special_tokens=True)).strip()
        assert response.completion_tokens == TOKENS
        assert response.finish_reason is FinishReason.STOP
        assert response.prompt_digest == token_digest(prompt_ids)
        assert response.seed == spec.seed
        assert 0 < response.first_token_s <= response.total_s
        if scripted.dialect == "openai":
            assert response.engine == "openai/scripted (ids from text)"
            assert response.sum_logprob is None
        else:
            assert response.token_ids == tuple(ids)
            assert response.sum_logprob == pytest.approx(-0.5 * TOKENS)
    assert sink.texts(job) == [response.text for response in responses]


def test_the_requests_hold_every_parameter(scripted: ScriptedServer, tiny_folder: Path, files: CheckpointFiles) -> None:
    job, sink = pair(files, seeds=(2**63 - 1, 7)), RecordingSink()
    with sampling(scripted, tiny_folder, files, data_parallel=3) as sampler:
        sampler.submit(job, sink)
        sink.wait_done(job)
    one, other = scripted.draws
    params = one.get("sampling_params", one)
    prompts = [body.get("input_ids", body.get("prompt")) for body in (one, other)]
    assert prompts[0] == prompts[1]
    assert params["temperature"] == 0.8
    assert params["top_p"] == 0.95
    seeds = {
        body.get("sampling_params", body).get("seed", body.get("sampling_params", {}).get("sampling_seed"))
        for body in (one, other)
    }
    assert seeds == {2**63 - 1, 7}
    if scripted.dialect == "vllm":
        assert one["top_k"] == 0
        assert one["return_token_ids"] is one["return_weight_versions"] is True
        ranks = {headers["X-data-parallel-rank"] for headers in scripted.headers}
        assert ranks == {str(job.job_id.int % 3)}
    if scripted.dialect == "sglang":
        assert params["top_k"] == -1
        assert one["data_parallel_rank"] == other["data_parallel_rank"] == job.job_id.int % 3
    if scripted.dialect == "openai":
        standard = {"model", "prompt", "temperature", "top_p", "seed", "max_tokens"}
        assert set(one) == standard | {"logprobs", "stream", "stream_options"}
        assert isinstance(one["prompt"], str)


def test_a_plain_server_that_takes_token_ids_gets_them(
    tokenizer: PreTrainedTokenizerBase, tiny_folder: Path, files: CheckpointFiles
) -> None:
    job, sink = pair(files), RecordingSink()
    with (
        serving(ScriptedServer(tokenizer, "openai", takes_token_ids=True)) as server,
        sampling(server, tiny_folder, files) as sampler,
    ):
        sampler.submit(job, sink)
        sink.wait_done(job)
    assert server.draws[0]["prompt"] == encode_messages(tokenizer, MESSAGES, add_generation_prompt=True)


@pytest.mark.parametrize("spec", [{"top_k": 5}, {"stop_token_ids": (9,)}], ids=["top_k", "stop ids"])
def test_what_a_plain_server_cannot_be_told_is_not_drawn(
    tokenizer: PreTrainedTokenizerBase, tiny_folder: Path, files: CheckpointFiles, spec: dict[str, Any]
) -> None:
    job, sink = pair(files, **spec), RecordingSink()
    with (
        serving(ScriptedServer(tokenizer, "openai")) as server,
        sampling(server, tiny_folder, files) as sampler,
    ):
        sampler.submit(job, sink)
        reason, is_retryable = sink.wait_failed(job)
    assert "the server's dialect has no" in reason
    assert is_retryable
    assert server.draws == []


@pytest.mark.parametrize("ignored", ["temperature", "top_p", "seed"])
def test_a_server_that_ignores_something_is_refused(
    scripted: ScriptedServer, tiny_folder: Path, files: CheckpointFiles, ignored: str
) -> None:
    scripted.ignores = {ignored}
    with (
        pytest.raises(UnfaithfulServerError, match=f"ignores (the )?{ignored}"),
        sampling(scripted, tiny_folder, files),
    ):
        pass


def test_an_unseeded_server_is_accepted_when_asked_for_and_noted(
    sglang: ScriptedServer, tiny_folder: Path, files: CheckpointFiles
) -> None:
    sglang.ignores = {"seed"}
    with sampling(sglang, tiny_folder, files, accepts_unseeded=True) as sampler:
        assert sampler.facts().engine == "sglang/0.5.23 (unseeded)"


def test_logprobs_after_temperature_are_not_recorded(
    sglang: ScriptedServer, tiny_folder: Path, files: CheckpointFiles
) -> None:
    sglang.tempers_logprobs = True
    job, sink = pair(files), RecordingSink()
    with sampling(sglang, tiny_folder, files) as sampler:
        sampler.submit(job, sink)
        assert [response.sum_logprob for response in sink.wait_done(job)] == [None, None]


def test_sglang_may_send_only_what_is_new(sglang: ScriptedServer, tiny_folder: Path, files: CheckpointFiles) -> None:
    sglang.repeats = False
    job, sink = pair(files), RecordingSink()
    with sampling(sglang, tiny_folder, files) as sampler:
        sampler.submit(job, sink)
        responses = sink.wait_done(job)
    assert responses[0].token_ids == tuple(sglang.ids(0.8, 0.95, 1))
    assert responses[0].sum_logprob == pytest.approx(-0.5 * TOKENS)


FAULTS = "busy cut stall garbage other_token other_text other_prompt two_versions abort error".split()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failed_draw_is_drawn_again(
    vllm: ScriptedServer, tiny_folder: Path, files: CheckpointFiles, fault: str
) -> None:
    job, sink = pair(files), RecordingSink()
    with sampling(vllm, tiny_folder, files, timeout_s=1.0, retries=2) as sampler:
        vllm.faults = [fault]
        sampler.submit(job, sink)
        responses = sink.wait_done(job)
    assert len(vllm.draws) == 3
    assert [response.token_ids for response in responses] == [tuple(vllm.ids(0.8, 0.95, seed)) for seed in (1, 2)]
    assert sink.texts(job) == [response.text for response in responses], "what was said before is not said again"


@pytest.mark.parametrize("fault", ["cut", "abort", "two_versions"])
def test_sglang_too(sglang: ScriptedServer, tiny_folder: Path, files: CheckpointFiles, fault: str) -> None:
    job, sink = pair(files), RecordingSink()
    with sampling(sglang, tiny_folder, files, retries=1) as sampler:
        sglang.faults = [fault]
        sampler.submit(job, sink)
        sink.wait_done(job)
    assert len(sglang.draws) == 3


def test_a_server_that_goes_on_failing_fails_the_job_for_another_try(
    scripted: ScriptedServer, tiny_folder: Path, files: CheckpointFiles
) -> None:
    job, sink = pair(files), RecordingSink()
    with sampling(scripted, tiny_folder, files, retries=1) as sampler:
        scripted.faults = ["cut"] * 10
        sampler.submit(job, sink)
        reason, is_retryable = sink.wait_failed(job)
        assert is_retryable
        assert "broke off" in reason
        scripted.wait_for(lambda: sampler.capacity() == 4)
        scripted.faults.clear()
        later = pair(files)
        sampler.submit(later, sink)
        sink.wait_done(later)


def test_a_refused_request_is_not_repeated(vllm: ScriptedServer, tiny_folder: Path, files: CheckpointFiles) -> None:
    job, sink = pair(files), RecordingSink()
    with sampling(vllm, tiny_folder, files) as sampler:
        vllm.faults = ["refuse", "refuse"]
        sampler.submit(job, sink)
        reason, _ = sink.wait_failed(job)
    assert "the prompt is too long" in reason
    assert len(vllm.draws) <= 2


def test_a_prompt_without_room_is_refused_for_good(
    vllm: ScriptedServer, tiny_folder: Path, files: CheckpointFiles
) -> None:
    words = Message(role=Role.USER, content=" tea" * 400)
    job = pair(files).model_copy(update={"messages": (words,)})
    sink = RecordingSink()
    with sampling(vllm, tiny_folder, files) as sampler:
        sampler.submit(job, sink)
        reason, is_retryable = sink.wait_failed(job)
    assert "the checkpoint's context holds 256" in reason, "the server's context is shorter than the checkpoint's"
    assert not is_retryable


def test_equal_texts_are_drawn_again(vllm: ScriptedServer, tiny_folder: Path, files: CheckpointFiles) -> None:
    job, sink = pair(files), RecordingSink()
    with sampling(vllm, tiny_folder, files) as sampler:
        vllm.same_texts = 3
        sampler.submit(job, sink)
        one, other = sink.wait_done(job)
    assert one.text != other.text
    assert other.seed == redraw_seed(2, 2), "two draws were equal to the first"


def test_cancelling_closes_the_connections(scripted: ScriptedServer, tiny_folder: Path, files: CheckpointFiles) -> None:
    job, sink = pair(files), RecordingSink()
    with sampling(scripted, tiny_folder, files) as sampler:
        scripted.pace_s = 0.3
        sampler.submit(job, sink)
        scripted.wait_for(lambda: len(scripted.draws) == 2)
        sampler.cancel(lease_of(job))
        sink.wait_cancelled(job)
        scripted.wait_for(lambda: scripted.dropped == 2)
        scripted.wait_for(lambda: sampler.capacity() == 4)
        sampler.cancel(lease_of(job))
    assert sink.outcomes(job) == 1


def test_closing_drains_then_cancels(vllm: ScriptedServer, tiny_folder: Path, files: CheckpointFiles) -> None:
    job, late, sink = pair(files), pair(files), RecordingSink()
    with sampling(vllm, tiny_folder, files) as sampler:
        vllm.pace_s = 0.3
        sampler.submit(job, sink)
        sampler.close(0.2)
        sink.wait_cancelled(job)
        sampler.submit(late, sink)
        assert "stopping" in sink.wait_returned(late)
        assert sampler.capacity() == 0


def test_a_job_of_another_checkpoint_is_returned(
    vllm: ScriptedServer, tiny_folder: Path, files: CheckpointFiles
) -> None:
    job, sink = pair(files.model_copy(update={"digest": "f" * 64})), RecordingSink()
    with sampling(vllm, tiny_folder, files) as sampler:
        sampler.submit(job, sink)
        assert "does not serve the checkpoint ffffffffffff" in sink.wait_returned(job)


def test_weights_that_changed_behind_the_workers_back_are_noticed(
    vllm: ScriptedServer, tiny_folder: Path, files: CheckpointFiles
) -> None:
    job, sink = pair(files), RecordingSink()
    with sampling(vllm, tiny_folder, files, retries=0) as sampler:
        vllm.version = "somebody else's"
        sampler.submit(job, sink)
        reason, is_retryable = sink.wait_failed(job)
    assert "somebody else's" in reason
    assert is_retryable


def test_a_server_that_is_not_there_or_serves_something_else_is_named(
    vllm: ScriptedServer, tiny_folder: Path, files: CheckpointFiles
) -> None:
    with (
        pytest.raises(ServerError, match="cannot be reached"),
        sampling(vllm, tiny_folder, files, url="http://127.0.0.1:9", retries=0),
    ):
        pass
    with (
        pytest.raises(CheckpointError, match="does not serve a model called 'other', but chat"),
        sampling(vllm, tiny_folder, files, model="other"),
    ):
        pass


@pytest.fixture
def newer(tiny_folder: Path, tmp_path: Path) -> Path:
    """A checkpoint that differs in its weights, as far as its digest says."""
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "newer"))
    shutil.copy(folder / "model.safetensors", folder / "model-2.safetensors")
    return folder


@pytest.mark.parametrize("dialect", ["vllm", "sglang"])
def test_a_swap_loads_labels_and_probes(
    tokenizer: PreTrainedTokenizerBase, tiny_folder: Path, files: CheckpointFiles, newer: Path, dialect: str
) -> None:
    after, sink = inspect_checkpoint(newer), RecordingSink()
    with serving(ScriptedServer(tokenizer, dialect)) as server, sampling(server, tiny_folder, files) as sampler:
        sampler.swap(newer, after, instead_of=files.digest)
        assert [served.digest for served in sampler.facts().checkpoints] == [after.digest]
        job = pair(after)
        sampler.submit(job, sink)
        sink.wait_done(job)
    assert server.version == after.digest
    expected = {
        "vllm": ["/pause?mode=wait", "/collective_rpc", "/reset_prefix_cache", "/update_weight_version", "/resume"],
        "sglang": ["/update_weights_from_disk"],
    }
    assert [path for path, _ in server.calls] == expected[dialect]
    assert str(newer.resolve()) in json.dumps(server.calls)


@pytest.mark.parametrize("dialect", ["vllm", "sglang"])
def test_a_swap_that_fails_goes_back(
    tokenizer: PreTrainedTokenizerBase, tiny_folder: Path, files: CheckpointFiles, newer: Path, dialect: str
) -> None:
    after, sink, job = inspect_checkpoint(newer), RecordingSink(), pair(files)
    with serving(ScriptedServer(tokenizer, dialect)) as server, sampling(server, tiny_folder, files) as sampler:
        server.fails_to_load = {"newer"}
        with pytest.raises(CheckpointError, match="could not load newer, and serves tiny again"):
            sampler.swap(newer, after, instead_of=files.digest)
        assert [served.digest for served in sampler.facts().checkpoints] == [files.digest]
        sampler.submit(job, sink)
        sink.wait_done(job)
        server.fails_to_load = {"newer", "tiny"}
        with pytest.raises(CheckpointError, match="restart both"):
            sampler.swap(newer, after, instead_of=files.digest)
        assert sampler.facts().checkpoints == ()
        assert sampler.capacity() == 0


def test_a_swap_that_cannot_be_changes_nothing(
    scripted: ScriptedServer, tiny_folder: Path, files: CheckpointFiles, newer: Path
) -> None:
    after = inspect_checkpoint(newer)
    scripted.has_dev_mode = False
    with sampling(scripted, tiny_folder, files) as sampler:
        with pytest.raises(CheckpointError, match="can only take its place"):
            sampler.swap(newer, after, instead_of=None)
        if scripted.dialect != "sglang":
            with pytest.raises(CheckpointError, match=r"takes no new weights while it runs.*[Rr]estart it"):
                sampler.swap(newer, after, instead_of=files.digest)
        config = json.loads((newer / "config.json").read_text())
        (newer / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.5}))
        with pytest.raises(CheckpointError, match="has changed since"):
            sampler.swap(newer, after, instead_of=files.digest)
        with pytest.raises(CheckpointError, match="another config or tokenizer"):
            sampler.swap(newer, inspect_checkpoint(newer), instead_of=files.digest)
        assert [served.digest for served in sampler.facts().checkpoints] == [files.digest]
        assert sampler.capacity() == 4
