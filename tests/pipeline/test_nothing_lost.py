"""When something goes wrong, one line says what it is, nothing is lost, and recovery works."""

import ctypes
import errno
import importlib
import json
import math
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from dvc.utils.serialize import modify_yaml

import charlm.training.trainer
import stages
import stages.training
from charlm.core.files import write_text
from charlm.data import checkpoint
from charlm.data.corpus import Corpus, load_corpus
from pipeline.inputs import Inputs
from tests.conftest import LONG, Project, start, wait_for_state
from tests.helpers import DAMAGED, NAMES, refused, refused_here, small_model

FCN = "data/checkpoints/fcn.safetensors"
WAVENET = "data/checkpoints/wavenet.safetensors"


def run_alone(project: Project, stage: str, before: Callable[[], object]) -> tuple[int, list[str]]:
    """Run a stage in a process that calls `before` first; return its exit code and output lines."""
    done = subprocess.run(
        [sys.executable, "-m", f"stages.{stage}"],
        cwd=project.path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        preexec_fn=before,
    )
    return done.returncode, done.stdout.splitlines()


def half_written(project: Project) -> list[Path]:
    return list(project.path.rglob(".partial-*"))


@pytest.mark.parametrize(
    ("stage", "size", "path"),
    [
        ("build_dataset", 1000, "data/dataset.safetensors"),
        ("train_fcn", 100_000, ".resume/fcn-"),
        pytest.param("plot", 20_000, "plots/figures", marks=pytest.mark.slow),
    ],
)
def test_a_stage_stops_in_one_line_on_a_full_disk_and_can_be_run_again(
    project: Project, stage: str, size: int, path: str
) -> None:
    """The kernel refuses to write more than that many bytes to a file, like a full disk."""
    before = project.outputs()
    code, lines = run_alone(
        project, stage, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    )
    assert code == 1
    (error,) = [line for line in lines if line.startswith("error: ")]
    assert error == lines[-1]
    assert error.startswith(f"error: {path}")
    assert "File too large; free some space and run the same command again" in error
    assert project.outputs() == before
    assert half_written(project) == []
    project.stage(stage)
    assert project.outputs() == before


@pytest.mark.parametrize(
    ("number", "todo"),
    [(errno.ENOSPC, "free some space"), (errno.EROFS, "change its permissions")],
)
def test_a_failed_write_names_the_file_and_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, todo: str
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))  # like a failed write, without a file name

    path = tmp_path / "file"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        write_text(path, "new")
    assert stages.explain(caught.value) == (
        f"error: {path}: {os.strerror(number)}; {todo} and run the same command again",
        1,
    )
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_error_without_a_file_name_is_explained_too() -> None:
    assert stages.explain(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))) == (
        "error: No space left on device; free some space and run the same command again",
        1,
    )
    assert stages.explain(OSError(errno.EIO, os.strerror(errno.EIO))) is None


def lose_the_right_to_write_anywhere() -> None:
    """Take away root's right to write to read-only folders."""
    if os.geteuid() == 0:
        drop_from_bounding_set, dac_override = 24, 1
        ctypes.CDLL(None).prctl(drop_from_bounding_set, dac_override, 0, 0, 0)


def test_a_read_only_folder_costs_no_training(project: Project) -> None:
    folder = project.path / "data/checkpoints"
    before = project.outputs()
    folder.chmod(0o555)
    try:
        code, lines = run_alone(project, "train_fcn", lose_the_right_to_write_anywhere)
    finally:
        folder.chmod(0o755)
    assert code == 1
    assert lines[-1] == (
        f"error: {FCN}: Permission denied; change its permissions and run the same command again"
    )
    assert project.outputs() == before
    ran = project.stage("train_fcn")
    assert "resuming after epoch 2" in ran.text  # the last of two
    assert project.outputs() == before


def test_running_out_of_memory_is_reported_in_one_line() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.zeros(10**15)
    for error in (caught.value, MemoryError()):
        line, code = stages.explain(error)
        assert line.startswith("error: not enough memory; lower batch_size")
        assert code == 1
    assert stages.explain(RuntimeError("a bug")) is None


def test_a_memory_limit_is_reported_in_one_line_and_loses_nothing(project: Project) -> None:
    """Not even torch can be loaded."""
    before = project.outputs()
    limit = 300 * 2**20
    code, lines = run_alone(
        project, "train_fcn", lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    )
    assert code == 1
    (line,) = lines
    assert line.startswith("error: not enough memory; ")
    assert line.endswith("or raise the limits of the shell (ulimit -a)")
    assert project.outputs() == before


