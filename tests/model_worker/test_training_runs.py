"""Training runs over real HTTP with a real child process; only the training itself is a stand-in."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from contract.digests import model_digest
from contract.recipe import Recipe
from contract.sampling import Lease, Register
from contract.training import ClaimRun, FailRun, FinishRun, RewardModelRef, RunEvents, RunJob
from contract.vocabulary import Objective
from model_worker import backoff
from model_worker.client import AppClient, UnauthorizedError
from model_worker.registration import Registration
from model_worker.training_runs import TrainingPace, TrainingPlace, TrainingRuns
from tests.model_worker.app_server import TOKEN, AppServer
from tests.model_worker.frozen import serve_dataset

COMMAND = (sys.executable, str(Path(__file__).with_name("fake_train.py")))
DIGEST = "c" * 64
QUICK = TrainingPace(poll_s=0.05, events_s=0.05)


@pytest.fixture(autouse=True)
def short_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff.Backoff.__init__, "__defaults__", (0.02, 0.1))


@contextmanager
def training(
    app: AppServer, tiny_folder: Path, output_dir: Path, pace: TrainingPace = QUICK
) -> Iterator[list[Exception]]:
    stopping, errors = threading.Event(), []
    place = TrainingPlace(checkpoints={DIGEST: tiny_folder}, output_dir=output_dir, command=COMMAND)
    identity = Register(
        name="test", hostname="here", engine="none", versions={}, device="none", dtype="none",
        can_sample=False, can_train=True, max_pairs=0, checkpoints=(),
    )  # fmt: skip

    def work() -> None:
        try:
            with AppClient(app.url, TOKEN) as client:
                TrainingRuns(client, Registration(client, lambda: identity), place, pace).run(stopping)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield errors
    finally:
        stopping.set()
        thread.join(20)
        assert not thread.is_alive()


def make_run(app: AppServer, name: str = "helpfulness v1", *, attempt: int = 1) -> RunJob:
    return RunJob(
        job_id=uuid4(),
        attempt=attempt,
        name=name,
        checkpoint_digest=DIGEST,
        datasets=(serve_dataset(app.files), serve_dataset(app.files, "week-2")),
        recipe=Recipe(objective=Objective.HELPFULNESS),
    )


def lease(run: RunJob) -> Lease:
    return Lease(job_id=run.job_id, attempt=run.attempt)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while is_running(pid):
        assert time.monotonic() < deadline, "the child lives on"
        time.sleep(0.02)


def test_a_run_is_trained_reported_and_delivered(app_server: AppServer, tiny_folder: Path, tmp_path: Path) -> None:
    run = make_run(app_server)
    app_server.runs = [run]
    with training(app_server, tiny_folder, tmp_path):
        app_server.wait_for(lambda: app_server.sent(FinishRun))
    (finish,) = app_server.sent(FinishRun)
    assert finish.lease == lease(run)
    assert finish.digest == "d" * 64
    assert Path(finish.path).is_dir()
    assert Path(finish.path).parent == tmp_path / "reward-models"
    assert Path(finish.path).name.startswith("helpfulness-v1-")
    events = app_server.sent(RunEvents)
    assert [point.step for message in events for point in message.points] == [1, 2, 3]
    assert "".join(message.log for message in events) == (
        "fetching dataset week-1\nfetching dataset week-2\nreading data\n"
    )
    assert app_server.sent(ClaimRun)[0].digests == (DIGEST,)


def test_failures_of_the_app_lose_neither_steps_nor_result(
    app_server: AppServer, tiny_folder: Path, tmp_path: Path
) -> None:
    failure = (500, "internal", "oh dear")
    for path in ("register", "runs/claim", "runs/events", "runs/finish", "/api/v1/datasets/week-2"):
        app_server.failures[path] = [failure] * 3
    app_server.runs = [make_run(app_server)]
    with training(app_server, tiny_folder, tmp_path):
        app_server.wait_for(lambda: app_server.sent(FinishRun))
    assert [point.step for message in app_server.sent(RunEvents) for point in message.points] == [1, 2, 3]


def test_an_expected_failure_comes_with_its_reason(app_server: AppServer, tiny_folder: Path, tmp_path: Path) -> None:
    app_server.runs = [make_run(app_server, "refused"), make_run(app_server)]
    with training(app_server, tiny_folder, tmp_path):
        app_server.wait_for(lambda: app_server.sent(FinishRun))
    (fail,) = app_server.sent(FailRun)
    assert (fail.reason, fail.is_retryable) == ("week-1 has no helpfulness rows.", False)


def test_a_killed_child_may_be_tried_again(app_server: AppServer, tiny_folder: Path, tmp_path: Path) -> None:
    app_server.runs = [make_run(app_server, "killed")]
    with training(app_server, tiny_folder, tmp_path):
        app_server.wait_for(lambda: app_server.sent(FailRun))
    (fail,) = app_server.sent(FailRun)
    assert fail.reason == "Training was ended by SIGKILL. reading data"
    assert fail.is_retryable


def test_a_cancelled_run_ends_its_child(app_server: AppServer, tiny_folder: Path, tmp_path: Path) -> None:
    slow, next_run = make_run(app_server, "slow"), make_run(app_server)
    app_server.runs = [slow]
    with training(app_server, tiny_folder, tmp_path):
        app_server.wait_for(lambda: any(message.points for message in app_server.sent(RunEvents)))
        pid = int((tmp_path / "runs" / str(slow.job_id) / "pid").read_text())
        assert is_running(pid)
        app_server.cancelled_runs.add(slow.job_id)
        app_server.runs = [next_run]
        app_server.wait_for(lambda: app_server.sent(FinishRun))
        assert not is_running(pid)
    assert [finish.lease for finish in app_server.sent(FinishRun)] == [lease(next_run)]
    assert not app_server.sent(FailRun)


def test_a_lost_run_ends_its_child(app_server: AppServer, tiny_folder: Path, tmp_path: Path) -> None:
    slow = make_run(app_server, "slow")
    app_server.runs = [slow]
    with training(app_server, tiny_folder, tmp_path):
        app_server.wait_for(lambda: any(message.points for message in app_server.sent(RunEvents)))
        pid = int((tmp_path / "runs" / str(slow.job_id) / "pid").read_text())
        app_server.failures["runs/events"] = [(409, "lease_lost", "another worker has it")]
        wait_until_gone(pid)
    assert not app_server.sent(FailRun)


def test_a_stopping_worker_gives_its_run_back(app_server: AppServer, tiny_folder: Path, tmp_path: Path) -> None:
    slow = make_run(app_server, "slow")
    app_server.runs = [slow]
    with training(app_server, tiny_folder, tmp_path):
        app_server.wait_for(lambda: any(message.points for message in app_server.sent(RunEvents)))
        pid = int((tmp_path / "runs" / str(slow.job_id) / "pid").read_text())
    assert not is_running(pid)
    (fail,) = app_server.sent(FailRun)
    assert fail.is_retryable
    assert "stopped" in fail.reason


def test_a_result_outlives_a_worker_that_could_not_deliver_it(
    app_server: AppServer, tiny_folder: Path, tmp_path: Path
) -> None:
    run = make_run(app_server)
    app_server.runs = [run]
    app_server.failures["runs/finish"] = [(503, "away", "going down")] * 1000
    with training(app_server, tiny_folder, tmp_path):
        app_server.wait_for(lambda: app_server.calls.count("runs/finish") > 1)
    app_server.failures.clear()
    again = run.model_copy(update={"attempt": 2})
    app_server.runs = [again]
    with training(app_server, tiny_folder, tmp_path):
        app_server.wait_for(lambda: app_server.sent(FinishRun))
    assert app_server.sent(FinishRun)[0].lease == lease(again)
    assert not (tmp_path / "runs" / str(run.job_id) / "train-2.log").exists()


def test_a_finish_that_the_app_always_fails_on_gives_the_run_back(
    app_server: AppServer, tiny_folder: Path, tmp_path: Path
) -> None:
    app_server.runs = [make_run(app_server)]
    app_server.failures["runs/finish"] = [(500, "internal", "oh dear")] * 1000
    pace = TrainingPace(poll_s=0.05, events_s=0.05, give_up_s=0.2)
    with training(app_server, tiny_folder, tmp_path, pace):
        app_server.wait_for(lambda: app_server.sent(FailRun))
    (fail,) = app_server.sent(FailRun)
    assert (fail.reason, fail.is_retryable) == ("oh dear", True)


def test_the_previous_reward_model_is_used_where_it_is_the_one_that_is_meant(
    app_server: AppServer, tiny_folder: Path, tmp_path: Path
) -> None:
    here = RewardModelRef(name="helpfulness-1", path=str(tiny_folder), digest=model_digest(tiny_folder))
    changed = here.model_copy(update={"digest": "0" * 64})
    elsewhere = here.model_copy(update={"path": "/on/another/machine"})
    app_server.runs = [
        make_run(app_server).model_copy(update={"previous": previous}) for previous in (here, changed, elsewhere)
    ]
    jobs = [run.job_id for run in app_server.runs]
    with training(app_server, tiny_folder, tmp_path):
        app_server.wait_for(lambda: len(app_server.sent(FinishRun)) == 3)
    logs = dict.fromkeys(jobs, "")
    for events in app_server.sent(RunEvents):
        logs[events.lease.job_id] += events.log
    said = [logs[job].split("\n")[2] for job in jobs]
    missing = "the previous reward model helpfulness-1 is not on this machine: drift is not measured"
    assert said == [f"previous {tiny_folder.name}", missing, missing]


def test_what_an_unfinished_attempt_left_behind_is_removed(
    app_server: AppServer, tiny_folder: Path, tmp_path: Path
) -> None:
    run = make_run(app_server)
    leftover = tmp_path / "reward-models" / f"helpfulness-v1-{str(run.job_id)[:8]}" / "model.safetensors"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half")
    draft = leftover.parent.with_name(f".{leftover.parent.name}-x8k2") / "model.safetensors"
    draft.parent.mkdir()
    draft.write_bytes(b"half")
    app_server.runs = [run]
    with training(app_server, tiny_folder, tmp_path):
        app_server.wait_for(lambda: app_server.sent(FinishRun))
    assert not leftover.exists()
    assert not draft.parent.exists()


def test_an_unknown_checkpoint_and_a_changed_dataset_fail_the_run(
    app_server: AppServer, tiny_folder: Path, tmp_path: Path
) -> None:
    unknown = make_run(app_server).model_copy(update={"checkpoint_digest": "e" * 64})
    changed = make_run(app_server)
    wrong = changed.datasets[0].model_copy(update={"manifest_sha256": "0" * 64})
    app_server.runs = [unknown, changed.model_copy(update={"datasets": (wrong,)})]
    with training(app_server, tiny_folder, tmp_path):
        app_server.wait_for(lambda: len(app_server.sent(FailRun)) == 2)
    first, second = app_server.sent(FailRun)
    assert "does not hold the checkpoint" in first.reason
    assert "manifest's sha256" in second.reason
    assert not second.is_retryable


def test_a_revoked_token_ends_the_loop(app_server: AppServer, tiny_folder: Path, tmp_path: Path) -> None:
    app_server.failures["runs/claim"] = [(401, "unauthorized", "revoked")]
    with training(app_server, tiny_folder, tmp_path) as errors:
        app_server.wait_for(lambda: errors)
    assert [type(error) for error in errors] == [UnauthorizedError]


def test_the_child_ends_with_a_worker_that_is_killed(tiny_folder: Path, tmp_path: Path, app_server: AppServer) -> None:
    app_server.runs = [make_run(app_server, "slow")]
    dataset = tmp_path / "dataset"
    dataset.mkdir()
    (dataset / "manifest.json").touch()
    program = f"""
import time
from pathlib import Path
from contract.recipe import Recipe
from model_worker.training_child import RunPaths, TrainingChild
paths = RunPaths(Path({str(tmp_path)!r}), Path({str(tmp_path)!r}) / "out" / "slow", 1)
child = TrainingChild(paths, checkpoint=Path({str(tiny_folder)!r}), datasets=[Path({str(dataset)!r})],
                      recipe=Recipe(objective="helpfulness"), command={COMMAND!r})
time.sleep(60)
"""
    worker = subprocess.Popen([sys.executable, "-c", program])
    try:
        deadline = time.monotonic() + 15
        while not (tmp_path / "pid").is_file() or not (tmp_path / "pid").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        pid = int((tmp_path / "pid").read_text())
        assert is_running(pid)
    finally:
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
    wait_until_gone(pid)
