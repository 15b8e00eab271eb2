"""Single stages: bad input, interruptions, and what they print while they train."""

import gzip
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from charlm.evaluation import metrics
from pipeline.check import check_input
from stages import evaluate
from tests import helpers
from tests.conftest import Project, Ran
from tests.helpers import refused_here


def refused(ran: Ran) -> str:
    """Return the only line that a refusing stage prints."""
    assert ran.code == 1, ran.text
    (line,) = ran.text.strip().splitlines()
    assert line.startswith("error: ")
    return line


def test_a_refusing_stage_prints_one_line_and_nothing_else(checkout: Project) -> None:
    """Run in its own process, unlike the tests below."""
    text = (checkout.path / "params.yaml").read_text(encoding="utf-8")
    checkout.set(lr="abc")
    assert "params.yaml, line 6: lr is 'abc'" in refused(checkout.stage("train_fcn", code=1))
    (checkout.path / "params.yaml").write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("stage", "parameters", "expected"),
    [
        ("train_fcn", {"lr": "abc"}, ["params.yaml, line 6", "lr is 'abc'", "positive number"]),
        ("train_fcn", {"lr": "-1"}, ["params.yaml, line 6", "lr is -1", "positive number"]),
        ("train_wavenet", {"block_size": "6"}, ["line 5", "block_size is 6", "power of two"]),
        ("build_dataset", {"block_size": "6"}, ["line 5", "block_size is 6", "WaveNet"]),
        (
            "train_wavenet",
            {"device": "cuda"},
            ["line 9: device: torch", "finds no cuda", "auto or cpu"],
        ),
        ("split", {"split.train": "0.9"}, ["0.9", "leave no test set"]),
        ("split", {"split.val": "0.0001"}, ["line 17: split: ", "val 0.0001", "leave no val set"]),
        ("evaluate", {"fcn.epochs": "2.5"}, ["line 48", "fcn.epochs is 2.5", "integer"]),
        (
            "train_fcn",
            {"training.distill": "0.5"},
            ["training.distill: stages/train_fcn.py", "has no teacher; set distill to 0"],
        ),
        ("sample", {"sample.prefix": "Ж"}, ["sample.prefix: 'Ж'", "known characters"]),
        ("build_dataset", {"names.path": "nope.txt"}, ["line 12: names: nope.txt does not exist"]),
        ("build_dataset", {"names.path": "empty.txt"}, ["empty.txt contains no names"]),
        ("build_dataset", {"names.path": "one.txt"}, ["one.txt contains only one name"]),
        ("build_dataset", {"names.path": "latin.txt"}, ["latin.txt, line 2", "UTF-8", "iconv"]),
        (
            "build_dataset",
            {"names.path": "table.csv", "names.column": "nom"},
            ["table.csv, line 1", "no column 'nom'", "'rank', 'name'"],
        ),
    ],
)
def test_bad_input_is_refused_in_one_line_and_nothing_is_lost(
    checkout: Project,
    stage: str,
    parameters: dict[str, str],
    expected: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    params = checkout.path / "params.yaml"
    before, text = checkout.outputs(), params.read_text(encoding="utf-8")
    try:
        checkout.set(**{name.replace(".", "__"): value for name, value in parameters.items()})
        line = refused_here(checkout, stage, monkeypatch)
    finally:
        params.write_text(text, encoding="utf-8")
    for words in expected:
        assert words in line
    assert checkout.outputs() == before


@pytest.mark.parametrize(
    ("stage", "lost"),
    [
        ("split", "data/dataset.safetensors"),
        ("train_fcn", "data/split.safetensors"),
        ("evaluate", "data/checkpoints/fcn.safetensors"),
        ("plot", "plots/evaluation/models.csv"),
        ("plot", "data/samples/compact.csv"),
        ("plot", "plots/history/wavenet.csv"),
    ],
)
def test_the_error_for_a_missing_input_says_how_to_recreate_it(
    checkout: Project, stage: str, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = checkout.outputs()
    (checkout.path / lost).rename(checkout.path / "elsewhere")
    try:
        line = refused_here(checkout, stage, monkeypatch)
    finally:
        (checkout.path / "elsewhere").rename(checkout.path / lost)
    assert line == f"error: {lost} does not exist; recreate it with: dvc repro"
    assert checkout.outputs() == before


@pytest.fixture(scope="module")
def checkout(template: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy of the small project with bad lists of names. Each test leaves it as it was."""
    target = tmp_path_factory.mktemp("checkout") / "project"
    shutil.copytree(template.path, target, symlinks=True)
    (target / "empty.txt").write_text("\n \n")
    (target / "one.txt").write_text("ANNE\nANNE\n")
    (target / "latin.txt").write_bytes("ANNE\nZOÉ\n".encode("latin-1"))
    (target / "table.csv").write_text("rank,name\n1,ANNE\n2,MARIE\n3,JEAN\n")
    return Project(target)


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        (["device=cuda"], "finds no cuda device"),
        (["names.path=one.txt"], "one.txt contains only one name"),
    ],
)
def test_outputs_survive_a_refusal_under_dvc(
    checkout: Project, parameters: list[str], expected: str
) -> None:
    """DVC removes the outputs of a stage before it runs the stage; they must be put back."""
    before, text = checkout.outputs(), (checkout.path / "params.yaml").read_text(encoding="utf-8")
    assignments = [word for parameter in parameters for word in ("-S", parameter)]
    ran = checkout.dvc("exp", "run", *assignments, code=None)
    assert ran.code != 0
    assert ran.stages
    lines = [line for line in ran.text.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert expected in lines[0]
    assert "Traceback" not in ran.text
    assert checkout.outputs() == before
    checkout.git("checkout", "params.yaml")
    assert (checkout.path / "params.yaml").read_text(encoding="utf-8") == text
    assert checkout.dvc("repro").stages == []


@pytest.mark.slow
def test_a_refused_experiment_hides_nothing_from_git(project: Project) -> None:
    """DVC and git can miss a change to a file if its length stays the same."""
    project.dvc("exp", "run", "-S", "fcn.lr=0.1", "train_fcn")
    changed = project.git("status", "--short")
    assert "plots/history/fcn.csv" in changed
    project.dvc("exp", "run", "-S", "fcn.lr=-.1", "train_fcn", code=None)
    assert project.git("status", "--short") == changed
    project.git("checkout", ".")
    assert project.git("show", "HEAD:plots/history/fcn.csv").encode() == (
        (project.path / "plots/history/fcn.csv").read_bytes()
    )


def test_metrics_and_plots_survive_a_refusal_in_a_clone_that_pulled_nothing(
    template: Project, tmp_path: Path
) -> None:
    clone = template.clone(tmp_path / "clone")
    before = clone.outputs()
    clone.set(lr="-1")
    assert clone.dvc("repro", code=None).code != 0
    after = clone.outputs()
    assert {name: after[name] for name in before} == before


def test_a_missing_list_of_names_is_reported_by_dvc_and_loses_nothing(
    project: Project,
) -> None:
    before = project.outputs()
    project.set(names__path="data/nope.txt")
    ran = project.dvc("repro", code=None)
    assert ran.code != 0
    assert "No such file or directory" in ran.text
    assert "nope.txt" in ran.text
    project.set(names__path="data/few.txt")
    assert project.dvc("repro").stages == []
    assert project.outputs() == before


def test_the_check_before_make_repro_changes_nothing(checkout: Project) -> None:
    before, params = checkout.outputs(), checkout.path / "params.yaml"
    text = params.read_text(encoding="utf-8")
    assert checkout.run("python", "-m", "pipeline.check").text == ""
    checkout.set(names__path="data/nope.txt")
    assert "data/nope.txt does not exist" in refused(
        checkout.run("python", "-m", "pipeline.check", code=1)
    )
    params.write_text(text, encoding="utf-8")
    assert checkout.outputs() == before


def test_the_check_refuses_a_path_that_dvc_does_not_expand(
    checkout: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = checkout.path / "params.yaml"
    text = params.read_text(encoding="utf-8")
    monkeypatch.chdir(checkout.path)
    monkeypatch.setenv("HOME", str(checkout.path))
    try:
        checkout.set(names__path="~/data/few.txt")
        with helpers.refused("params.yaml, line 12: names: DVC does not expand ~; set path to"):
            check_input()
        checkout.set(names__path="https://example.com/names.txt")
        with helpers.refused("names: https://example.com/names.txt is a URL", "dvc import-url"):
            check_input()
    finally:
        params.write_text(text, encoding="utf-8")


def test_a_table_without_headings_can_be_set_on_the_command_line(project: Project) -> None:
    text = (project.path / "data/few.txt").read_text(encoding="utf-8")
    rows = "".join(f"{name},F,5\n" for name in text.splitlines())
    (project.path / "yob2020 (1).txt").write_text(rows, encoding="utf-8")
    before = project.outputs()
    settings = ["names.path='yob2020 (1).txt'", "names.header=false", "names.column=1"]
    words = [word for setting in settings for word in ("-S", setting)]
    ran = project.dvc("exp", "run", "--single-item", "build_dataset", *words)
    assert f"{text.count(chr(10))} names from {text.count(chr(10))} rows (" in ran.text
    assert project.outputs() == before


def test_evaluate_warns_of_memorization_and_small_test_sets(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project.set(wavenet__dropout="0.3", compact__keep="last")
    monkeypatch.chdir(project.path)
    evaluate.main()
    told = capsys.readouterr().out
    assert "memorized" not in told
    assert "say little" not in told
    monkeypatch.setattr(metrics, "MEMORIZED", -9.0)
    monkeypatch.setattr(metrics, "FEW_WINDOWS", 10**6)
    evaluate.main()
    told = capsys.readouterr().out
    assert re.search(r"^the test set has only \d+ windows, so these losses say little", told, re.M)
    said = re.compile(r"^(\w+) has memorized its training names; (.*)$", flags=re.MULTILINE)
    assert dict(said.findall(told)) == {
        "fcn": "try dvc exp run -S ++fcn.keep=best -S fcn.dropout=0.2",
        "wavenet": "try dvc exp run -S ++wavenet.keep=best",
        "compact": "try dvc exp run -S compact.keep=best",
        "hybrid": "more names would help",
    }


def test_diverging_training_stops_and_says_what_to_lower(project: Project) -> None:
    before = project.outputs()
    ran = project.dvc("exp", "run", "-S", "fcn.lr=1e37", "-S", "epochs=4", code=None)
    assert ran.code != 0
    (line,) = [line for line in ran.text.splitlines() if line.startswith("error: ")]
    assert re.search(r"diverged in epoch \d.*lower the learning rate \(now 1e\+37\)", line)
    assert project.outputs() == before


@pytest.mark.parametrize(
    ("stages", "idle"),
    [
        (["build_dataset", "split"], ["torch", "numba", "pandas", "matplotlib"]),
        (["train_fcn", "evaluate", "sample"], ["torch._dynamo", "matplotlib"]),
        (["plot"], ["torch", "numba"]),
    ],
)
def test_a_stage_imports_nothing_slow_that_it_does_not_need(
    checkout: Project, stages: list[str], idle: list[str]
) -> None:
    """The stages run in one process here, and none of them may import these modules."""
    code = (
        f"import sys; from stages import {', '.join(stages)}\n"
        f"for stage in ({', '.join(stages)},): stage.main()\n"
        f"print([name for name in {idle} if name in sys.modules])"
    )
    before = checkout.outputs()
    assert checkout.run(sys.executable, "-c", code).text.splitlines()[-1] == "[]"
    assert checkout.outputs() == before


def test_a_log_gets_a_line_every_few_epochs(project: Project) -> None:
    project.set(epochs="40")
    text = project.stage("train_wavenet").text
    lines = re.findall(
        r"^WaveNet, epoch (\d+)/40: train \d\.\d{4}, val \d\.\d{4}, \d+ s left$", text, re.MULTILINE
    )
    assert lines == ["1", *map(str, range(4, 41, 4))]
    assert "\r" not in text


def test_a_terminal_gets_a_bar_with_epochs_losses_and_time_left(project: Project) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.train_wavenet"],
        cwd=project.path,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 65536):
            shown += chunk
    except OSError:  # Linux reports the closed terminal in this way
        pass
    finally:
        os.close(ours)
    assert process.wait() == 0
    assert re.search(
        r"\rWaveNet, epoch \d+/2 \|.*\|, train \d\.\d{4}, val \d\.\d{4}, \d+:\d+ left",
        shown.decode(),
    )


def test_names_are_read_from_a_compressed_list(project: Project) -> None:
    plain = (project.path / "data/few.txt").read_bytes()
    (project.path / "few.txt.gz").write_bytes(
        gzip.compress(b"\xef\xbb\xbf" + plain.replace(b"\n", b"\r\n"))
    )
    before = project.outputs()
    project.set(names__path="few.txt.gz")
    project.stage("build_dataset")
    assert project.outputs() == before


def test_sample_reports_names_that_may_be_cut(project: Project) -> None:
    project.set(sample__max_length="1000")
    assert "may be cut" not in project.stage("sample").text
    project.set(sample__max_length="3")
    told = project.stage("sample").text.splitlines()[-1]
    expected = r"[\d,]+ of the names may be cut at 3 characters; raise sample.max_length"
    assert re.fullmatch(expected, told)


def test_build_dataset_reports_names_and_duplicates(project: Project) -> None:
    names = ["ANNE", " ANNE", "E\u0301LISE", "\u00c9LISE", "", "JEAN", "ZOE"]
    (project.path / "data/few.txt").write_text("\n".join(names), encoding="utf-8")
    told = project.stage("build_dataset").text
    assert told == (
        "4 names from 7 lines (2 duplicates, 1 empty), 10 characters, 20 windows, "
        "5 characters in the longest\n"
    )


@pytest.mark.parametrize(
    ("module", "missing"),
    [
        ("stages.sample", "pandas"),
        ("stages.split", "pydantic"),
        ("pipeline.side_by_side", "dvc"),
        ("experiments.sweep", "dvc"),
        ("benchmarks.run", "torch"),
    ],
)
def test_running_outside_the_environment_is_reported_in_one_line(
    module: str, missing: str, checkout: Project
) -> None:
    ran = checkout.run(sys.executable, "-S", "-m", module, code=1)
    assert ran.text.startswith(f"error: this Python has no {missing}; install it, or run: ")
    assert ran.text.count("\n") == 1


@pytest.mark.parametrize("installed", [True, False])
def test_nothing_is_lost_outside_the_environment(project: Project, installed: bool) -> None:
    """DVC runs the first `python` on PATH, which is a different one unless .venv is activated."""
    before = project.outputs()
    write_script(project.path / "other/python", f'exec "{sys.executable}" -S "$@"')
    if installed:
        write_script(project.path / ".venv/bin/python", f'exec "{sys.executable}" "$@"')
    path = f"{project.path / 'other'}{os.pathsep}{os.environ['PATH']}"
    command = (sys.executable, "-m", "dvc", "repro", "--force", "--single-item", "evaluate")
    told = project.run(*command, code=255, PATH=path).text
    assert "error: this Python has no ruamel; install it, or run: source " in told
    assert "Traceback" not in told
    if not installed:
        assert project.outputs() != before
        (restore,) = re.findall("restore them with: python (.*)", told)
        project.run("python", *restore.split())
    assert project.outputs() == before


def write_script(path: Path, command: str) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\n{command}\n")
    path.chmod(0o755)


FINISHING = """
import os, signal
from charlm.training.resume import ResumeFile
from stages.train_fcn import main
from stages import run
remove = ResumeFile.remove
def interrupted(self):
    os.kill(os.getpid(), signal.SIGINT)
    remove(self)
    os.kill(os.getpid(), signal.SIGINT)
ResumeFile.remove = interrupted
run(main)
os.kill(os.getpid(), signal.SIGINT)
print("through")
"""


def test_ctrl_c_after_training_does_not_lose_the_result(checkout: Project) -> None:
    before = checkout.outputs()
    ran = checkout.run(sys.executable, "-c", FINISHING)
    assert ran.text.endswith("through\n")
    assert checkout.outputs() == before
    assert list((checkout.path / ".resume").glob("*.pt")) == []


IMPATIENT = """
import os, signal, sys
import stages, pipeline.put_back
def put_back(stage):
    os.kill(os.getpid(), signal.SIGINT)
    print("put back", stage)
stages.DVC_STAGE, pipeline.put_back.put_back_outputs = "split", put_back
raise KeyboardInterrupt
"""


def test_outputs_are_put_back_despite_a_second_ctrl_c(checkout: Project) -> None:
    ran = checkout.run(sys.executable, "-c", IMPATIENT, code=130)
    assert ran.text.splitlines() == [
        "interrupted; run the same command again to resume",
        "put back split",
    ]


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("x.squeeze(1))  #", "x.squeeze(1)  #", "line 51: '(' was never closed; fix it"),
        ("import Tensor, nn", "import Tensro, nn", "line 7: ImportError: cannot import name"),
        ("models.base import", "models.bse import", "line 9: ModuleNotFoundError: No module"),
        ("norm(linear(x))", "nrom(linear(x))", "line 49: forward of WaveNet raises an error: Name"),
        (
            "class WaveNet(LanguageModel)",
            "class WaveNet(nn.Module)",
            "is not a LanguageModel",
        ),
        ("class WaveNet(", "class Tree(", "stages/train_wavenet.py, line 3: ImportError: cannot"),
    ],
)
def test_a_mistake_in_a_model_file_is_reported_in_one_line(
    project: Project, right: str, wrong: str, said: str
) -> None:
    path = project.path / "charlm/models/wavenet.py"
    text = path.read_text(encoding="utf-8")
    assert right in text
    path.write_text(text.replace(right, wrong), encoding="utf-8")
    ran = project.stage("train_wavenet", code=1)
    (line,) = ran.text.splitlines()
    assert line.startswith("error: ")
    assert said in line
