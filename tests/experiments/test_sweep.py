"""The sweep over settings: what it queues, how it summarizes results, and what is committed."""

import re
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

from charlm.core.params import load_params
from experiments import sweep
from pipeline.readme import QUOTED, refreshed
from tests.conftest import ROOT, Project, set_params


def runs_of(**val_losses: list[float]) -> pd.DataFrame:
    """Return runs of the net by row, one per seed, and runs of the WaveNet with losses 1 lower."""
    return pd.DataFrame(
        {
            "row": row,
            "seed": seed,
            "model": model,
            "train_loss": 1.5,
            "val_loss": loss - (model == "wavenet"),
            "test_loss": loss + 0.1,
        }
        for row, losses in val_losses.items()
        for seed, loss in enumerate(losses, start=1)
        for model in sweep.MODELS
    )


def test_a_change_is_between_runs_with_the_same_seed() -> None:
    summary = sweep.summarize(runs_of(course=[2.0, 2.5, 3.0], step=[1.9, 2.4, 2.9]))
    for model in sweep.MODELS:
        its = summary.loc[("step", model), "change"]
        assert its["mean"] == pytest.approx(-0.1)
        assert its["stderr"] == pytest.approx(0)
        assert summary.loc[("step", model), ("val_loss", "std")] == pytest.approx(0.5)
    of_net = summary.loc[("course", "fcn")]
    assert of_net["gap", "mean"] == pytest.approx(2.5 - 1.5)
    assert of_net["test_loss", "mean"] == pytest.approx(2.6)


def test_the_standard_error_of_a_change_is_that_of_a_mean() -> None:
    summary = sweep.summarize(runs_of(course=[2.0, 2.0, 2.0], step=[2.1, 2.2, 2.3]))
    assert summary.loc[("step", "fcn"), ("change", "stderr")] == pytest.approx(0.1 / 3**0.5)


@pytest.mark.parametrize(
    ("mean", "stderr", "told"),
    [
        (-0.02, 0.005, "-0.0200 ± 0.0050"),
        (0.02, 0.01, "+0.0200 ± 0.0100"),
        (-0.02, 0.011, "tie (-0.0200 ± 0.0110)"),
        (0.001, 0.011, "tie (+0.0010 ± 0.0110)"),
    ],
)
def test_a_change_below_twice_its_standard_error_is_a_tie(
    mean: float, stderr: float, told: str
) -> None:
    assert sweep.change(mean, stderr) == told


def test_each_row_of_the_table_has_the_options_that_run_it() -> None:
    summary = sweep.summarize(
        runs_of(**{"course": [2.0, 2.1, 2.2], "dropout-0.1": [2.1, 2.2, 2.3]})
    )
    header, _, course, dropout = sweep.table(summary).splitlines()
    command = "dvc exp run --queue -S seed=1,2,3 -S compact.epochs=1"
    assert header.startswith(f"| `{command}` and | Fully connected net: gap")
    assert course.startswith("| no change: the course's settings | 0.6000 ± 0.1000 |")
    assert dropout == (
        "| `-S fcn.dropout=0.1 -S wavenet.dropout=0.1` "
        "| 0.7000 ± 0.1000 | 2.2000 ± 0.1000 | +0.1000 ± 0.0000 | 2.3000 ± 0.1000 "
        "| -0.3000 ± 0.1000 | 1.2000 ± 0.1000 | +0.1000 ± 0.0000 | 2.3000 ± 0.1000 |"
    )


def test_the_figure_shows_every_row_at_its_losses() -> None:
    figure = sweep.draw(sweep.summarize(runs_of(course=[2.0, 2.2, 2.4], step=[1.9, 2.1, 2.3])))
    net, tree = figure.axes
    assert [label.get_text() for label in net.get_yticklabels()] == [
        "the course's settings",
        "scheduler=step",
    ]
    for panel, loss in ((net, 2.1), (tree, 1.1)):
        (line,) = [c for c in panel.containers if c.get_label() == "validation"]
        assert line.lines[0].get_xdata() == pytest.approx([loss + 0.1, loss])
        assert list(line.lines[0].get_ydata()) == [0, 1]


