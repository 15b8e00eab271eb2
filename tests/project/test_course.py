"""docs/course.md and its notebook: code, commands, output and figures are right."""

import base64
import doctest
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from charlm import cli
from experiments import course, sweep
from pipeline import guide
from tests.conftest import ROOT, Project, copy_checkout, wait_for_queue
from tests.helpers import cells, code_blocks, printed_by
from tests.project.test_docs import commands_of

PAGE = (ROOT / "docs/course.md").read_text(encoding="utf-8")
NOTEBOOK = ROOT / "docs/course.ipynb"

TABLE = r"((?:\|.*\n)+)"
OF_THE_COURSE = {"2.1220", "2.0132"}
"""The test losses that the course reports."""


def rows(table: str) -> list[list[str]]:
    """Return the cells of a Markdown table: its header first, without the line below."""
    lines = list(map(cells, table.strip().splitlines()))
    assert set("".join(lines[1])) <= {"-", ":"}
    return [lines[0], *lines[2:]]


# Quotations


def test_the_quoted_code_is_in_the_files() -> None:
    quoted = re.findall(
        r"^<!-- lines of (\S+) -->\n\n```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL
    )
    assert len(quoted) == len(code_blocks("python", PAGE)) == 7
    for path, code in quoted:
        assert code in (ROOT / path).read_text(encoding="utf-8"), path


def part_of(table: list[list[str]], source: list[list[str]], keys: int) -> list[str]:
    """List the cells that differ from the source, whose first `keys` columns identify a row."""
    titles, *lines = table
    known = {tuple(line[:keys]): dict(zip(source[0], line, strict=True)) for line in source[1:]}
    faults = []
    for line in lines:
        expected = known.get(tuple(line[:keys]), {})
        for title, cell in zip(titles[keys:], line[keys:], strict=True):
            if cell != expected.get(title):
                faults.append(f"{line[:keys]}: {title} is {expected.get(title)}, not {cell}")
    return faults


def tables(comment: str, page: str = PAGE) -> list[tuple[str, list[list[str]]]]:
    """Return the tables below matching comments, each with what the comment's group matched."""
    found = re.findall(rf"^<!-- {comment} -->\n\n{TABLE}", page, flags=re.MULTILINE)
    return [(name, rows(table)) for name, table in found]


def measured(name: str, titles: list[str]) -> list[list[str]]:
    """Return the table of a study that has these columns."""
    every = map(rows, re.findall(TABLE, (ROOT / name).read_text(encoding="utf-8")))
    (found,) = (table for table in every if set(titles[1:]) <= set(table[0]))
    return found


def test_the_rows_of_studies_match_the_studies() -> None:
    checked = {}
    for path in sorted((ROOT / "docs").glob("*.md")):
        page = path.read_text(encoding="utf-8")
        found = tables(r"rows of (experiments/\w+\.md)", page)
        assert len(found) == page.count("<!-- rows of "), path
        for name, table in found:
            source = measured(name, table[0])
            assert part_of(table, source, keys=2 if "GAP" in name else 1) == [], f"{path}: {name}"
        checked[path.stem] = len(found)
    assert checked["course"] >= 10
    assert checked["reproducibility"] == 2


def test_a_wrong_cell_is_found() -> None:
    source = [["", "gap", "change"], ["`-S a`", "0.1", "+0.2"], ["`-S b`", "0.3", "+0.4"]]
    assert part_of([["", "change"], ["`-S b`", "+0.4"]], source, keys=1) == []
    for table in ([["", "gap"], ["`-S b`", "0.4"]], [["", "gap"], ["`-S c`", "0.3"]]):
        assert len(part_of(table, source, keys=1)) == 1


def test_the_losses_by_epoch_match_the_committed_run() -> None:
    found = tables(r"from (plots/history/\w+\.csv)")
    assert [Path(path).stem for path, _ in found] == ["fcn", "wavenet"]
    for path, (_, *lines) in found:
        history = pd.read_csv(ROOT / path, index_col="epoch")
        for epoch, train, val, *_ in lines:
            losses = history.loc[int(epoch)]
            assert [train, val] == [f"{losses[part]:.3f}" for part in ("train_loss", "val_loss")]


# Figures


def test_every_figure_was_measured() -> None:
    """Check numbers with three or more decimals; the next test checks the others."""
    text = re.sub(r"https://\S+", "", PAGE)
    text = re.sub(r"^```.*?^```|^\|.*?$", "", text, flags=re.MULTILINE | re.DOTALL)
    sources = ["EXPERIMENTS.md", "docs/results.md", "metrics/samples.json"]
    sources += ["experiments/COURSE.md", "experiments/SWEEP.md", "plots/evaluation/models.csv"]
    known = " ".join((ROOT / path).read_text(encoding="utf-8") for path in sources)
    printed = " ".join(line for command in guide.commands(PAGE) for line in command.printed)
    figures = re.compile(r"\d\.\d{3,}")
    assert set(figures.findall(text)) - set(figures.findall(known + printed)) <= OF_THE_COURSE


