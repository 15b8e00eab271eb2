"""Training in several processes, which split each batch among them."""

import io
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from charlm.data.corpus import load_corpus
from charlm.data.splits import load_split
from charlm.training.distributed import Group
from stages import DATASET, SPLIT
from tests.conftest import LONG, ROOT, TRAINED, Project, start, wait_for_state
from tests.helpers import processes_in


@given(rows=st.integers(0, 40), size=st.integers(1, 9))
def test_the_processes_share_all_rows_without_overlap(rows: int, size: int) -> None:
    whole = torch.arange(rows)
    shares = [Group(rank, size).shard(whole) for rank in range(size)]
    assert torch.equal(torch.cat(shares).sort().values, whole)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


PAGE = ROOT / "docs/training.md"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port: int = probe.getsockname()[1]
    return port


def history(project: Project, model: str) -> pd.DataFrame:
    return pd.read_csv(io.BytesIO(project.outputs()[f"plots/history/{model}.csv"]))


@pytest.mark.parametrize(
    "model", ["fcn", *(pytest.param(model, marks=pytest.mark.slow) for model in TRAINED[1:])]
)
def test_two_processes_have_the_loss_curve_of_one(project: Project, model: str) -> None:
    """The last batch is a single window, so one process has none.

    There is no dropout, because each process would draw its own.
    """
    train = load_split(project.path / SPLIT, load_corpus(project.path / DATASET)).train
    batch_size = next(size for size in range(300, train) if train % size == 1)
    project.set(epochs="3", batch_size=str(batch_size), hybrid__dropout="0")
    for own in ("compact", "hybrid"):
        project.set(**{f"{own}__epochs": "3", f"{own}__batch_size": str(batch_size)})
    project.stage(f"train_{model}")
    alone = history(project, model)
    project.set(training__processes="2")
    ran = project.stage(f"train_{model}")
    pd.testing.assert_frame_equal(alone, history(project, model), rtol=1e-4)
    assert len(re.findall("epoch 3/3", ran.text)) == 1, "one of them reports"
    assert list((project.path / ".resume").glob("*.pt")) == []


MEMBER = """
import atexit, os, torch
atexit.register(lambda: print(len(os.listdir("/proc/self/task"))))  # runs last
from charlm.training.distributed import join
group = join(2, torch.device("cpu"))
group.sum(torch.ones(1000))
print(len(os.listdir("/proc/self/task")))
"""


@pytest.mark.slow
def test_no_thread_of_a_group_outlives_the_group() -> None:
    """A thread that frees a tensor while Python shuts down would abort the process."""
    group = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    environment = {**os.environ, **group, "TORCHELASTIC_RUN_ID": "test", "OMP_NUM_THREADS": "1"}
    members = [
        subprocess.Popen(
            [sys.executable, "-c", MEMBER],
            cwd=ROOT,
            env={**environment, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for member in members:
        text, _ = member.communicate()
        during, after = map(int, text.split())
        assert (member.returncode, after) == (0, 1)
        assert during > 1, "there would be nothing to test"


def workers(project: Project) -> list[psutil.Process]:
    """Return the training processes, by rank."""
    found = {}
    for process in processes_in(project):
        environment = process.environ()
        if "TORCHELASTIC_ERROR_FILE" in environment:
            found[int(environment["RANK"])] = process
    return [found[rank] for rank in sorted(found)]


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_stage_in_one_line_and_training_resumes(
    project: Project, rank: int
) -> None:
    project.set(**LONG, training__processes="2")
    process = start(project, "dvc", "repro", "--single-item", "train_wavenet")
    wait_for_state(project, process)
    workers(project)[rank].send_signal(signal.SIGKILL)
    text, _ = process.communicate()
    assert process.returncode != 0
    assert "Traceback" not in text, text
    said = rf"error: process {rank} \(of 0 to 1\) was killed by SIGKILL; run the same command again"
    assert len(re.findall(said, text)) == 1, text
    assert processes_in(project) == []
    ran = project.dvc("repro", "--single-item", "train_wavenet")
    assert len(re.findall("WaveNet: resuming after epoch", ran.text)) == 1
    project.run("git", "diff", "--quiet", "--", "dvc.lock", code=1)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files of newly started processes."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.mark.slow
def test_bad_input_is_reported_once(project: Project, temporary: Path) -> None:
    project.set(training__processes="2", lr="1e30", epochs="3")
    ran = project.run(sys.executable, "-m", "stages.train_fcn", code=1)
    assert "Traceback" not in ran.text, ran.text
    assert len(re.findall("error: ", ran.text)) == 1, ran.text
    assert re.search(r"params.yaml, line \d+: lr: training diverged in epoch 1", ran.text)
    assert list(temporary.iterdir()) == []


@pytest.mark.slow
def test_ctrl_c_ends_all_processes(project: Project, temporary: Path) -> None:
    project.set(**LONG, training__processes="2")
    process = start(project, sys.executable, "-m", "stages.train_wavenet")
    wait_for_state(project, process)
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate()
    assert process.returncode == 130
    assert text.rstrip().endswith("interrupted; run the same command again to resume")
    assert "Traceback" not in text
    assert processes_in(project) == []
    assert list(temporary.iterdir()) == []


@pytest.mark.slow
def test_torchrun_must_start_as_many_processes_as_requested(project: Project) -> None:
    project.set(training__processes="3")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "-m"]
    ran = project.run(*torchrun, "stages.train_fcn", code=1)
    assert "training.processes: torchrun started 2 processes instead of 3" in ran.text


@pytest.mark.slow
def test_two_machines_train_together_as_the_page_says(project: Project, tmp_path: Path) -> None:
    """Both are this machine, with a clone each. The first writes what a single process writes."""
    (command,) = re.findall("^torchrun .*", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    command = command.replace("FIRST", "localhost").replace("29500", str(free_port()))
    project.set(epochs="3")
    project.stage("train_fcn")
    alone = history(project, "fcn")
    project.set(training__processes="2")
    second = project.clone(tmp_path / "second")
    second.set(epochs="3", training__processes="2")
    second.dvc("repro", "split")
    before = second.outputs()
    commands = [command, command.replace("--node-rank=0", "--node-rank=1")]
    running = [
        start(machine, *shlex.split(line))
        for machine, line in zip((project, second), commands, strict=True)
    ]
    for process in running:
        text, _ = process.communicate()
        assert process.returncode == 0, text
    pd.testing.assert_frame_equal(alone, history(project, "fcn"), rtol=1e-4)
    assert second.outputs() == before
    project.dvc("commit", "-f", "train_fcn")
    assert "Stage 'train_fcn' didn't change" in project.dvc("repro", "train_fcn").text


@pytest.mark.slow
def test_two_processes_resume_to_the_bytes_of_an_uninterrupted_training(
    project: Project,
) -> None:
    project.set(**LONG, training__processes="2")
    project.stage("train_fcn")
    whole = project.outputs()
    (project.path / "data/checkpoints/fcn.safetensors").unlink()
    process = start(project, sys.executable, "-m", "stages.train_fcn")
    wait_for_state(project, process)
    workers(project)[0].send_signal(signal.SIGKILL)
    process.communicate()
    ran = project.stage("train_fcn")
    assert "resuming after epoch" in ran.text
    assert project.outputs() == whole