@pytest.mark.parametrize("row", sweep.ROWS)
def test_each_row_differs_from_the_defaults_only_in_what_it_names(row: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    assignments = dict(item.split("=") for item in sweep.ROWS[row].split())
    set_params(tmp_path, assignments)
    before = load_params(ROOT / "params.yaml").model_dump()
    after = load_params(tmp_path / "params.yaml").model_dump()

    def flat(params: dict[str, object]) -> set[tuple[str, object]]:
        sections = pd.json_normalize(params).iloc[0]
        return set(sections.astype(object).where(sections.notna(), None).items())

    assert {key for key, _ in flat(after) - flat(before)} == assignments.keys()


def test_the_committed_table_matches_the_committed_runs() -> None:
    runs = pd.read_csv(sweep.RUNS)
    assert list(dict.fromkeys(runs["row"])) == list(sweep.ROWS)
    assert (runs.groupby("row").size() == len(sweep.SEEDS) * len(sweep.MODELS)).all()
    assert sweep.table(sweep.summarize(runs)) in sweep.TABLE.read_text(encoding="utf-8")


def test_the_log_quotes_the_table() -> None:
    log = (ROOT / "EXPERIMENTS.md").read_text(encoding="utf-8")
    (table,) = QUOTED.findall(sweep.TABLE.read_text(encoding="utf-8"))
    assert table in log
    assert refreshed(log, ROOT) == log


SWEEP = """
import sys
from experiments import sweep
sweep.ROWS, sweep.SEEDS = {rows}, (1, 2)
sys.argv = ["sweep", *{options}]
sweep.main()
"""


def test_gathering_a_missing_run_is_refused(project: Project) -> None:
    ran = project.run("python", "-m", "experiments.sweep", "--gather", code=1)
    count = f"{3 * len(sweep.ROWS)} of {3 * len(sweep.ROWS)} are missing"
    assert ran.text == f"error: sweep-course-1 has not been run ({count}); run: make sweep\n"


@pytest.mark.slow
def test_missing_runs_are_run_and_all_are_gathered(project: Project) -> None:
    def run(second: str, *options: str, code: int = 0) -> str:
        program = SWEEP.format(rows={"course": "", "second": second}, options=options)
        return project.run(sys.executable, "-c", program, code=code).text

    for name in ("sweep.csv", "SWEEP.md", "sweep.png"):
        (project.path / "experiments" / name).unlink(missing_ok=True)
    refused = run("split.train=5", code=1)
    assert "error: no result of sweep-second-1, sweep-second-2" in refused
    assert "see: dvc queue logs sweep-second-1" in refused
    assert not (project.path / "experiments/sweep.csv").exists()

    told = run("fcn.epochs=1")
    queued = re.findall(r"^Queued experiment '(.*?)'", told, flags=re.MULTILINE)
    assert queued == ["sweep-second-1", "sweep-second-2"], "the others are there"
    runs = pd.read_csv(project.path / "experiments/sweep.csv")
    for model in sweep.MODELS:
        evaluation = project.path / "metrics/evaluation.json"
        its = runs[(runs["row"] == "course") & (runs["seed"] == 1) & (runs["model"] == model)]
        assert its["val_loss"].item() == pd.read_json(evaluation)[model]["val_loss"]
    course, second = (
        runs[(runs["row"] == row) & (runs["model"] == "fcn")] for row in ("course", "second")
    )
    assert (second["best_epoch"] == 1).all()
    assert set(course["seed"]) == {1, 2}
    assert "| `-S fcn.epochs=1` |" in (project.path / "experiments/SWEEP.md").read_text()
    assert (project.path / "experiments/sweep.png").read_bytes().startswith(b"\x89PNG")

    project.dvc("exp", "remove", "sweep-course-2")
    again = run("fcn.epochs=1")
    assert re.findall(r"^Queued experiment '(.*?)'", again, flags=re.MULTILINE) == [
        "sweep-course-2"
    ]
    assert pd.read_csv(project.path / "experiments/sweep.csv").equals(runs)

    # Measuring a row again leaves the others as they are.
    project.dvc("exp", "remove", "sweep-course-1", "sweep-second-1", "sweep-second-2")
    told = run("fcn.epochs=2", "--rows", "second")
    assert "sweep-course" not in told
    again = pd.read_csv(project.path / "experiments/sweep.csv")
    assert (again["row"] == runs["row"]).all()
    of_course = runs["row"] == "course"
    assert again[of_course].equals(runs[of_course])
    assert not again[~of_course].equals(runs[~of_course])


def test_uncommitted_parameters_are_refused(project: Project) -> None:
    project.set(lr="0.1")
    ran = project.run("python", "-m", "experiments.sweep", code=1)
    assert (
        ran.text == "error: there are uncommitted changes; commit or stash them, see: git status\n"
    )
    assert project.dvc("queue", "status").text.startswith("No experiment tasks in the queue.")


@pytest.mark.parametrize(
    ("row", "label"),
    [
        ("course", "the course's settings"),
        ("momentum-0.9-lr-0.02", "momentum=0.9 lr=0.02"),
        ("dropout-0.1", "dropout=0.1"),
        ("hidden-half", "hidden_dim=150, 64"),
        ("by-name", "split.by=name"),
    ],
)
def test_a_label_names_each_difference_once(row: str, label: str) -> None:
    assert sweep.label(row) == label
