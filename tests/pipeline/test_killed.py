"""A stage killed at any moment ends with the same bytes after a restart by the same command."""

import json
import os
import pty
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import (
    LONG,
    MODELS,
    ROOT,
    TRAINED,
    Project,
    run_queue,
    start,
    wait_for_state,
)
from tests.helpers import processes_in
from tests.kill_repro import Make

CHECKPOINT = "data/checkpoints/wavenet.safetensors"
OUTPUTS = {
    f"train_{model}": [
        f"data/checkpoints/{model}.safetensors",
        f"plots/history/{model}.csv",
    ]
    for model in TRAINED
} | {"evaluate": ["metrics/evaluation.json", "plots/evaluation/models.csv"]}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "kills"),
    [
        ("train_fcn", 2),
        ("train_wavenet", 7),
        ("train_compact", 7),
        ("train_hybrid", 7),
        ("evaluate", 2),
    ],
)
def test_a_stage_killed_at_random_moments_ends_with_the_same_bytes(
    project: Project, stage: str, kills: int, request: pytest.FixtureRequest
) -> None:
    """25 kills in all, over the stages that take longest."""
    whole = "uninterrupted" if stage == "train_wavenet" else "all_uninterrupted"
    uninterrupted: Project = request.getfixturevalue(whole)
    project.set(**LONG)
    needed = {"evaluate": MODELS, "train_compact": ["hybrid"]}.get(stage, [])
    for name in needed:
        path = f"data/checkpoints/{name}.safetensors"
        shutil.copy(uninterrupted.path / path, project.path / path)
    ran = project.run("python", "-m", "tests.kill_often", stage, str(kills))
    result = json.loads(ran.text.splitlines()[-1])
    assert result["code"] == 0, result
    assert len(result["killed_after"]) == kills, result
    assert "Traceback" not in result["text"]
    if stage.startswith("train_"):
        assert result["went_on"] > 0, result
    assert "damaged" not in result["text"]
    expected, written = uninterrupted.outputs(), project.outputs()
    assert set(OUTPUTS[stage]) <= set(written)
    for path, content in written.items():
        if path in OUTPUTS[stage]:
            assert content == expected[path], (path, result["killed_after"])
    left = [path.name for path in (project.path / ".resume").glob("*.pt")]
    assert left == [], "the state is removed at the end"
    assert project.git("status", "--short", "--", ":!metrics", ":!plots", ":!params.yaml") == ""


@pytest.mark.slow
def test_a_long_epoch_resumes_in_the_middle(project: Project) -> None:
    project.set(batch_size="1", epochs="1")
    whole = project.path.parent / "whole"
    shutil.copytree(project.path, whole, symlinks=True)
    kill_once_it_has_a_state(project, sys.executable, "-m", "stages.train_fcn")
    ran = project.stage("train_fcn")
    assert re.search(r"resuming after epoch 0, batch 1,000 of the next", ran.text)
    Project(whole).stage("train_fcn")
    assert project.outputs() == Project(whole).outputs()


def kill_once_it_has_a_state(project: Project, *command: str) -> None:
    """Send SIGKILL to the command and all the processes it has started, once it saved a state."""
    process = start(project, *command)
    wait_for_state(project, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [["repro", "--single-item"], ["exp", "run"], ["exp", "run", "--temp"]],
    ids=" ".join,
)
def test_dvc_killed_with_all_its_children_resumes_with_the_same_command(
    project: Project, uninterrupted: Project, command: list[str]
) -> None:
    if "repro" in command:
        project.set(**LONG)
    else:
        command = [*command, "-S", f"epochs={LONG['epochs']}"]
    kill_once_it_has_a_state(project, "dvc", *command, "train_wavenet")
    ran = project.dvc(*command, "train_wavenet")
    assert "WaveNet: resuming after epoch" in ran.text
    if "--temp" in command:
        (name,) = project.dvc("exp", "list", "--name-only").text.split()[-1:]
        project.dvc("exp", "apply", name)
    assert project.outputs()[CHECKPOINT] == uninterrupted.outputs()[CHECKPOINT]
    assert list((project.path / ".resume").glob("*.pt")) == []


