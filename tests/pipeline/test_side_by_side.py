"""Trainings side by side: the same result as one after another, and clean interruptions."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from dvc.repo import Repo
from dvc.utils.serialize import modify_yaml

from charlm.core.errors import InputError
from pipeline import side_by_side
from tests.conftest import IN_TURN, MODELS, STAGES, TRAINED, Project, start
from tests.helpers import processes_in

BOTH = ["train_hybrid", "train_wavenet"]
"""The trainings that start first."""

TRAININGS = sorted(f"train_{model}" for model in MODELS)

TWO = (sys.executable, "-m", "pipeline.side_by_side", "--at-once", "2")
"""The command of `make repro`, with two at once even if the tests may use only one core."""


def trained(text: str) -> list[str]:
    """Return the stages that were run side by side, sorted."""
    return sorted(re.findall(r"^(\w+) +\| Running stage '\1'", text, flags=re.MULTILINE))


def forget(project: Project) -> None:
    """Remove everything that the pipeline made, including DVC's cache and dvc.lock."""
    for path in project.outputs():
        if path.endswith((".csv", ".json", ".png", ".safetensors")):
            (project.path / path).unlink()
    shutil.rmtree(project.path / ".dvc/cache")
    (project.path / "dvc.lock").unlink()


def start_both(project: Project) -> "subprocess.Popen[str]":
    """Start both trainings, and wait until each has saved a state of this run."""
    began = time.time()
    process = start(project, *TWO)
    deadline = time.monotonic() + 60
    while sum(s.stat().st_mtime > began for s in (project.path / ".resume").glob("*.pt")) < 2:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def test_a_run_from_scratch_has_the_same_bytes_as_in_turn_and_leaves_git_clean(
    project: Project, template: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget(project)
    for name in ("charlm/core/__pycache__", "charlm/models/__pycache__"):
        (project.path / name).mkdir(parents=True, exist_ok=True)
        (project.path / name / "of.another.python.pyc").write_bytes(b"1")
    (project.path / "data/checkpoints/.partial-killed").mkdir(parents=True)
    (project.path / "data/checkpoints/.partial-killed/fcn.safetensors").write_bytes(b"half")
    ran = project.run(*TWO)
    assert project.git("status", "--short") == ""
    assert trained(ran.text) == TRAININGS
    assert ran.stages == [stage for stage in STAGES if stage not in TRAININGS]
    assert set(TRAININGS) < set(ran.unchanged), "DVC itself finds nothing to do for them"
    assert project.outputs() == template.outputs()
    lock, expected = ((p.path / "dvc.lock").read_bytes() for p in (project, template))
    assert lock == expected
    assert project.run(*TWO).text == "Data and pipelines are up to date.\n"

    monkeypatch.chdir(project.path)
    # As if the net had ended last, and a kill had prevented restoring the order.
    with modify_yaml("dvc.lock") as recorded:
        recorded["stages"]["train_fcn"] = recorded["stages"].pop("train_fcn")
    assert Path("dvc.lock").read_bytes() != expected
    project.run(*TWO)
    assert Path("dvc.lock").read_bytes() == expected


@pytest.mark.slow
def test_ctrl_c_and_sigterm_stop_both_and_the_same_command_resumes(
    project: Project,
) -> None:
    before = project.outputs()
    project.set(epochs="5000", hybrid__epochs="5000", hybrid__patience="")
    for end in (
        lambda process: os.killpg(process.pid, signal.SIGINT),
        lambda process: process.terminate(),
    ):
        process = start_both(project)
        end(process)
        text, _ = process.communicate(timeout=60)
        assert process.returncode == 130, text
        for stage in BOTH:
            said = rf"^{stage} +\| interrupted; run the same command"
            assert re.search(said, text, re.MULTILINE), text
        assert text.endswith("\ninterrupted; run the same command again to resume\n")
        assert "Traceback" not in text
        assert processes_in(project) == []
        assert project.outputs() == before
    for title in ("Hybrid", "WaveNet"):
        assert f"| {title}: resuming after epoch" in text, "the second time"


IMPATIENT = """
import os, signal, sys
from pipeline import side_by_side
from stages import run
def put_back(stage):
    os.kill(os.getpid(), signal.SIGINT)
    print("put back", stage)
def dvc(*command, **options):
    os.kill(os.getpid(), signal.SIGINT)
side_by_side.put_back_outputs, side_by_side.dvc = put_back, dvc
sys.argv[1:] = ["--only", "train_fcn"]
run(side_by_side.main)
"""


def test_outputs_are_put_back_despite_a_second_ctrl_c(project: Project) -> None:
    ran = project.run(sys.executable, "-c", IMPATIENT, code=130)
    assert ran.text.splitlines() == [
        "put back train_fcn",
        "interrupted; run the same command again to resume",
    ]


@pytest.mark.slow
def test_a_second_make_repro_is_refused_and_the_first_continues(project: Project) -> None:
    project.set(epochs="5000")
    first = start_both(project)
    second = project.run(*TWO, code=1)
    said = (
        f"error: make repro is already running here (process {first.pid}); wait until it has "
        "ended\n"
    )
    assert second.text == said
    assert first.poll() is None
    os.killpg(first.pid, signal.SIGINT)
    text, _ = first.communicate(timeout=60)
    assert first.returncode == 130, text


def test_if_one_training_fails_the_others_are_recorded(project: Project) -> None:
    before = project.outputs()
    project.set(epochs="3", wavenet__lr="1e30")
    ran = project.run(*TWO, code=1)
    (told,) = [line for line in ran.text.splitlines() if "| error: " in line]
    assert re.match(r"train_wavenet \| error: params\.yaml, line \d+: wavenet\.lr: train", told)
    assert ran.text.endswith(
        "error: train_wavenet failed (see above); fix the problem and run the same command again\n"
    )
    assert ran.stages == [], "nothing that depends on it"
    changed = {path for path, content in project.outputs().items() if content != before[path]}
    assert changed >= {"data/checkpoints/fcn.safetensors", "plots/history/fcn.csv"}
    assert not any("wavenet" in path for path in changed)
    assert project.dvc("status", "train_fcn").text == "Data and pipelines are up to date.\n"


MORE = """
  train_third:
    cmd: "true"
    deps: [data/split.safetensors]
    outs: [data/third]

  train_after:
    cmd: "true"
    deps: [data/third]
    outs: [data/after]

artifacts:
"""


def plan() -> side_by_side.Plan:
    with Repo() as repo, repo.lock:
        return side_by_side.make_plan(repo)


def test_the_plan_has_all_trainings_and_their_dependencies(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.path)
    assert plan() == side_by_side.Plan(set(), {}, [], [*IN_TURN, *IN_TURN])
    project.set(wavenet__lr="0.1")
    after = {"train_mixture", "evaluate", "sample", "plot"}
    first = ["build_dataset", "split"]
    assert plan() == side_by_side.Plan(
        {"train_wavenet", *after},
        {"train_wavenet": set(), "train_mixture": {"train_wavenet"}},
        sorted([*first, *(s for s in TRAININGS if s not in ("train_wavenet", "train_mixture"))]),
        [*IN_TURN, *IN_TURN],
    )

    pipeline = project.path / "dvc.yaml"
    text = pipeline.read_text(encoding="utf-8")
    pipeline.write_text(text.replace("\nartifacts:\n", MORE, 1), encoding="utf-8")
    project.set(seed="2")
    found = plan()
    assert found.outdated == {*STAGES, "train_third", "train_after"} - {"build_dataset"}
    order = list(found.trainings)
    assert order[0] == "train_hybrid", "for which two others wait"
    assert set(order[: len(TRAINED)]) == {f"train_{model}" for model in TRAINED}, "with epochs"
    mixed = {s for s in STAGES if s.startswith("train_")} - {"train_mixture"}
    assert found.trainings == {
        **{stage: set() for stage in [*mixed, "train_third"]},
        "train_compact": {"train_hybrid"},
        "train_mixture": mixed,
        "train_after": {"train_third"},
    }
    assert found.first == first


def test_no_more_trainings_run_at_once_than_requested(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, most, lock = 0, 0, threading.Lock()

    def train_one(stage: str, width: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.05)
        with lock:
            running -= 1
        return 0

    monkeypatch.chdir(project.path)
    monkeypatch.setattr(side_by_side, "train_one", train_one)
    side_by_side.train({stage: set() for stage in "abcde"}, 2)
    assert most == 2


def test_a_training_waits_for_its_dependencies(monkeypatch: pytest.MonkeyPatch) -> None:
    events = []

    def train_one(stage: str, width: int) -> int:
        events.append(f"{stage} starts")
        time.sleep(0.05)
        events.append(f"{stage} ends")
        return stage == "bad"

    monkeypatch.setattr(side_by_side, "train_one", train_one)
    side_by_side.train({"teacher": set(), "slow": set(), "pupil": {"teacher"}}, 3)
    assert events.index("teacher ends") < events.index("pupil starts")
    assert len(events) == 6
    events.clear()
    with pytest.raises(InputError, match=r"^bad failed \(see above\)"):
        side_by_side.train({"bad": set(), "pupil": {"bad"}, "good": set()}, 1)
    assert "good ends" in events
    assert "pupil starts" not in events


def test_only_cores_that_this_process_may_use_are_counted() -> None:
    assert 1 <= side_by_side.cores() <= (os.cpu_count() or 1)
