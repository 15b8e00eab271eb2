"""The studies of models on any list of names: the default models, and ensembles."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

from charlm.core.params import Params, load_params
from experiments import best, ensemble
from tests.conftest import ROOT
from tests.helpers import NAMES

SMALL: dict[str, Any] = {"channels": 8, "epochs": 1}


@pytest.fixture
def names(tmp_path: Path) -> Path:
    path = tmp_path / "few.txt"
    path.write_text("\n".join(NAMES), encoding="utf-8")
    return path


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the trainings so small that they take no time."""
    params = load_params(ROOT / "params.yaml")
    sections = {name: params.section(name).model_copy(update=SMALL) for name in params.models}

    def load() -> Params:
        return params.model_copy(update=sections)

    monkeypatch.setattr(best, "load_params", load)
    monkeypatch.setattr(ensemble, "MEMBERS", 2)
    monkeypatch.setattr(ensemble, "WIDE", SMALL)
    monkeypatch.setattr(ensemble, "STUDENTS", {"student": SMALL | {"distill": 0.5}})


@pytest.mark.usefixtures("small")
def test_every_model_is_measured(names: Path) -> None:
    found = best.losses_of(names, "name", 1)
    assert found.keys() == {*best.MODELS, "order", "windows"}
    assert all(0 < found[model] < 5 for model in best.MODELS)
    assert found == best.losses_of(names, "name", 1)
    assert found != best.losses_of(names, "name", 2)
    assert found["mixture"] <= max(found[model] for model in best.MODELS)


@pytest.mark.usefixtures("small")
def test_every_kind_of_ensemble_is_measured(names: Path) -> None:
    found = ensemble.losses_of(names, "window", 1)
    kinds = {"one hybrid", "hybrids", "student", "mixed"}
    assert found.keys() == {
        f"{k}/{it}" for k in kinds for it in ("parameters", "validation", "test")
    }
    assert found["hybrids/parameters"] == 2 * found["one hybrid/parameters"]
    assert found["mixed/validation"] <= found["hybrids/validation"] + 1e-4


def test_measured_lists_are_not_measured_again(tmp_path: Path) -> None:
    file, paths = tmp_path / "kept.csv", {"a": Path(__file__), "b": Path(__file__)}
    first = best.measured(stand_in, file, paths, "name", [0, 1], jobs=1)
    assert sorted(zip(first["list"], first["seed"], strict=True)) == [
        ("a", 0), ("a", 1), ("b", 0), ("b", 1),
    ]  # fmt: skip
    again = best.measured(refuse, file, {"b": Path(__file__)}, "name", [1], jobs=1)
    assert again[["list", "seed"]].to_numpy().tolist() == [["b", 1]]


def stand_in(path: Path, by: best.By, seed: int) -> dict[str, float]:
    return dict.fromkeys(best.MODELS, 2.0 + seed)


def refuse(path: Path, by: best.By, seed: int) -> dict[str, float]:
    raise AssertionError


def test_the_tables_have_means_and_standard_errors() -> None:
    rows = pd.DataFrame(
        {
            "list": "colors",
            "kneser_ney": n + 2,
            "compact": n + 1.5,
            "hybrid": n + 1,
            "mixture": 1.5,
        }
        for n in (0.0, 0.2)
    )
    assert best.table(rows).splitlines()[2] == (
        "| colors | 2.1000 ± 0.1000 | 1.6000 ± 0.1000 | 1.1000 ± 0.1000 | 1.5000 ± 0.0000 "
        "| -0.5000 ± 0.0000 | -0.6000 ± 0.1000 |"
    )
    rows = pd.DataFrame({"A/parameters": 1234, "A/validation": n, "A/test": n} for n in (2.0, 2.2))
    assert (
        ensemble.table(rows).splitlines()[2] == "| A | 1,234 | 2.1000 ± 0.1000 | 2.1000 ± 0.1000 |"
    )


@pytest.mark.parametrize("study", [best, ensemble])
def test_a_list_that_does_not_exist_is_refused_in_one_line(
    study: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["", "--names", "nope.txt"])
    with pytest.raises(SystemExit) as ended:
        study.main()
    assert ended.value.code == "error: --names nope.txt does not exist; give the path of a list"
