"""The effect of each setting on the losses and the generalization gap of the course's two models.

Each row is a `dvc exp run` over three seeds with the default names and settings, except for those
listed (and with one epoch of the compact WaveNet, which is not part of this study). A cell is the
mean ± standard deviation over the seeds, in nats per character. The gap is validation loss minus
training loss, both of the weights that are kept. The change is the difference in validation loss
from the course's settings with the same seed, ± its standard error; below twice its standard error
it is called a tie.

    python -m experiments.sweep

queues the rows, runs them two at a time, and collects the results in `experiments/sweep.csv` (a
line per run and model), `experiments/SWEEP.md` and `experiments/sweep.png`. Run again, it runs only
what is missing for this commit. `--rows` measures some rows again, and keeps the others.
"""

import argparse
import io
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd
from matplotlib import style
from matplotlib.figure import Figure

from benchmarks.run import write_result
from benchmarks.trainer import COURSE_MODELS as MODELS
from benchmarks.turns import markdown
from charlm.core.files import write_csv
from charlm.report.figures import LOSS, MODEL_COLORS, MUTED, STYLE, save
from experiments import queue
from pipeline.clone import refuse_incomplete

FOLDER = Path(__file__).parent
RUNS, TABLE, PICTURE = (FOLDER / name for name in ("sweep.csv", "SWEEP.md", "sweep.png"))

SEEDS = (1, 2, 3)
PREFIX = "sweep-"
COURSE, COURSES = "course", "the course's settings"
SHORT = "compact.epochs=1"
"""The compact WaveNet is not part of this study."""
COMMAND = f"dvc exp run --queue -S seed={','.join(map(str, SEEDS))} -S {SHORT}"

TEXT = """\
# The effect of each setting

Written by `make sweep`.

{explained}

{table}

![Training and validation loss of every row](sweep.png)
"""

ROWS = {
    COURSE: "",
    # The five schedulers mentioned in the course.
    "lambda": "training.scheduler=lambda",
    "step": "training.scheduler=step",
    "linear": "training.scheduler=linear",
    "plateau": "training.scheduler=plateau",
    "onecycle": "training.scheduler=onecycle",
    # The learning rate, and settings with a similar effect.
    "lr-0.05": "lr=0.05",
    "momentum-0.9": "training.momentum=0.9",
    "momentum-0.9-lr-0.02": "training.momentum=0.9 lr=0.02",
    "batch-64": "batch_size=64",
    "batch-1024": "batch_size=1024",
    "average": "training.average=0.999",
    # Regularization and initialization.
    "keep-best": "training.keep=best",
    "decay-0.0001": "training.weight_decay=0.0001",
    "decay-0.001": "training.weight_decay=0.001",
    "dropout-0.1": "fcn.dropout=0.1 wavenet.dropout=0.1",
    "dropout-0.3": "fcn.dropout=0.3 wavenet.dropout=0.3",
    "norm": "fcn.norm=layer wavenet.norm=layer",
    "xavier": "training.init=xavier",
    "kaiming": "training.init=kaiming",
    # Sizes.
    "block-4": "block_size=4",
    "block-16": "block_size=16",
    "hidden-half": "fcn.hidden_dim=150 wavenet.hidden_dim=64",
    "hidden-double": "fcn.hidden_dim=600 wavenet.hidden_dim=256",
    "embed-5": "fcn.embed_dim=5 wavenet.embed_dim=5",
    "embed-20": "fcn.embed_dim=20 wavenet.embed_dim=20",
    # The split.
    "by-name": "split.by=name",
}
"""The parameters of each row that differ from the course's."""


def options(row: str) -> str:
    """Return the options after `COMMAND` that run a row."""
    return " ".join(f"-S {assignment}" for assignment in ROWS[row].split())


def experiments(rows: Iterable[str]) -> dict[tuple[str, int], str]:
    """Return the names of the experiments of some rows, by row and seed."""
    return {
        (row, seed): name
        for row in rows
        for seed, name in queue.experiments(PREFIX + row, SEEDS).items()
    }


def refuse_changes() -> None:
    """Exit if uncommitted changes would affect the runs."""
    decisive = ["params.yaml", "dvc.yaml", "requirements.txt", "charlm", "stages", "data"]
    if subprocess.run(["git", "diff", "--quiet", "HEAD", "--", *decisive], check=False).returncode:
        sys.exit("error: there are uncommitted changes; commit or stash them, see: git status")


def gather(revisions: Mapping[tuple[str, int], str]) -> pd.DataFrame:
    """Collect the losses of each run of the course's models, by row and seed.

    Columns: `row`, `seed`, `model`, the losses of the kept weights in nats per character
    (`train_loss`, `val_loss`, `test_loss`), and the first epoch of lowest validation loss
    (`best_epoch`) with that loss (`best_val_loss`).
    """
    runs = []
    for (row, seed), revision in revisions.items():
        metrics = queue.metrics(revision)
        for model in MODELS:
            text = io.StringIO(queue.read(revision, f"plots/history/{model}.csv"))
            history = pd.read_csv(text, index_col="epoch")
            best = {
                "best_epoch": history["val_loss"].idxmin(),
                "best_val_loss": history["val_loss"].min(),
            }
            losses = {
                part: metrics[model][part] for part in ("train_loss", "val_loss", "test_loss")
            }
            runs.append({"row": row, "seed": seed, "model": model, **losses, **best})
    return pd.DataFrame(runs)


