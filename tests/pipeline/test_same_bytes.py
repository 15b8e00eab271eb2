"""The same bytes in another environment, with more threads, and in a clone run from scratch."""

import importlib.metadata
import io
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

import pipeline.verify
from charlm.core.errors import InputError
from charlm.core.files import write_json
from charlm.core.pinning import KERNELS
from pipeline import environment
from pipeline.cache import content_of
from pipeline.verify import REQUIREMENTS, first_difference, metric_changes
from tests.conftest import MODELS, STAGES, TRAINED, Project, start
from tests.pipeline.test_dvc_yaml import REPORT

VERIFY = (sys.executable, "-m", "pipeline.verify")
OUTPUTS = 14 + len(MODELS) + len(TRAINED)  # checkpoints, and histories of training

HOSTILE = {
    **dict.fromkeys(KERNELS, ""),
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "AUTO",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    "MKL_DYNAMIC": "TRUE",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "DNNL_MAX_CPU_ISA": "SSE41",
    "ONEDNN_DEFAULT_FPMATH_MODE": "ANY",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1",
    "OPENBLAS_CORETYPE": "Prescott",
    **dict.fromkeys(["OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"], "3"),
    "NPY_ENABLE_CPU_FEATURES": "X86_V3",
    "NUMBA_CPU_NAME": "generic",
    "NUMBA_CPU_FEATURES": "-avx,-avx2",
    "NUMBA_ENABLE_AVX": "0",
    "NUMBA_OPT": "0",
    "NUMBA_LOOP_VECTORIZE": "0",
    "NUMBA_DISABLE_JIT": "1",
    "CUBLAS_WORKSPACE_CONFIG": ":16:8",
    "PYTHONHASHSEED": "7",
    "PYTHONIOENCODING": "ascii",  # cannot encode half of the printed names
    "LC_ALL": "C",
    "LANGUAGE": "tr",
    "TZ": "Asia/Kathmandu",
    "COLUMNS": "20",
    "MPLBACKEND": "svg",
    "SOURCE_DATE_EPOCH": "0",
}


@pytest.fixture
def hostile(tmp_path: Path) -> dict[str, str]:
    """An environment that asks for different kernels and a different style of figures."""
    matplotlibrc = tmp_path / "matplotlib" / "matplotlibrc"
    matplotlibrc.parent.mkdir()
    matplotlibrc.write_text("lines.linewidth: 9\nfont.size: 20\nsavefig.dpi: 33\n")
    style = {"MPLCONFIGDIR": str(matplotlibrc.parent), "MATPLOTLIBRC": str(matplotlibrc)}
    cold = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # no warm start
    return {**HOSTILE, **style, "PATH": cold}


def test_no_environment_changes_a_byte_of_a_model_or_a_figure(
    project: Project, hostile: dict[str, str]
) -> None:
    """Also with two threads."""
    before = project.outputs()
    project.set(training__threads="2")
    for stage, output in (("train_fcn", "data/checkpoints/fcn.safetensors"), ("plot", REPORT)):
        (project.path / output).unlink()
        project.run("python", "-m", f"stages.{stage}", **hostile)
    assert project.outputs() == before


@pytest.mark.slow
def test_a_clone_run_from_scratch_has_the_same_bytes(
    project: Project, hostile: dict[str, str]
) -> None:
    """In a hostile environment, and with two threads."""
    before = project.outputs()
    # If the clone also used this cache, it would take the runs from there.
    project.dvc("config", "cache.dir", str(project.path / ".dvc/cache"))
    project.set(training__threads="2")
    project.commit("A cache that all clones share, and two threads")
    (project.path / "notes.txt").write_text("not committed")
    ran = project.run(*VERIFY, **hostile)
    assert "Traceback" not in ran.text
    # With two cores, trainings run side by side, and each line starts with the stage's name.
    started = re.findall(r"^(?:\w+ +\| )?Running stage '(\w+)'", ran.text, flags=re.MULTILINE)
    assert sorted(started) == sorted(STAGES)
    assert "is cached" not in ran.text
    assert "git add" not in ran.text
    assert "ignoring uncommitted changes: notes.txt" in ran.text
    report = ran.text[ran.text.index("All outputs in dvc.lock") :]
    assert "differs" not in report
    for path in before:
        output = re.sub(r"^(data/samples|plots/figures)/.*", r"\1", path)
        if path not in {"data/few.txt", "data/prenoms.txt", "data/README.md"}:
            assert f"  same     {output}\n" in report or path.endswith(".gitignore")
    assert "This machine" not in report
    assert f"All {OUTPUTS} outputs have the committed bytes." in report
    assert project.outputs() == before