def test_a_model_larger_than_the_machine_is_refused_before_it_is_built(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = project.outputs()
    project.set(wavenet__hidden_dim="1000000")
    line = refused_here(project, "train_wavenet", monkeypatch)
    number = next(
        i
        for i, text in enumerate((project.path / "params.yaml").read_text().splitlines(), start=1)
        if text.startswith("wavenet:")
    )
    said = f"error: params.yaml, line {number}: wavenet: training a model with 4,000,"
    assert line.startswith(said)
    assert re.search(r"takes [\d,]+ GB, but this machine has [\d,]+ GB; make the model", line)
    assert project.outputs() == before


def test_outputs_removed_by_hand_come_back_without_a_run(project: Project) -> None:
    before = project.outputs()
    for path in [FCN, "data/split.safetensors", "plots/figures/losses.png", "metrics/samples.json"]:
        (project.path / path).unlink()
    shutil.rmtree(project.path / "data/samples")
    assert project.dvc("repro").stages == []
    assert project.outputs() == before


def damage_copy(project: Project, path: str, cut: int = 100) -> Path:
    """Damage DVC's copy of an output, without DVC noticing."""
    lock = (project.path / "dvc.lock").read_text(encoding="utf-8")
    md5 = re.search(rf"path: {path}\n\s*hash: md5\n\s*md5: (\S+)", lock)[1]
    copy = project.path / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    copy.chmod(0o644)
    copy.write_bytes(copy.read_bytes()[:-cut])
    copy.chmod(0o444)
    return copy


def test_a_damaged_copy_in_the_cache_is_removed_and_recreated(
    project: Project,
) -> None:
    before = project.outputs()
    damage_copy(project, FCN)
    (project.path / FCN).unlink()
    assert project.dvc("repro").stages == []
    assert project.outputs()[FCN] != before[FCN], "DVC puts the damaged copy back"
    ran = project.stage("evaluate", code=1)
    (line,) = ran.text.splitlines()
    assert line.startswith(f"error: {FCN} is damaged")
    assert line.endswith(
        f"; recreate it with: dvc repro (DVC's copy of {FCN} was damaged, too; removed it)"
    )
    assert project.dvc("repro").stages == ["train_fcn"]
    assert project.outputs() == before


def test_a_damaged_copy_of_a_whole_output_is_repaired_before_make_repro(project: Project) -> None:
    before = project.outputs()
    copy = damage_copy(project, FCN)
    assert project.run("python", "-m", "pipeline.check").text == ""
    assert copy.read_bytes() == before[FCN]
    assert project.dvc("repro").stages == []
    damage_copy(project, FCN)
    (project.path / FCN).unlink()
    assert project.run("python", "-m", "pipeline.check").text == (
        f"DVC's copy of {FCN} was damaged; removed it (it will be recreated)\n"
    )
    assert project.dvc("repro").stages == ["train_fcn"]
    assert project.outputs() == before


@pytest.mark.parametrize(
    "path", ["data/samples", pytest.param("metrics/samples.json", marks=pytest.mark.slow)]
)
def test_make_repro_restores_no_damaged_copy_from_the_run_cache(
    project: Project, path: str
) -> None:
    """`dvc repro` would, because it trusts the copies and `dvc.lock` does not name these."""
    before, lock = project.outputs(), project.path / "dvc.lock"
    recorded = lock.read_bytes()
    damage_copy(project, path, cut=3)
    with modify_yaml(lock) as content:
        del content["stages"]["sample"]
    shutil.rmtree(project.path / "data/samples")
    (project.path / "metrics/samples.json").unlink()
    ran = project.run("python", "-m", "pipeline.side_by_side")
    assert f"DVC's copy of {path} was damaged; removed it" in ran.text
    assert ran.stages == ["sample"]
    assert project.outputs() == before
    assert lock.read_bytes() == recorded


def test_errors_in_dvc_yaml_are_left_to_dvc(project: Project) -> None:
    (project.path / "dvc.yaml").write_text("stages: [")
    assert project.run("python", "-m", "pipeline.check").text == ""
    assert "dvc.yaml' is invalid" in project.dvc("repro", code=255).text


@pytest.fixture(scope="module")
def checkout(template: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy of the small project. Each test leaves it as it was."""
    target = tmp_path_factory.mktemp("lost") / "project"
    shutil.copytree(template.path, target, symlinks=True)
    return Project(target)


@pytest.mark.parametrize("stage", ["evaluate", "sample", "plot"])
@DAMAGED
def test_a_damaged_checkpoint_is_refused(
    checkout: Project, stage: str, monkeypatch: pytest.MonkeyPatch, damage
) -> None:
    path, before = checkout.path / FCN, checkout.outputs()
    path.write_bytes(damage(before[FCN]))
    try:
        line = refused_here(checkout, stage, monkeypatch)
    finally:
        path.write_bytes(before[FCN])
    assert line.startswith(f"error: {FCN} is damaged or not a file of this pipeline (")
    assert line.endswith("; recreate it with: dvc repro")
    assert checkout.outputs() == before


# The output of `plot` does not depend on the block size.
@pytest.mark.parametrize(
    ("stage", "block_size"),
    [("evaluate", 8), ("evaluate", 16), ("sample", 8), ("sample", 16), ("plot", 8)],
)
def test_a_checkpoint_of_other_data_is_refused(
    checkout: Project, stage: str, block_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, before = checkout.path / FCN, checkout.outputs()
    corpus = Corpus.from_names(NAMES, block_size)
    if block_size == 16:
        vocabulary = load_corpus(checkout.path / "data/dataset.safetensors").vocabulary
        corpus = Corpus.from_names([vocabulary.characters], block_size)
    checkpoint.save(path, small_model(corpus), corpus.vocabulary)
    try:
        line = refused_here(checkout, stage, monkeypatch)
    finally:
        path.write_bytes(before[FCN])
    assert FCN in line
    told = "a different vocabulary"
    assert told in line
    assert line.endswith("; recreate it with: dvc repro")
    assert checkout.outputs() == before


def test_repro_restores_a_replaced_checkpoint(project: Project) -> None:
    before = project.outputs()
    corpus = Corpus.from_names(NAMES, 16)
    checkpoint.save(project.path / FCN, small_model(corpus), corpus.vocabulary)
    assert project.dvc("repro").stages == []
    assert project.outputs() == before


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("plots/history/fcn.csv", "epoch,loss\n1,2.5\n"),
        ("plots/history/wavenet.csv", "epoch,train_loss,val_loss,lr\n1,x,2.5,0.2\n"),
        ("plots/evaluation/models.csv", "model,test_loss\nfcn,2.5\n"),
        ("plots/evaluation/calibration.csv", "model,confidence,accuracy,windows\nfcn,1,1,1\n"),
        ("plots/evaluation/loss_by_length.csv", "model,length,windows,loss\nfcn,1,1,1\n"),
    ],
)
def test_edited_tables_are_refused(
    checkout: Project, path: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = checkout.outputs()
    (checkout.path / path).write_text(text)
    try:
        line = refused_here(checkout, "plot", monkeypatch)
    finally:
        (checkout.path / path).write_bytes(before[path])
    assert line.startswith(f"error: {path} is damaged or not a file of this pipeline (")
    assert checkout.outputs() == before


@pytest.mark.slow
def test_a_second_repro_is_refused_while_the_first_is_running(
    project: Project, uninterrupted: Project
) -> None:
    project.set(**LONG)
    first = start(project, "dvc", "repro", "train_wavenet")
    wait_for_state(project, first)
    second = project.dvc("repro", "train_wavenet", code=None)
    assert first.poll() is None, "the first must not have ended before"
    assert second.code != 0
    assert second.stages == []
    assert "Traceback" not in second.text
    assert re.search(r"ERROR: .* is busy, it is being blocked by:\s+\(PID \d+\)", second.text)
    text, _ = first.communicate(timeout=120)
    assert first.returncode == 0, text
    assert project.dvc("repro", "train_wavenet").stages == []
    assert project.outputs()[WAVENET] == uninterrupted.outputs()[WAVENET]


@pytest.mark.parametrize("own", [True, False], ids=["its own", "the shared one"])
def test_a_nan_loss_stops_training_and_keeps_the_last_good_state(
    project: Project, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    before = project.outputs()
    project.set(epochs="5", **({"fcn__lr": "0.3"} if own else {}))
    losses = iter([2.5, 2.4, math.nan])
    monkeypatch.setattr(
        charlm.training.trainer,
        "summed_loss",
        lambda model, windows: torch.tensor(next(losses), dtype=torch.float64) * len(windows),
    )
    monkeypatch.setattr(stages.training, "RESUME", project.path / ".resume")
    line = refused_here(project, "train_fcn", monkeypatch)
    parameter, rate = ("fcn.lr", "0.3") if own else ("lr", "0.2")
    text = (project.path / "params.yaml").read_text(encoding="utf-8").splitlines()
    numbers = [i for i, row in enumerate(text, start=1) if re.match(rf"\s*lr: {rate}", row)]
    assert line == (
        f"error: params.yaml, line {numbers[0]}: {parameter}: training diverged in epoch 3: "
        f"the loss is no longer finite; lower the learning rate (now {rate}), "
        "or stop after epoch 2"
    )
    assert project.outputs() == before, "the earlier checkpoint and its history"
    (state,) = (project.path / ".resume").glob("fcn-*.pt")
    loaded = stages.training.ResumeFile.load(type("", (), {"path": state})())
    assert [epoch["val_loss"] for epoch in loaded["history"]] == [2.5, 2.4]
    assert all(weights.isfinite().all() for weights in loaded["model"].values())


def test_an_infinite_loss_stops_training_at_once(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not wait for the end of the epoch, which may be an hour away."""
    project.set(lr="1e37", batch_size="1")
    seen: list[int] = []
    monkeypatch.setattr(stages.training.Progress, "batches", lambda self, count: seen.append(count))
    line = refused_here(project, "train_fcn", monkeypatch)
    assert "lr: training diverged in epoch 1: " in line
    assert len(seen) * charlm.training.trainer.REPORT_EVERY < 1000
    assert list((project.path / ".resume").glob("*")) == []


def test_a_bug_still_has_a_traceback(project: Project) -> None:
    (project.path / "stages/split.py").write_text("import stages\nstages.run(lambda: 1 / 0)\n")
    ran = project.stage("split", code=1)
    assert "Traceback" in ran.text
    assert "ZeroDivisionError" in ran.text


FOLDERS = ["data/samples", "plots/figures"]


@pytest.mark.parametrize("stage", ["sample", "plot"])
def test_a_folder_is_restored_if_its_stage_refuses_the_input(project: Project, stage: str) -> None:
    """DVC removes the folder before it runs the stage. The folder of `plot` is also in git."""
    before = project.outputs()
    checkpoint_file = project.path / FCN
    checkpoint_file.chmod(0o644)
    checkpoint_file.write_bytes(b"damaged")
    ran = project.dvc("repro", "--force", "--single-item", stage, code=None)
    assert ran.code != 0
    assert ran.stages == [stage]
    after = project.outputs()
    assert {path: data for path, data in after.items() if path.startswith(tuple(FOLDERS))} == {
        path: data for path, data in before.items() if path.startswith(tuple(FOLDERS))
    }


def test_a_folder_is_restored_from_git_in_a_clone_that_pulled_nothing(
    template: Project, tmp_path: Path
) -> None:
    clone = template.clone(tmp_path / "clone")
    figures = {p: data for p, data in clone.outputs().items() if p.startswith("plots/figures/")}
    assert figures
    shutil.rmtree(clone.path / "plots/figures")
    code = "from pipeline.put_back import put_back_outputs; put_back_outputs('plot')"
    clone.run(sys.executable, "-c", code)
    assert figures.items() <= clone.outputs().items()


@pytest.mark.parametrize(
    "path", [FOLDERS[0], *(pytest.param(path, marks=pytest.mark.slow) for path in FOLDERS[1:])]
)
def test_a_damaged_copy_of_a_file_in_a_folder_is_repaired_or_removed(
    project: Project, path: str
) -> None:
    before = project.outputs()
    lock = (project.path / "dvc.lock").read_text(encoding="utf-8")
    md5 = re.search(rf"path: {path}\n\s*hash: md5\n\s*md5: (\w+)\.dir", lock)[1]
    listed = project.path / ".dvc/cache/files/md5" / md5[:2] / f"{md5[2:]}.dir"
    its = json.loads(listed.read_text(encoding="utf-8"))[0]
    file, copy = project.path / path / its["relpath"], listed.parent.parent / its["md5"][:2]
    for damaged in (copy / its["md5"][2:], listed):
        whole = damaged.read_bytes()
        damaged.chmod(0o644)
        damaged.write_bytes(whole[:-9])
        damaged.chmod(0o444)
        assert project.run("python", "-m", "pipeline.check").text == ""
        assert damaged.read_bytes() == whole
    copy = copy / its["md5"][2:]
    copy.chmod(0o644)
    copy.write_bytes(b"damaged")
    copy.chmod(0o444)
    file.unlink()
    assert (
        f"DVC's copy of {path} was damaged; removed it"
        in project.run("python", "-m", "pipeline.check").text
    )
    stage = {"data/samples": "sample", "plots/figures": "plot"}[path]
    assert project.dvc("repro").stages == [stage]
    assert project.outputs() == before


def run_cache(project: Project) -> list[Path]:
    return sorted((project.path / ".dvc/cache/runs").rglob("*"))


def test_a_parameter_edited_while_a_stage_runs_is_not_recorded(
    project: Project, uninterrupted: Project
) -> None:
    """DVC reads parameters when a stage ends, and would record the result with the new value."""
    project.set(**LONG)
    before, recorded, runs = project.outputs(), project.git("diff", "dvc.lock"), run_cache(project)
    elsewhere = Project(project.path / "docs")
    process = start(elsewhere, "dvc", "repro", "--single-item", "../dvc.yaml:train_wavenet")
    wait_for_state(project, process)
    project.set(wavenet__lr="0.1", sample__count="30")
    text, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    (line,) = [line for line in text.splitlines() if line.startswith("error: ")]
    assert "ran: wavenet.lr in params.yaml (empty, now 0.1). Nothing was recorded" in line
    assert project.outputs() == before
    assert project.git("diff", "dvc.lock") == recorded
    assert run_cache(project) == runs
    project.set(wavenet__lr="")
    ran = project.dvc("repro", "--single-item", "train_wavenet")
    assert f"WaveNet: resuming after epoch {LONG['epochs']}" in ran.text
    assert project.outputs()[WAVENET] == uninterrupted.outputs()[WAVENET]
    assert list((project.path / ".resume").glob("*.pt")) == []


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_code_edited_while_a_training_runs_is_not_recorded(
    project: Project, processes: int
) -> None:
    project.set(**LONG, training__processes=str(processes))
    before = project.outputs()
    process = start(project, "dvc", "repro", "--single-item", "train_fcn")
    wait_for_state(project, process)
    with (project.path / "charlm/models/fcn.py").open("a") as file:
        file.write("# edited\n")
    text, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "changed while this stage ran: charlm/models/fcn.py. Nothing" in text
    assert project.outputs() == before
    assert len(list((project.path / ".resume").glob("*.pt"))) == 1


def test_a_list_that_grows_while_a_stage_runs_is_not_recorded(project: Project) -> None:
    before = project.outputs()
    names = project.path / "data/few.txt"
    names.write_text(names.read_text() + "GROWN\n")
    # Append to it after it has been read, and before the stage ends.
    code = """
from charlm.core import files
import stages.build_dataset as stage
write_json = stage.write_json
def append_and_write(*arguments):
    with open("data/few.txt", "a") as file:
        file.write("AGAIN\\n")
    write_json(*arguments)
stage.write_json = append_and_write
stage.run(stage.main)
"""
    ran = project.run("python", "-c", code, code=1, DVC_STAGE="build_dataset")
    assert "changed while this stage ran: data/few.txt. Nothing" in ran.text
    assert project.outputs() == before | {"data/few.txt": names.read_bytes()}


@pytest.mark.parametrize("stage", ["sample", "evaluate"])
def test_a_model_edited_while_a_stage_loads_it_is_not_recorded(
    project: Project, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """Its code has been imported by then, and the edit is undone while the stage runs."""
    monkeypatch.chdir(project.path)
    monkeypatch.setattr(stages, "inputs", Inputs(stage))
    module = importlib.import_module(f"stages.{stage}")
    load_for, runner = module.load_for, module.Runner
    source = Path("charlm/models/fcn.py")
    before = source.read_text()

    def edit_and_load(*arguments: object) -> object:
        source.write_text(f"{before}# edited\n")
        return load_for(*arguments)

    def undo_and_run(*arguments: object) -> object:
        source.write_text(before)
        return runner(*arguments)

    monkeypatch.setattr(module, "load_for", edit_and_load)
    monkeypatch.setattr(module, "Runner", undo_and_run)
    with refused("changed while this stage ran: charlm/models/fcn.py. Nothing"):
        module.main()


def test_editing_and_restoring_a_style_sheet_during_plot_has_no_effect(
    project: Project,
) -> None:
    before = project.outputs()
    code = """
from pathlib import Path
import stages.plot as stage
style, render = Path("charlm/report/style.css"), stage.page.render
before = style.read_text()
def edit_and_render(*arguments):
    style.write_text(f"{before}/* edited */")
    rendered = render(*arguments)
    style.write_text(before)
    return rendered
stage.page.render = edit_and_render
stage.stages.run(stage.main)
"""
    project.run("python", "-c", code, DVC_STAGE="plot")
    assert project.outputs() == before