def mean(runs: pd.DataFrame, model: str) -> pd.Series:
    """Return the mean validation loss of each row of a study."""
    return runs[runs["model"] == model].groupby("row")["val_loss"].mean()


def test_statements_about_the_figures_are_true() -> None:
    runs = pd.read_csv(course.RUNS)
    for model, more in (("fcn", 0.13), ("wavenet", 0.14)):
        swept, its = mean(pd.read_csv(sweep.RUNS), model), mean(runs, model)
        assert max(abs(swept["plateau"] - swept[row]) for row in ("lambda", "onecycle")) < 0.005
        short = [row for row in its.index if row.startswith("epochs=10 ") and "lr" not in row]
        assert len(short) == 3
        assert min(its[short]) > its["epochs=10"], "every scheduler makes it worse"
        cycle = "epochs=10 training.scheduler=onecycle lr=1"
        assert min(its.filter(like="epochs=10")) == its[cycle] < its["epochs=10 lr=1"] - 0.2
        assert its[cycle] < swept["course"] < its["epochs=10"]
        assert its["training.scheduler=onecycle lr=1"] > swept["lambda"]
        together = its["training.scheduler=lambda fcn.dropout=0.1 wavenet.dropout=0.1"]
        assert together > swept["lambda"]
        assert f"{its['split.train=0.4'] - swept['course']:.2f}" == f"{more:.2f}"


def test_the_exercise_is_solved_with_a_third_of_the_parameters() -> None:
    runs = pd.read_csv(course.RUNS)
    rows = runs.groupby("row")[["parameters", "val_loss", "test_loss"]].max()
    solved = rows.loc["compact, distilled"]
    assert solved["parameters"] == 24_526 < 74_874 / 3
    assert solved["test_loss"] < 1.94, "with each seed"
    steps = rows["val_loss"][["the same, averaged", "compact, SGD", "compact, Muon"]]
    assert steps.is_monotonic_decreasing
    assert rows["test_loss"]["44 channels"] < 2 < rows["test_loss"]["40 channels"]
    assert rows["parameters"]["44 channels"] == 10_078


def test_the_page_describes_the_committed_run() -> None:
    assert guide.written_with(ROOT) in PAGE, "run: python -m pipeline.guide"
    table = pd.read_csv(ROOT / "plots/evaluation/models.csv", index_col="model")
    for model in course.MODELS:
        assert f"The test loss is {table.loc[model, 'test_loss']:.4f} with seed 1" in PAGE
    samples = json.loads((ROOT / "metrics/samples.json").read_text(encoding="utf-8"))["wavenet"]
    assert f"these are {samples['unique']} and {samples['novel']}" in " ".join(PAGE.split())


# Commands


def python_of_the_page() -> doctest.DocTest:
    """Return all Python code of the page, as one session."""
    session = "\n".join(code_blocks("pycon", PAGE))
    return doctest.DocTestParser().get_doctest(session, {}, "docs/course.md", None, None)


def test_the_python_of_the_page_prints_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    project = copy_checkout(tmp_path)
    for stage in ("build_dataset", "split"):
        project.stage(stage)
    monkeypatch.chdir(project.path)
    session = python_of_the_page()
    assert len(session.examples) >= 30
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    assert runner.run(session).failed == 0, capsys.readouterr().out


def experiments() -> Iterator[list[str]]:
    """Yield the assignments of each `dvc exp run` on the page, with the first of several values."""
    for line in [*commands_of(PAGE), *(command.text for command in guide.commands(PAGE))]:
        words = shlex.split(line)
        if words[:3] == ["dvc", "exp", "run"]:
            values = [after for word, after in pairwise(words) if word == "-S"]
            assert len(values) == words.count("-S") > 0
            yield [re.sub(r",.*", "", value) for value in values]


def test_the_parameters_of_the_experiments_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = list(experiments())
    assert len(found) >= 20
    for values in found:
        course.params_of(values, seed=1)  # refuses unknown parameters and values out of range


def test_the_rows_of_the_exercise_match_the_commands_beside_them() -> None:
    every = [table for _, table in tables(r"rows of (\S+)") if table[0][1] == "parameters"]
    labels = [label for _, *lines in every for label, *_ in lines]
    assert sorted(labels) == sorted(course.EXERCISE)
    steps = [f"dvc exp run {course.options(label)}" for label, *_ in every[0][1:]]
    assert "```bash\n" + "\n".join(steps) + "\n```" in PAGE, "in the same order"
    for label in labels[: -len(every[-1]) + 1]:
        assert f"dvc exp run {course.options(label)}\n" in PAGE, label


