"""The tables of results match the files that the studies wrote."""

import pandas as pd
import pytest

from experiments import best, ensemble
from experiments.lists import LISTS, REPORT
from tests.conftest import ROOT

PAGE = (ROOT / "docs/results.md").read_text(encoding="utf-8")

SEEDS = 10


def measured() -> pd.DataFrame:
    return pd.read_csv(best.KEPT)


def by_name() -> pd.DataFrame:
    """Return the rows of lists split by name that have all seeds, in the order of `LISTS`."""
    rows = measured()[lambda rows: rows["by"] == "name"]
    seeds = rows.groupby("list")["seed"].transform("nunique")
    rows = rows[seeds == SEEDS]
    return rows.sort_values(["list", "seed"], key=_place, kind="stable")


def _place(values: "pd.Series[str]") -> "pd.Series[int]":
    if values.name == "seed":
        return values
    return values.map(list(LISTS).index)


def test_the_table_of_lists_matches_the_measurements() -> None:
    assert best.table(by_name()) in PAGE


def test_the_tables_for_the_default_names_match_the_measurements() -> None:
    rows = measured()[lambda rows: rows["by"] == "window"]
    assert sorted(rows["seed"]) == list(range(SEEDS))
    assert best.table(rows) in PAGE
    assert ensemble.table(pd.read_csv(ensemble.KEPT)) in PAGE
    for model in best.MODELS:
        assert f"{best.with_error(rows[model])} |" in PAGE, model


@pytest.mark.parametrize(("model", "most"), [("mixture", 0.0), ("compact", 0.03)])
def test_no_model_is_far_worse_than_the_counts_on_any_list(model: str, most: float) -> None:
    means = by_name().groupby("list")[[*best.MODELS]].mean()
    assert (means[model] - means["kneser_ney"]).max() < most


def test_ten_lists_in_five_scripts_were_measured() -> None:
    lists = set(by_name()["list"])
    rows = [line.strip("| ").split(" | ") for line in PAGE.splitlines()]
    assert len(lists) >= 10
    assert len({cells[-1] for cells in rows if cells[0] in lists}) >= 5


def test_no_setting_was_chosen_on_the_lists_in_the_table() -> None:
    assert set(by_name()["list"]) <= REPORT.keys()