def test_verify_reports_a_pipeline_that_fails(project: Project) -> None:
    project.set(lr="-1")
    project.commit("A rate that is refused")
    ran = project.run(*VERIFY, code=1)
    why, told = ran.text.splitlines()
    assert re.match(r"error: params\.yaml, line \d+: lr is -1; ", why)
    assert told == "error: the pipeline failed in the clone (see above); fix it and commit first"


@pytest.mark.slow
@pytest.mark.parametrize(
    "end",
    [
        pytest.param(lambda process: os.killpg(process.pid, signal.SIGINT), id="ctrl-c"),
        pytest.param(lambda process: process.terminate(), id="a request to end"),
    ],
)
def test_verify_leaves_nothing_behind_when_it_is_interrupted(
    project: Project,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    end: Callable[["subprocess.Popen[str]"], None],
) -> None:
    project.set(epochs="5000")
    project.commit("A run that does not end meanwhile")
    aside = tmp_path / "aside"
    aside.mkdir()
    monkeypatch.setenv("TMPDIR", str(aside))
    process = start(project, *VERIFY)
    said = iter(process.stdout or ())
    for line in said:
        if ", epoch 1/" in line:
            break
    within = psutil.Process(process.pid).children(recursive=True)
    assert within
    end(process)
    *_, last = said
    assert process.wait(timeout=60) == 130
    assert last == "interrupted; run the same command again to start over\n"
    assert list(aside.glob("verify-*")) == []
    assert [p for p in within if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []


@pytest.fixture
def changed_run(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project in which verification finds a different loss in the metrics, and other samples."""

    def run_with_changes(clone: Path) -> None:
        edit(clone / "metrics/evaluation.json", '"test_loss": ', '"test_loss": 1')
        shutil.copytree(project.path / "data/samples", clone / "data/samples")
        edit(clone / "data/samples/fcn.csv", "name,", "named,")
        lock = (clone / "dvc.lock").read_text(encoding="utf-8")
        for output in ("metrics/evaluation.json", "data/samples"):
            start = lock.index(
                "outs:", lock.index("  sample:" if "sam" in output else "  evaluate:")
            )
            start = lock.index(f"- path: {output}\n", start)
            digest = lock[lock.index("md5: ", start) + 5 :].split("\n")[0]
            lock = lock.replace(digest, "0" * 32)
        (clone / "dvc.lock").write_text(lock, encoding="utf-8")

    monkeypatch.chdir(project.path)
    monkeypatch.setattr(pipeline.verify, "run_from_scratch", run_with_changes)
    return project


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_different_bytes_are_an_error_where_the_same_are_promised(
    changed_run: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=f"2 of {OUTPUTS} outputs differ from the committed bytes"):
        pipeline.verify.main()
    said = capsys.readouterr().out
    assert "  differs  metrics/evaluation.json\n           line 5:" in said
    assert "metrics/evaluation.json fcn.test_loss: 1" in said
    assert "  differs  data/samples\n           fcn.csv: line 1: named,log_like" in said
    assert "  same     data/checkpoints/fcn.safetensors" in said
    assert f"This machine: python {'.'.join(map(str, sys.version_info[:3]))}, dvc " in said
    for secret in (os.uname().nodename, str(Path.home()), str(changed_run.path)):
        assert not re.search(rf"(?<!\w){re.escape(secret)}(?!\w)", said), secret


def test_on_another_architecture_the_differences_are_only_reported(
    changed_run: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    pipeline.verify.main()
    said = capsys.readouterr().out
    assert "machine aarch64" in said
    assert "The same bytes are not promised here:\n\n  the processor is aarch64" in said
    assert "Differences in metrics" in said
    assert "fcn.test_loss" in said


def test_the_promise_depends_on_everything_that_may_affect_a_byte(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpu = torch.device("cpu")

    def reasons(device: torch.device = cpu) -> list[str]:
        return environment.without_promise(REQUIREMENTS, device)

    assert reasons() == []
    assert reasons(torch.device("cuda")) == ["the device is cuda, not cpu"]
    for version, told in (((3, 10, 0), 1), ((3, 11, 0), 0), ((3, 14, 9), 0), ((3, 15, 0), 1)):
        with monkeypatch.context() as patch:
            patch.setattr("sys.version_info", version)
            assert len(reasons()) == told, version
    with monkeypatch.context() as patch:
        patch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "DEFAULT")
        assert reasons() == ["the processor has no AVX2"]
    with monkeypatch.context() as patch:
        patch.setattr("platform.system", lambda: "Windows")
        assert reasons() == ["the system is Windows, not Linux"]
    found = importlib.metadata.version
    for local, told in (("2.13.0+cu130", []), ("2.14.0", ["torch is 2.14.0, not 2.13.0"])):
        with monkeypatch.context() as patch:
            patch.setattr(
                "importlib.metadata.version",
                lambda name, local=local: local if name == "torch" else found(name),
            )
            assert reasons() == told


def test_the_first_difference_is_located_by_line_tensor_or_pixel(template: Project) -> None:
    outputs = template.outputs()

    def told(path: str, old: bytes | None = None) -> str:
        before = outputs[path] if old is None else old
        return first_difference(path, {".": before}, {".": outputs[other]})

    other = "metrics/evaluation.json"
    changed = outputs[other].replace(b'"val_loss": ', b'"val_loss": 1', 1)
    assert told(other, changed).startswith('line 4: "val_loss": ')
    assert "line " in told(other, outputs[other] + b"more\n")
    other = "data/checkpoints/fcn.safetensors"
    changed = bytearray(outputs[other])
    changed[-1] ^= 1
    assert told(other, bytes(changed)).startswith("tensor ")
    assert "(1 of " in told(other, bytes(changed))
    assert "tensor " in told("data/checkpoints/wavenet.safetensors")
    other = "plots/figures/losses.png"
    pixels = np.asarray(Image.open(io.BytesIO(outputs[other]))).copy()
    pixels[3, 7] ^= 1
    changed = io.BytesIO()
    Image.fromarray(pixels).save(changed, "png")
    assert told(other, changed.getvalue()).startswith("pixel (7, 3), and 0 more of ")
    assert " x " in told("plots/figures/embeddings.png")
    folder = content_of(template.path / "data/samples")
    fewer = {name: data for name, data in folder.items() if name != "fcn.csv"}
    assert first_difference("data/samples", folder, fewer) == "fcn.csv: only committed"
    assert first_difference("data/samples", fewer, folder) == "fcn.csv: only here"
    assert first_difference(other, {".": b""}, None) == "no stage in dvc.yaml writes it"
    assert first_difference(other, None, {".": b""}) == (
        "the committed content is not available; if there is a remote, run dvc pull"
    )


def test_changed_metrics_are_listed_with_their_difference(tmp_path: Path) -> None:
    contents = []
    for loss in (2.0, 2.125):
        write_json(tmp_path / "m.json", {"net": {"loss": loss, "parameters": 3}})
        contents.append(content_of(tmp_path / "m.json"))
    assert list(metric_changes("m.json", *contents)) == [
        "  m.json net.loss: 2.125000; committed: 2.000000 (+0.125000)"
    ]
