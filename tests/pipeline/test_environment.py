"""Accounts, containers and folders in which plain DVC fails or runs other code."""

import errno
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import pipeline
import stages
from pipeline import side_by_side
from pipeline.verify import clone_committed
from tests.conftest import Project, start
from tests.helpers import refused_here, run_python

REPRO = (sys.executable, "-m", "pipeline.side_by_side")
"""The command that `make repro` runs."""

ACCOUNT = ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME")

NOBODY = """
import pwd
def getpwuid(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = getpwuid
"""
"""Code that makes the user of a Python process unknown to the system."""


def bare_path(folder: Path) -> str:
    """Create a folder for PATH that has git but no Python."""
    folder.mkdir()
    git = shutil.which("git")
    assert git
    (folder / "git").symlink_to(git)
    return str(folder)


def make_plot_outdated(project: Project) -> None:
    with (project.path / "charlm/report/style.css").open("a", encoding="utf-8") as file:
        file.write("\n")


def test_an_account_without_name_home_shell_or_python_runs_the_pipeline(
    project: Project, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(NOBODY)
    make_plot_outdated(project)
    unset = [word for name in ACCOUNT for word in ("-u", name)]
    environment = {
        "PATH": bare_path(tmp_path / "bin"),
        "PYTHONPATH": str(tmp_path),
        "SHELL": "/bin/false",
    }
    command = ("/usr/bin/env", *unset, sys.executable, "-m")
    alone = project.run(*command, "dvc", "repro", code=None, **environment)
    assert alone.code != 0
    assert alone.stages == []
    ran = project.run(*command, "pipeline.side_by_side", **environment)
    assert ran.stages == ["plot"]
    assert "Traceback" not in ran.text


@pytest.mark.parametrize("room", [0, 10**9])
def test_dvc_keeps_its_hashes_here_if_the_shared_folder_is_full(
    room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PATH", "SHELL", "DVC_SITE_CACHE_DIR"):  # restored after this test
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.delenv("DVC_SITE_CACHE_DIR")
    monkeypatch.setattr(pipeline, "HASHES", tmp_path / "shared/dvc")
    monkeypatch.setattr(
        shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(room, 0, room)
    )
    pipeline.complete_environment()
    expected = None if room else str(pipeline.OWN_HASHES)
    assert os.environ.get("DVC_SITE_CACHE_DIR") == expected


def test_closed_standard_streams_are_opened() -> None:
    """Otherwise, DVC would open a file in their place."""
    code = "import os; [os.close(n) for n in range(3)]; import pipeline; "
    code += "os._exit(sum(not os.get_inheritable(n) for n in range(3)))"
    run_python(code)


def test_a_stage_that_cannot_print_stops_in_one_line() -> None:
    for number in (errno.EPIPE, errno.EBADF):
        line, code = stages.explain(OSError(number, os.strerror(number)))
        assert line.startswith("error: output cannot be printed (")
        assert code == 1
    assert stages.explain(OSError(errno.EPIPE, "Broken pipe", "a named pipe"))[0].startswith(
        "error: a named pipe: Broken pipe"
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_stage_reports_that_nothing_reads_its_output(project: Project, unbuffered: str) -> None:
    """Buffered output is printed at exit, where Python would report the error in its own way."""
    code = "import os, sys; r, w = os.pipe(); os.close(r); os.dup2(w, 1); "
    code += "os.execvp(sys.executable, [sys.executable, '-m', 'stages.split'])"
    ran = project.run(sys.executable, "-c", code, code=1, PYTHONUNBUFFERED=unbuffered)
    assert ran.text == "error: output cannot be printed (Broken pipe); redirect it elsewhere\n"


class Unread(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def test_the_error_for_unread_output_names_no_file(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", Unread())
    line = refused_here(project, "sample", monkeypatch)
    assert line == "error: output cannot be printed (Broken pipe); redirect it elsewhere"


@pytest.mark.slow
def test_outputs_are_put_back_if_nothing_reads_what_make_repro_prints(project: Project) -> None:
    before = project.outputs()
    make_plot_outdated(project)
    process = start(project, sys.executable, "-m", "pipeline.side_by_side")
    assert process.stdout
    while "Running stage 'plot'" not in process.stdout.readline():
        assert process.poll() is None
    process.stdout.close()
    assert process.wait(timeout=60) != 0
    assert project.outputs() == before


def test_dvc_that_cannot_print_counts_as_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(arguments: list[str]) -> int:
        raise BrokenPipeError

    monkeypatch.setattr(side_by_side.cli, "main", fail)
    assert side_by_side.dvc("repro") == 1


def kills_itself(folder: Path) -> str:
    """Create a folder for PATH whose `python` dies at once, as if it ran out of memory."""
    folder.mkdir()
    (folder / "python").write_text("#!/bin/sh\nkill -9 $$\n")
    (folder / "python").chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def test_outputs_of_a_stage_that_is_killed_or_does_not_start_are_put_back(
    project: Project, tmp_path: Path
) -> None:
    before = project.outputs()
    make_plot_outdated(project)
    for path, code in [(kills_itself(tmp_path / "killed"), 255), (bare_path(tmp_path / "no"), 255)]:
        project.run(sys.executable, "-m", "dvc", "repro", code=code, PATH=path)
        assert project.outputs() != before, "plain DVC removes them before it runs the stage"
        project.run(sys.executable, "-m", "pipeline.put_back", PATH=path)
        assert project.outputs() == before
    ran = project.run(*REPRO, code=255, PATH=kills_itself(tmp_path / "again"))
    assert "failed to run: python -m stages.plot, exited with 137" in ran.text
    assert project.outputs() == before


@pytest.mark.slow
def test_outputs_of_killed_trainings_are_put_back(project: Project, tmp_path: Path) -> None:
    before = project.outputs()
    project.set(epochs="3", compact__epochs="3")
    command = (*REPRO, "--at-once", "2")
    ran = project.run(*command, code=1, PATH=kills_itself(tmp_path / "killed"))
    assert "error: train_compact, train_fcn" in ran.text or "failed (see above)" in ran.text
    assert project.outputs() == before


def test_existing_outputs_are_left_alone(project: Project) -> None:
    """For example, those of a stage run by hand."""
    path = project.path / "metrics/samples.json"
    path.write_text("{}")
    (project.path / "data/split.safetensors").unlink()
    project.run(sys.executable, "-m", "pipeline.put_back")
    assert path.read_text() == "{}"
    assert (project.path / "data/split.safetensors").exists()


def test_code_in_another_folder_is_refused_under_dvc(project: Project, template: Project) -> None:
    """DVC would record the code in this folder."""
    before = project.outputs()
    ran = project.run(
        *(sys.executable, "-m", "dvc", "repro", "--force", "--single-item", "split"),
        code=255,
        PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # no warm start
        PYTHONPATH=str(template.path),
        PYTHONSAFEPATH="1",
    )
    assert (
        f"error: Python found charlm in {template.path}, but DVC would record the code in "
        f"{project.path}; unset the environment variables PYTHONPATH and PYTHONSAFEPATH\n"
    ) in ran.text
    assert "Traceback" not in ran.text
    assert project.outputs() == before


def in_subfolder(template: Project, folder: Path) -> Project:
    """Copy the project into a folder of a larger repository."""
    larger = Project(folder)
    inner = Project(folder / "lib/names")
    inner.path.mkdir(parents=True)
    archive = subprocess.run(
        ["git", "archive", "HEAD"], cwd=template.path, capture_output=True, check=True
    ).stdout
    subprocess.run(["tar", "x"], cwd=inner.path, input=archive, check=True)
    larger.git("init", "--quiet", "--initial-branch", "main")
    larger.sign()
    larger.commit("A larger repository")
    return inner


def in_submodule(template: Project, folder: Path) -> Project:
    folder.mkdir()
    outer = Project(folder)
    outer.git("init", "--quiet")
    allow = ("-c", "protocol.file.allow=always")
    outer.git(*allow, "submodule", "--quiet", "add", str(template.path), "names")
    inner = Project(folder / "names")
    inner.sign()
    return inner


def in_worktree(template: Project, folder: Path) -> Project:
    main = template.clone(folder.with_name("main"))
    main.git("worktree", "add", "--quiet", "-b", "other", str(folder))
    return Project(folder)


def with_symlinks(template: Project, folder: Path) -> Project:
    """Copy the project, with its cache on another disk and links into the cache as outputs."""
    cache = folder.with_name("cache")
    shutil.copytree(template.path, folder, symlinks=True)
    (folder / ".dvc/cache").rename(cache)
    (folder / ".dvc/cache").symlink_to(cache)
    project = Project(folder)
    project.dvc("config", "--local", "cache.type", "symlink")
    project.dvc("checkout", "--relink", "--quiet")
    assert (folder / "data/split.safetensors").is_symlink()
    return project


def with_cache(project: Project, template: Project) -> Project:
    cache = project.path / ".dvc/cache"
    if not cache.exists():
        shutil.copytree(template.path / ".dvc/cache", cache)
    return project


PLACES = [in_subfolder, in_submodule, in_worktree, with_symlinks]


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_the_pipeline_works_in_any_kind_of_checkout(
    template: Project,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: Callable[[Project, Path], Project],
) -> None:
    project = with_cache(place(template, tmp_path / "here"), template)
    assert project.dvc("repro").stages == []
    before = project.outputs()
    assert before == template.outputs()
    assert project.git("status", "--short", ".") == ""

    make_plot_outdated(project)
    assert project.run(*REPRO).stages == ["plot"]
    project.set(sample__count="-1")
    assert "sample.count" in project.dvc("repro", code=255).text
    shutil.rmtree(project.path / "plots/figures")
    (project.path / "data/split.safetensors").unlink()
    project.run("python", "-m", "pipeline.put_back")
    after = project.outputs()
    assert {path for path in after if after[path] != before[path]} <= {"plots/report.html"}
    assert after.keys() == before.keys()

    monkeypatch.chdir(project.path)
    clone = clone_committed(tmp_path / "clone")
    assert (clone / "dvc.lock").read_bytes() == (template.path / "dvc.lock").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_experiments_in_copies_work_in_any_kind_of_checkout(
    template: Project, tmp_path: Path, place: Callable[[Project, Path], Project]
) -> None:
    project = with_cache(place(template, tmp_path / "here"), template)
    ran = project.dvc("exp", "run", "--temp", "--name", "few", "-S", "sample.count=5")
    assert ran.stages == ["sample", "plot"]
    assert "Ran experiment(s): few" in ran.text
    assert project.dvc("exp", "list", "--name-only").text == "few\n"
    assert project.git("status", "--short", ".") == ""
