"""The study behind docs/course.md: its rows, its trainings, and its committed tables."""

from pathlib import Path

import pandas as pd
import pytest

from benchmarks.trainer import windows_of
from charlm.core.params import load_params
from experiments import course
from tests.conftest import ROOT
from tests.helpers import NAMES

ROWS = [*course.BOTH, *course.EXERCISE]


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("row", ROWS)
def test_a_row_sets_the_parameters_it_names(row: str) -> None:
    params = course.params_of(course.assignments(row), seed=2)
    assert params.seed == 2
    assert params.hybrid == load_params().hybrid, "the teacher is the same for all rows"
    for assignment in course.assignments(row):
        name, _, value = assignment.lstrip("+").partition("=")
        section, _, key = name.rpartition(".")
        found = getattr(getattr(params, section) if section else params, key)
        assert str(found).lower() == (value or "none") or float(found) == float(value)


def test_options_are_written_for_dvc() -> None:
    assert course.options("the same, averaged") == (
        "-S wavenet.hidden_dim=70 -S ++wavenet.average=0.999"
    )
    assert course.options("epochs=10 lr=1") == "-S epochs=10 -S lr=1"


def test_parameters_and_seed_determine_the_losses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = tmp_path / "few.txt"
    few.write_text("\n".join(NAMES), encoding="utf-8")
    monkeypatch.setattr(course, "windows_of", lambda params: windows_of(params, few))
    row = "epochs=1 fcn.hidden_dim=20"
    found = course.losses_of(row, "fcn", 1)
    assert list(found) == ["parameters", "train_loss", "val_loss", "test_loss"]
    assert found["parameters"] < 5000
    assert found == course.losses_of(row, "fcn", 1) != course.losses_of(row, "fcn", 2)


def test_the_committed_tables_match_the_committed_runs() -> None:
    runs = pd.read_csv(course.RUNS)
    assert list(runs[course.KEYS].itertuples(index=False, name=None)) == course.runs_wanted()
    text = course.TABLES.read_text(encoding="utf-8")
    for table in course.tables(runs):
        assert f"\n{table}\n" in text
