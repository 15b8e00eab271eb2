"""`make repro` repairs what a killed DVC leaves behind, and touches nothing else."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipeline import recovery
from tests.conftest import Project, start, wait_for_state
from tests.helpers import refused

GONE = 2**22 + 1  # above the highest process ID on Linux


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "rwlock"


@pytest.fixture
def dvc(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A running process in the folder whose command line looks like DVC."""
    script = tmp_path / "dvc"
    script.write_text("import time; print(flush=True); time.sleep(600)")
    command = [sys.executable, str(script), "repro"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        yield process
        process.kill()


def held_by(pid: int, command: str = "/usr/bin/dvc repro") -> dict[str, object]:
    return {"pid": pid, "cmd": command}


DAMAGED = [b"", b'{"write": {"/x/data', bytes(100), b"[]", b'{"read": {"/x": 1}}', b"\xff\xfe"]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_lock_is_removed(
    lock: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    lock.write_bytes(content)
    recovery.clear_lock(lock, lock.parent)
    assert not lock.exists()
    assert capsys.readouterr().out == f"DVC's lock {lock} was damaged; removed it\n"


def test_a_damaged_lock_is_kept_while_dvc_runs_here(
    lock: Path, dvc: "subprocess.Popen[bytes]"
) -> None:
    lock.touch()
    with refused(f"process {dvc.pid} runs DVC here; wait until it has ended, or stop it"):
        recovery.clear_lock(lock, lock.parent)
    assert lock.exists()
    (lock.parent / "elsewhere").mkdir()
    recovery.clear_lock(lock, lock.parent / "elsewhere")
    assert not lock.exists(), "that process works elsewhere"


def test_a_damaged_lock_is_kept_if_another_user_may_run_dvc_here(
    lock: Path, dvc: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(process: psutil.Process) -> str:
        raise psutil.AccessDenied(process.pid)

    lock.touch()
    monkeypatch.setattr(psutil.Process, "cwd", denied)
    elsewhere = lock.parent / "elsewhere"
    assert dvc.pid in [process.pid for process in recovery.others(elsewhere)]
    with refused("; if not here, delete the lock. Then run the same command again"):
        recovery.clear_lock(lock, elsewhere)
    assert lock.exists()


def test_locks_of_ended_processes_are_cleared(
    lock: Path, dvc: "subprocess.Popen[bytes]", capsys: pytest.CaptureFixture[str]
) -> None:
    living = held_by(dvc.pid, f"{lock.parent}/dvc repro")
    content = {
        "write": {
            "/x/a": held_by(GONE),
            "/x/b": held_by(os.getppid()),  # a different program
            "/x/c": held_by(dvc.pid, "/usr/bin/celery worker"),  # a different command
            "/x/d": living,
        },
        "read": {"/x/e": [held_by(os.getpid()), living], "/x/f": [held_by(GONE)]},
    }
    lock.write_text(json.dumps(content))
    recovery.clear_lock(lock, lock.parent)
    assert json.loads(lock.read_text()) == {"write": {"/x/d": living}, "read": {"/x/e": [living]}}
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert f"held by process {GONE}, which has ended (/usr/bin/dvc repro); cleared it" in lines[-1]


@pytest.mark.parametrize(
    ("command", "recorded", "expected"),
    [
        (["dvc", "repro"], "/usr/bin/dvc repro", True),
        (["-m", "dvc", "repro", "-s", "x"], "/lib/dvc/__main__.py repro -s x", True),
        (["dvc", "exp", "run", "-m", "a text "], "/usr/bin/dvc exp run -m a text ", True),
        (["-m", "pipeline.side_by_side"], "/x/pipeline/side_by_side.py", True),
        (["/a folder/dvc.exe", "repro"], "/a folder/dvc repro", True),
        (["program.py", "one"], "program.py one", True),
        (["program.py", "one"], "/usr/bin/dvc repro", False),
        (["pytest", "tests/test_dvc_yaml.py"], "/usr/bin/dvc repro", False),
    ],
)
def test_a_running_process_is_identified_by_its_command(
    tmp_path: Path, command: list[str], recorded: str, expected: bool
) -> None:
    sleep = "import time; print(flush=True); time.sleep(600)"
    with subprocess.Popen(
        [sys.executable, "-c", sleep, *command], cwd=tmp_path, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        process.stdout.readline()
        assert recovery.is_running(process.pid, recorded) is expected
        process.kill()


def test_make_repro_refuses_to_run_beside_a_stage_without_dvc(project: Project) -> None:
    project.set(epochs="5000")
    process = start(project, sys.executable, "-m", "stages.train_fcn")
    try:
        wait_for_state(project, process)
        ran = project.run("python", "-m", "pipeline.side_by_side", code=1)
    finally:
        process.kill()
        process.communicate()
    (line,) = ran.text.splitlines()
    assert line.startswith(f"error: process {process.pid} runs stages.train_fcn here without DVC")
    assert line.endswith(f"stop it: kill {process.pid}")


def test_outputs_that_another_dvc_is_writing_are_not_restored(
    project: Project, dvc: "subprocess.Popen[bytes]"
) -> None:
    """Otherwise, DVC would record the earlier outputs as those of the current run."""
    path = project.path / "data/checkpoints/fcn.safetensors"
    path.unlink()
    lock = project.path / ".dvc/tmp/rwlock"
    lock.write_text(json.dumps({"write": {str(path): held_by(dvc.pid, "/usr/bin/dvc repro")}}))
    for restored in (False, True):
        project.run(sys.executable, "-m", "pipeline.put_back", "train_fcn")
        assert path.exists() is restored
        dvc.kill()
        dvc.wait()


def test_a_lock_held_by_a_running_process_is_left_alone(
    lock: Path, dvc: "subprocess.Popen[bytes]"
) -> None:
    living = held_by(dvc.pid, f"{lock.parent}/dvc repro")
    lock.write_text(before := json.dumps({"read": {"/x/a": [living]}}))
    recovery.clear_lock(lock, lock.parent)
    assert lock.read_text() == before


def test_make_repro_works_after_a_kill_that_damaged_the_files_of_dvc(project: Project) -> None:
    """`dvc repro` itself refuses both."""
    path = project.path / "dvc.lock"
    before = path.read_bytes()
    damages = {
        project.path / ".dvc/tmp/rwlock": (b"", "rwlock was damaged; removed it"),
        path: (b"", "dvc.lock was damaged; restored the committed one"),
    }
    for file, (content, said) in damages.items():
        file.write_bytes(content)
        project.dvc("repro", code=255)
        ran = project.run("python", "-m", "pipeline.side_by_side")
        assert said in ran.text
        assert ran.text.endswith("Data and pipelines are up to date.\n")
    assert path.read_bytes() == before


@pytest.mark.slow
def test_a_lock_file_that_was_never_committed_is_removed(project: Project) -> None:
    path = project.path / "dvc.lock"
    before = path.read_bytes()
    path.unlink()
    project.commit("Without a lock file")
    path.write_bytes(b"")
    ran = project.run("python", "-m", "pipeline.side_by_side")
    assert "dvc.lock was damaged; removed it\n" in ran.text
    assert ran.stages == [], "all is in DVC's run cache"
    assert path.read_bytes() == before


def test_a_merge_conflict_is_left_to_the_user(project: Project) -> None:
    path = project.path / "dvc.lock"
    path.write_bytes(conflict := b"<<<<<<< HEAD\n" + path.read_bytes())
    project.run("python", "-m", "pipeline.side_by_side", code=None)
    assert path.read_bytes() == conflict


def test_half_written_outputs_of_a_killed_stage_are_removed(tmp_path: Path) -> None:
    half = tmp_path / "data/checkpoints/.partial-abc/fcn.safetensors"
    half.parent.mkdir(parents=True)
    half.touch()
    whole = tmp_path / "data/checkpoints/fcn.safetensors"
    whole.touch()
    recovery.remove_half_written(tmp_path)
    assert not half.parent.exists()
    assert whole.exists()


def test_empty_entries_of_the_run_cache_are_removed(tmp_path: Path) -> None:
    for run in ("aa/aa1", "aa/aa2", "bb/bb1"):
        (tmp_path / run).mkdir(parents=True)
    (tmp_path / "aa/aa2/tmp").touch()
    (tmp_path / "bb/bb1/b").write_text("a run")
    recovery.remove_empty_runs(tmp_path)
    assert [path.name for path in sorted(tmp_path.glob("*/*/*"))] == ["b"]
    assert [path.name for path in sorted(tmp_path.glob("*/*"))] == ["bb1"]


@pytest.mark.slow
def test_make_repro_works_after_a_kill_that_left_half_of_a_run_cache_entry(
    project: Project,
) -> None:
    """`dvc repro` itself fails on an empty folder in its run cache."""
    runs = project.path / ".dvc/cache/runs"
    project.set(sample__count="21")
    project.dvc("repro")
    project.git("checkout", "--quiet", ".")
    project.dvc("checkout")
    for path in [path for path in runs.rglob("*") if path.is_file()]:
        path.unlink()
    project.set(sample__count="21")
    assert "join() argument must be str" in project.dvc("repro", code=255).text
    ran = project.run("python", "-m", "pipeline.side_by_side")
    assert ran.stages == ["sample", "plot"]
