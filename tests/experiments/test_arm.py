"""The comparison of outputs between x86-64 and ARM64; emulation is too slow for a test."""

import platform
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from experiments import arm
from tests.conftest import Project
from tests.helpers import refused

FILES = {
    "data/split.safetensors": [{"part": np.arange(3)}] * 3,
    "data/checkpoints/fcn.safetensors": [
        {"bias": np.float32([1, 2])},
        {"bias": np.float32([1, 2.0002])},
        {"weight": np.float32([1, 2])},
    ],
    "metrics/evaluation.json": ['{"fcn": {"loss": 2.1}}', '{"fcn": {"loss": 2.1}}', "{}"],
    "plots/history/fcn.csv": [
        "epoch,val_loss\n1,2.125\n2,1e-3\n",
        "epoch,val_loss\n1,2.250\n2,2e-3\n",
        "epoch,val_loss\n1,2.250\n",
    ],
    "data/samples/fcn.csv": ["name\nANNA\nELI\nR2D2\n", "name\nANNA\nEVA\nR2D3\n", "name\nANNA\n"],
    "plots/figures/losses.png": [(4, 2, 0), (4, 2, 255), (4, 3, 255)],
    "plots/report.html": ["<p>1</p>", "<p>2</p>", "<p>2</p>"],
}
"""Three versions of each file."""


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    match content:
        case str():
            path.write_text(content, encoding="utf-8")
        case (width, height, last):
            picture = Image.new("RGB", (width, height))
            picture.putpixel((width - 1, height - 1), (0, 0, last))
            picture.save(path)
        case dict():
            path.write_bytes(safetensors.numpy.save(content))


def test_each_folder_is_compared_with_the_next(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("x86-64", "old", "new")}
    for file, versions in FILES.items():
        for folder, content in zip(folders.values(), versions, strict=True):
            write(folder / file, content)
    assert arm.table(folders, [Path(file) for file in FILES]).splitlines() == [
        "| output | x86-64 and old | old and new |",
        "| --- | --- | --- |",
        "| `data/split.safetensors` | same bytes | same bytes |",
        "| `data/checkpoints/fcn.safetensors` | up to 2e-04 | other tensors |",
        "| `metrics/evaluation.json` | same bytes | other text in 1 of 1 lines |",
        "| `plots/history/fcn.csv` | up to 1e-01 | other text in 1 of 3 lines |",
        "| `data/samples/fcn.csv` | other text in 2 of 4 lines | other text in 2 of 4 lines |",
        "| `plots/figures/losses.png` | 1 of 8 pixels | another size |",
        "| `plots/report.html` | differs | same bytes |",
    ]


def test_the_files_tell_torch_which_core_is_emulated(tmp_path: Path) -> None:
    arm.write_identity(tmp_path, arm.CORES["Cortex-A72"])
    processors = (tmp_path / "proc/cpuinfo").read_text(encoding="utf-8")
    assert "CPU implementer\t: 0x41\n" in processors
    assert "CPU part\t: 0xd08\nCPU revision\t: 3\n" in processors
    (register,) = tmp_path.rglob("midr_el1")
    assert register.read_text(encoding="utf-8") == "0x00000000410fd083\n"


def test_all_stages_run_in_order_with_few_epochs(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run them with a Python that only logs what it is asked to run."""
    log = project.path / "log.txt"
    python = project.path / "python"
    python.write_text(f'#!/bin/sh\necho "$2" >> "{log}"\n')
    python.chmod(0o755)
    assert arm.run_stages("here", project.path, [str(python)]) == []
    asked = log.read_text().split()
    assert asked[:2] == ["stages.build_dataset", "stages.split"]
    assert asked[-1] == "stages.plot"
    assert asked.index("stages.train_hybrid") < asked.index("stages.train_compact")
    assert "\nepochs: 1 " in (project.path / "params.yaml").read_text(encoding="utf-8")
    kept = [path for path in project.outputs() if path.endswith((".safetensors", ".json", ".html"))]
    assert kept == [], "outputs of an earlier run"


def test_products_are_counted_on_every_core_without_and_with_pinned_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An emulator that computes nothing prints the core, unless its kernels are pinned."""
    fake = tmp_path / "qemu"
    fake.write_text('#!/bin/sh\ncase "$*" in *CORETYPE=ARMV8*) echo same;; *) echo "$2";; esac\n')
    fake.chmod(0o755)
    monkeypatch.setattr(arm, "emulator", lambda: str(fake))
    cores = len({*arm.PRODUCT_CORES})
    assert cores == 5
    _, _, *lines = arm.products(tmp_path).splitlines()
    assert lines == [f"| {r} × {i} × {c} | {cores} | 1 |" for r, i, c in arm.SHAPES]
    fake.write_text("#!/bin/sh\necho no >&2\nexit 1\n")
    with refused(f"{fake} -cpu ", " fails: no"):
        arm.products(tmp_path)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="compares ARM64 with x86-64")
def test_a_missing_file_or_program_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with refused("usr/bin/python3 does not exist", "arm.py"):
        arm.check(tmp_path)
    write(tmp_path / arm.PYTHON, "")
    with refused("packages/torch does not exist"):
        arm.check(tmp_path)
    write(tmp_path / "packages/torch/__init__.py", "")
    arm.check(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with refused("no qemu-aarch64-static here", "apt-get install qemu-user-static"):
        arm.emulator()


@pytest.mark.parametrize(
    ("system", "processor"), [("darwin", "arm64"), ("linux", "aarch64"), ("win32", "AMD64")]
)
def test_other_systems_are_refused(
    system: str, processor: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: processor)
    with refused(f"on {processor}; ARM64 is compared with x86-64, on Linux"):
        arm.check(tmp_path)