def test_the_sampling_commands_work_as_written(
    template: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(template.path)
    found = [it for it in guide.commands(PAGE) if it.text.startswith("python -m charlm ")]
    assert len(found) == 6
    for command in found:
        assert cli.main(shlex.split(command.text)[3:]) == 0
        assert len(capsys.readouterr().out.splitlines()) == len(command.printed)


def test_the_losses_with_a_scheduler_match_the_sweep() -> None:
    (printed,) = (it.printed for it in guide.commands(PAGE) if "--name lambda" in it.text)
    runs = pd.read_csv(sweep.RUNS).query("row == 'lambda' and seed == 1").set_index("model")
    for model in sweep.MODELS:
        (loss,) = re.findall(rf"^{model} +test loss (\S+) ", "\n".join(printed), flags=re.MULTILINE)
        assert loss == f"{runs.loc[model, 'test_loss']:.4f}"


@pytest.mark.slow
def test_every_command_works_as_written(project: Project, tmp_path: Path) -> None:
    shell = guide.Shell(project.path, guide.surroundings(tmp_path))
    for command in guide.commands(PAGE):
        printed = shell.run(command)
        assert bool(printed) == bool(command.printed), command.text
    wait_for_queue(project, 4)
    for line in commands_of(PAGE):
        if line.startswith("dvc exp run"):  # the page asks for this
            project.git("checkout", ".")
        ran = project.run(*shlex.split(line))
        assert "Traceback" not in ran.text, line


# The notebook


EPOCHS = "EPOCHS = 6\n"


def notebook() -> list[dict[str, Any]]:
    """Return the code cells of the notebook."""
    every = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in every if cell["cell_type"] == "code"]


def shown_by(cell: dict[str, Any]) -> str:
    """Return the text that a cell printed, as stored."""
    return "".join(
        line for output in cell["outputs"] if "text" in output for line in output["text"]
    )


@pytest.fixture
def figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Work in docs/ beside the names, like the notebook; return the lines in each figure shown."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "data").mkdir()
    shutil.copy(ROOT / "data/prenoms.txt", tmp_path / "data")
    monkeypatch.chdir(tmp_path / "docs")
    monkeypatch.setenv("MPLBACKEND", "Agg")
    plt.switch_backend("Agg")
    shown: list[int] = []

    def show() -> None:
        shown.extend(len(axes.lines) for axes in plt.gcf().axes)
        plt.close("all")

    monkeypatch.setattr(plt, "show", show)
    return shown


def run(epochs: str = EPOCHS) -> list[tuple[str, str]]:
    """Run all cells in order. Return what each one prints and what is stored for it."""
    sources = ["".join(cell["source"]) for cell in notebook()]
    assert sum(EPOCHS in source for source in sources) == 1
    namespace: dict[str, object] = {"__name__": "__main__"}
    printed = [
        printed_by(source.replace(EPOCHS, epochs), "docs/course.ipynb", namespace)
        for source in sources
    ]
    return list(zip(printed, map(shown_by, notebook()), strict=True))


def test_the_notebook_runs_and_prints_what_it_shows(figures: list[int]) -> None:
    """With one epoch, output is the same up to the end of it; later cells print as many lines."""
    cells = run("EPOCHS = 1\n")
    (training,) = (n for n, (_, stored) in enumerate(cells) if "epoch 1: " in stored)
    assert all(printed == stored for printed, stored in cells[:training])
    printed, stored = cells[training]
    assert printed.splitlines()[0] == stored.splitlines()[0]
    for printed, stored in cells[training + 1 :]:
        assert printed.count("\n") == stored.count("\n")
    assert figures == [3]


@pytest.mark.slow
def test_the_notebook_prints_what_it_shows(figures: list[int]) -> None:
    assert all(printed == stored for printed, stored in run())
    assert figures == [3]


def test_the_notebook_was_run_in_order_and_stores_no_local_paths() -> None:
    cells = notebook()
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    pictures = [its["data"]["image/png"] for its in outputs if its["output_type"] != "stream"]
    assert len(pictures) == 1
    assert base64.b64decode("".join(pictures[0])).startswith(b"\x89PNG\r\n")
    assert all(output.get("name", "stdout") == "stdout" for output in outputs), "no warnings"
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert not re.search(r'"(?:execution|widgets)": |iopub|/home/|/tmp/|/Users/|[A-Z]:\\\\', text)
