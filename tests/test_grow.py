"""The benchmark of growing lists: what it makes, measures, tells and draws."""

import sys
from pathlib import Path

import pytest

from benchmarks import grow
from tests.conftest import ROOT, Project
from tests.helpers import read_names


def test_a_checkpoint_that_is_not_there_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["grow", "--checkpoint", str(tmp_path / "none")])
    with pytest.raises(SystemExit, match="make it with: dvc repro"):
        grow.main()


def test_names_are_invented_until_there_are_enough(template: Project, tmp_path: Path) -> None:
    checkpoint = template.path / "data/checkpoints/fcn.safetensors"
    grow.write_list(tmp_path / "names.txt", 500, checkpoint)
    names = read_names(tmp_path / "names.txt")
    assert (len(names.names), names.duplicates) == (500, 0)


def test_figures_are_told_in_a_table_and_drawn(tmp_path: Path) -> None:
    seconds = {f"{step}_seconds": 2.0 for step in grow.STEPS}
    row = {"names": 500, "windows": 4000, **seconds, "split_mb": 250.0}
    rows = [row, {**row, "names": 1000}]
    text = grow.table(rows)
    assert "| names | windows |" in text
    assert "| 1,000 | 4,000 | 2.0 |" in text
    grow.draw(rows, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_an_epoch_is_measured_by_some_of_its_batches(template: Project, tmp_path: Path) -> None:
    checkpoint = template.path / "data/checkpoints/fcn.safetensors"
    command = [sys.executable, "-m", "benchmarks.grow", "--sizes", "20000", "--batches", "200"]
    command += ["--checkpoint", str(checkpoint), "--picture", str(tmp_path / "growth.png")]
    ran = Project(ROOT).run(*command)
    assert "| 20,000 |" in ran.text
    assert "epoch seconds" in ran.text
    assert (tmp_path / "growth.png").exists()