@pytest.mark.slow
def test_a_queue_killed_with_its_worker_resumes_when_queued_again(
    project: Project, uninterrupted: Project
) -> None:
    command = ["exp", "run", "--queue", "-S", f"epochs={LONG['epochs']}", "train_wavenet"]
    project.dvc(*command, "--name", "first")
    start(project, "dvc", "queue", "start")  # its worker keeps the pipe open, so do not wait for it
    try:
        wait_for_state(project)
        kill_all_of(project)
        project.dvc(*command, "--name", "second")
        run_queue(project, 1)
    finally:
        project.dvc("queue", "stop", "--kill", code=None)
    assert "WaveNet: resuming after epoch" in project.dvc("queue", "logs", "second").text
    project.dvc("exp", "apply", "second")
    assert project.outputs()[CHECKPOINT] == uninterrupted.outputs()[CHECKPOINT]


def kill_all_of(project: Project) -> None:
    """Kill every process in the project's folder until none is left."""
    deadline = time.monotonic() + 30
    while found := processes_in(project):
        assert time.monotonic() < deadline
        for process in found:
            process.kill()
        psutil.wait_procs(found, timeout=5)


def test_an_interruption_under_dvc_restores_outputs_and_can_be_resumed(
    project: Project, uninterrupted: Project
) -> None:
    before = project.outputs()
    project.set(**LONG)
    process = start(project, "dvc", "repro", "--single-item", "train_wavenet")
    wait_for_state(project, process)
    os.killpg(process.pid, signal.SIGINT)
    text, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "interrupted; run the same command again to resume" in text
    assert "Traceback" not in text
    assert project.outputs() == before
    ran = project.dvc("repro", "--single-item", "train_wavenet")
    assert "WaveNet: resuming after epoch" in ran.text
    assert project.outputs()[CHECKPOINT] == uninterrupted.outputs()[CHECKPOINT]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_if_dvc_alone_is_killed_its_stage_ends_too(
    project: Project, uninterrupted: Project, number: signal.Signals
) -> None:
    """It would continue without a record, and overwrite the outputs of the next run."""
    before = project.outputs()
    project.set(**LONG)
    process = start(project, "dvc", "repro", "--single-item", "train_wavenet")
    wait_for_state(project, process)
    process.send_signal(number)
    text, _ = process.communicate(timeout=60)  # until the stage has closed the pipe
    assert text.endswith("interrupted; run the same command again to resume\n")
    wait_until_nothing_runs(project)
    assert project.outputs() == before
    ran = project.dvc("repro", "--single-item", "train_wavenet")
    assert "WaveNet: resuming after epoch" in ran.text
    assert project.outputs()[CHECKPOINT] == uninterrupted.outputs()[CHECKPOINT]


@pytest.mark.slow
def test_if_make_alone_is_terminated_the_outputs_are_put_back(project: Project) -> None:
    before = project.outputs()
    project.set(**LONG)
    log = project.path.with_suffix(".log")
    process = Make().start(project, log)
    wait_for_state(project)
    process.terminate()
    process.wait(timeout=60)
    assert "interrupted; run the same command again to resume\n" in log.read_text()
    wait_until_nothing_runs(project)
    assert project.outputs() == before


def wait_until_nothing_runs(project: Project) -> None:
    """Wait for processes that outlive the command itself."""
    deadline = time.monotonic() + 60
    while processes_in(project):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_sigterm_is_handled_like_ctrl_c(project: Project) -> None:
    project.set(**LONG)
    process = start(project, sys.executable, "-m", "stages.train_fcn")
    wait_for_state(project, process)
    process.terminate()
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert text.endswith("interrupted; run the same command again to resume\n")
    assert "Traceback" not in text


