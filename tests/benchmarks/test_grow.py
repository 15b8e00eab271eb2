"""The benchmark of growing lists: its data, measurements, table and plot."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import grow
from tests.conftest import ROOT, Project
from tests.helpers import read_names


def test_a_missing_checkpoint_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["grow", "--checkpoint", str(tmp_path / "none")])
    with pytest.raises(SystemExit, match="create it with: dvc repro"):
        grow.main()


def test_names_are_invented_until_there_are_enough(template: Project, tmp_path: Path) -> None:
    checkpoint = template.path / "data/checkpoints/fcn.safetensors"
    grow.write_list(tmp_path / "names.txt", 500, checkpoint)
    names = read_names(tmp_path / "names.txt")
    assert (len(names.names), names.duplicates) == (500, 0)


def rows() -> list[dict[str, float]]:
    seconds = {f"{step}_seconds": 2.0 for step in grow.STEPS}
    row = {"names": 500, "windows": 4000, **seconds, "split_mb": 1250.4, "epoch_mb": 250.0}
    return [row, {**row, "names": 1000, "epoch_seconds": 4000.0, "split_mb": 90.04}]


def test_the_table_has_units() -> None:
    header, _, first, second = grow.table(rows()).splitlines()
    assert header == (
        "| names | windows | `build_dataset`, s | `split`, s | peak memory, MB "
        "| epoch, s | peak memory, MB |"
    )
    assert first == "| 500 | 4,000 | 2.0 | 2.0 | 1,250 | 2.0 | 250 |"
    assert second == "| 1,000 | 4,000 | 2.0 | 2.0 | 90.0 | 4,000 | 250 |"


def test_the_table_and_its_plot_are_written(tmp_path: Path) -> None:
    grow.write(rows(), tmp_path)
    text = (tmp_path / "GROWTH.md").read_text(encoding="utf-8")
    assert grow.table(rows()) in text
    assert "Measured on: " in text
    assert "Peak memory is the largest resident set" in text
    assert "python" not in text, "its usage is left out"
    assert "](growth.png)" in text
    picture = np.asarray(Image.open(tmp_path / "growth.png").convert("RGB"))
    assert picture.shape[1] > 1000
    assert (picture.reshape(-1, 3) == 255).all(axis=1).mean() > 0.8, "light, with room"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["GROWTH.md", "growth.png"]


@pytest.mark.slow
def test_the_time_of_an_epoch_is_measured_on_some_of_its_batches(
    template: Project, tmp_path: Path
) -> None:
    checkpoint = template.path / "data/checkpoints/fcn.safetensors"
    command = [sys.executable, "-m", "benchmarks.grow", "--batches", "200", "--into", str(tmp_path)]
    command += ["--checkpoint", str(checkpoint), "--sizes"]
    ran = Project(ROOT).run(*command, "20000")
    assert "| 20,000 |" in ran.text
    assert "epoch, s" in ran.text
    assert (tmp_path / "growth.png").exists()
    assert "| 20,000 |" in (tmp_path / "GROWTH.md").read_text(encoding="utf-8")
    ran = Project(ROOT).run(*command, "1000", code=1)
    assert "batches; use a longer list, or skip the epoch with: --batches 0" in ran.text