def summarize(runs: pd.DataFrame) -> pd.DataFrame:
    """Compute mean and standard deviation over the seeds, by row and model.

    Columns: `mean`, `std` and `stderr` below each of `train_loss`, `val_loss`, `test_loss`, `gap`
    and `change`; `change` is paired, between runs with the same seed.
    """
    runs = runs.assign(gap=runs["val_loss"] - runs["train_loss"])
    course = runs[runs["row"] == COURSE].set_index(["model", "seed"])["val_loss"]
    of_course = course.reindex(pd.MultiIndex.from_frame(runs[["model", "seed"]])).to_numpy()
    runs["change"] = runs["val_loss"] - of_course
    figures = ["train_loss", "val_loss", "test_loss", "gap", "change"]
    summary = runs.groupby(["row", "model"], sort=False)[figures].agg(["mean", "std", "sem"])
    return summary.rename(columns={"sem": "stderr"})


def change(mean: float, stderr: float) -> str:
    """Format a difference, or a tie."""
    figure = f"{mean:+.4f} ± {stderr:.4f}"
    return figure if abs(mean) >= 2 * stderr else f"tie ({figure})"


def table(summary: pd.DataFrame) -> str:
    """Return a table with a row for each setting and the models side by side."""
    columns = {"gap": "gap", "val_loss": "validation", "change": "change", "test_loss": "test"}
    header = [f"`{COMMAND}` and"]
    header += [f"{title}: {name}" for title in MODELS.values() for name in columns.values()]
    lines = []
    for row in summary.index.unique("row"):
        cells = [f"`{options(row)}`" if ROWS[row] else f"no change: {COURSES}"]
        for model in MODELS:
            figures = summary.loc[(row, model)]
            for column in columns:
                its = figures[column]
                if column != "change":
                    cells.append(f"{its['mean']:.4f} ± {its['std']:.4f}")
                else:
                    cells.append("" if row == COURSE else change(its["mean"], its["stderr"]))
        lines.append(cells)
    return markdown(header, lines)


def label(row: str) -> str:
    """Return a short label of a row's parameters, such as `hidden_dim=150, 64`."""
    values: dict[str, list[str]] = {}
    for assignment in ROWS[row].split():
        key, value = assignment.split("=")
        its = values.setdefault(key if key == "split.by" else key.split(".")[-1], [])
        its += [value] if value not in its else []
    return " ".join(f"{key}={', '.join(its)}" for key, its in values.items()) or COURSES


def draw(summary: pd.DataFrame) -> Figure:
    """Plot training and validation loss of each row and model, and the gap between them."""
    rows = list(summary.index.unique("row"))
    places = range(len(rows))
    with style.context(STYLE):
        figure = Figure(figsize=(11, 0.27 * len(rows) + 1.4))
        axes = figure.subplots(1, len(MODELS), sharey=True)
        for panel, color, (model, title) in zip(axes, MODEL_COLORS, MODELS.items(), strict=False):
            its = summary.xs(model, level="model").loc[rows]
            train, val = its["train_loss"], its["val_loss"]
            panel.hlines(places, train["mean"], val["mean"], color=color, alpha=0.35, linewidth=3)
            panel.errorbar(
                train["mean"], places, xerr=train["std"], fmt="o", mfc="white", color=color,
                label="training",
            )  # fmt: skip
            panel.errorbar(
                val["mean"], places, xerr=val["std"], fmt="o", color=color, label="validation"
            )
            panel.axvline(
                val["mean"][COURSE], color=MUTED, linestyle="--", label="validation of the course's"
            )
            panel.set(title=title, xlabel=LOSS)
        axes[0].set_yticks(places, [label(row) for row in rows])
        axes[0].invert_yaxis()
        handles, names = axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=len(names))
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.sweep", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--jobs", type=int, default=2, help="number of parallel runs")
    parser.add_argument(
        "--gather", action="store_true", help="run nothing, only collect the results"
    )
    parser.add_argument(
        "--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help="rows to measure"
    )
    arguments = parser.parse_args()
    names = experiments(arguments.rows)
    if not arguments.gather:
        try:
            refuse_incomplete()
            refuse_changes()
            queue.refuse_others(names.values())
            missing = [
                name
                for row in arguments.rows
                for name in queue.enqueue(PREFIX + row, [SHORT, *ROWS[row].split()], SEEDS)
            ]
            if missing:
                queue.run(missing, arguments.jobs)
        except subprocess.CalledProcessError as error:
            sys.exit(error.returncode)  # dvc has printed the error
        except KeyboardInterrupt:
            sys.exit("interrupted; the queue keeps running (to stop it: dvc queue stop --kill)")
    there = queue.finished()
    if missing := [name for name in names.values() if name not in there]:
        count = f"{len(missing)} of {len(names)}"
        sys.exit(f"error: {missing[0]} has not been run ({count} are missing); run: make sweep")
    runs = gather({key: there[name] for key, name in names.items()})
    if kept := [row for row in ROWS if row not in arguments.rows]:
        before = pd.read_csv(RUNS).set_index("row")
        runs = pd.concat([runs.set_index("row"), before.loc[kept]]).loc[list(ROWS)].reset_index()
    summary = summarize(runs)
    write_csv(RUNS, runs)
    save(PICTURE, draw(summary))
    write_result(TABLE, TEXT, __doc__, table=table(summary))


if __name__ == "__main__":
    main()