def start_in_a_terminal(project: Project, *command: str) -> tuple[int, int]:
    """Run a command in its own terminal; return its process ID and the terminal."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(project.path)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        os.execvpe(command[0], command, {**os.environ, "PATH": path})
    return child, terminal


@pytest.mark.parametrize(
    "command",
    [
        ["dvc", "repro", "--single-item", "train_wavenet"],
        pytest.param(["python", "-m", "pipeline.side_by_side"], marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_a_closed_terminal_is_handled_like_ctrl_c(project: Project, command: list[str]) -> None:
    """For example, because an SSH session is lost."""
    before = project.outputs()
    project.set(**LONG)
    process, terminal = start_in_a_terminal(project, *command)
    wait_for_state(project)
    os.close(terminal)
    os.waitpid(process, 0)
    wait_until_nothing_runs(project)
    assert project.outputs() == before
    assert list((project.path / ".resume").glob("*.pt")), "to resume from"


def test_nohup_is_respected(project: Project) -> None:
    process = start(project, "nohup", sys.executable, "-m", "stages.train_fcn")
    while "epoch 1" not in (process.stdout.readline() if process.stdout else "epoch 1"):
        assert process.poll() is None
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=60) == 0


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("stages.split", "json.decoder"),
        ("stages.train_wavenet", "numpy._"),
        pytest.param("stages.train_wavenet", "torch._", marks=pytest.mark.slow),
        ("pipeline.side_by_side", "networkx"),
    ],
)
def test_ctrl_c_during_imports_is_reported_in_one_line(
    project: Project, module: str, imported: str
) -> None:
    """While it imports NumPy, torch would swallow the exception and continue with half of it."""
    process = start(project, sys.executable, "-X", "importtime", "-m", module)
    while imported not in (process.stdout.readline() if process.stdout else imported):
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    text, _ = process.communicate(timeout=60)
    lines = [line for line in text.splitlines() if not line.startswith("import time:")]
    assert lines == ["interrupted; run the same command again to resume"]
    assert process.returncode == 130


@pytest.mark.parametrize("where", ["", "raise ValueError"])
def test_ctrl_c_is_repeated_after_code_whose_exceptions_python_ignores(where: str) -> None:
    """For example, in the callbacks of Numba's compiler."""
    code = f"""
import signal, time, stages
class Dropped:
    def __del__(self):
        {where}
        signal.raise_signal(signal.SIGINT)
        for _ in range(100):
            pass
def main():
    Dropped()
    for _ in range(100):
        time.sleep(0.01)
stages.run(main)
"""
    ran = Project(ROOT).run(sys.executable, "-c", code, code=0 if where else 130)
    if where:
        assert "ValueError" in ran.text
    else:
        assert ran.text == "interrupted; run the same command again to resume\n"


@pytest.mark.parametrize(
    ("number", "handler"),
    [("SIGINT", "signal.default_int_handler"), ("SIGTERM", "signal.SIG_IGN")],
)
def test_ctrl_c_is_repeated_after_compiled_code_returned_arrays(number: str, handler: str) -> None:
    """Numba asks Python for the types of arrays, and turns an exception there into a SystemError.

    The fast path would take that for an error of the model, and train on with plain PyTorch.
    """
    code = f"""
import contextlib, signal, time
signal.signal(signal.SIGINT, {handler})
import stages
import numba.core.serialize, numpy
zeros = numba.njit(lambda: (numpy.zeros(3), numpy.zeros(3)))
zeros()
class Interrupting(dict):
    def __getitem__(self, key):
        signal.raise_signal(signal.{number})
        return super().__getitem__(key)
def main():
    numba.core.serialize._unpickled_memo = Interrupting(numba.core.serialize._unpickled_memo)
    for _ in range(100):
        with contextlib.suppress(Exception):
            zeros()
        time.sleep(0.01)
stages.run(main)
"""
    ran = Project(ROOT).run(sys.executable, "-c", code, code=130)
    assert ran.text == "interrupted; run the same command again to resume\n"


@pytest.mark.slow
def test_a_damaged_state_is_reported_and_training_starts_from_scratch(
    project: Project, uninterrupted: Project
) -> None:
    project.set(**LONG)
    kill_once_it_has_a_state(project, sys.executable, "-m", "stages.train_wavenet")
    (state,) = (project.path / ".resume").glob("*.pt")
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1  # one bit of a weight, which torch itself would not notice
    state.write_bytes(content)
    ran = project.stage("train_wavenet")
    assert f".resume/{state.name} is damaged; training starts from scratch\n" in ran.text
    assert f"WaveNet, epoch 1/{LONG['epochs']}" in ran.text
    assert project.outputs()[CHECKPOINT] == uninterrupted.outputs()[CHECKPOINT]
