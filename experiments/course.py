"""What docs/course.md measures beyond the sweep: short trainings, less data, and the exercise.

Each row is a training of one model on the default names, with the parameters that the row's
options of `dvc exp run` set. A cell is the mean ± standard deviation over seeds 1, 2 and 3, in nats
per character. The gap is validation loss minus training loss, both of the weights that are kept.

    python -m experiments.course

writes `experiments/course.csv` (a line per run) and `experiments/COURSE.md`. Runs that are in the
file are not repeated.
"""

import argparse
import shutil
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from dvc.utils.hydra import apply_overrides

from benchmarks.run import write_result
from benchmarks.trainer import COURSE_MODELS as MODELS
from benchmarks.trainer import trained, trainer_of, windows_of
from benchmarks.turns import markdown
from charlm.core.files import write_csv
from charlm.core.params import PARAMS_FILE, Params, load_params
from charlm.data.splits import Part
from charlm.fast.running import mean_loss
from charlm.models.base import LanguageModel, count_parameters
from experiments.runs import kept_runs
from experiments.sweep import SEEDS
from pipeline.side_by_side import cores

FOLDER = Path(__file__).parent
RUNS, TABLES = FOLDER / "course.csv", FOLDER / "COURSE.md"
KEYS = ["row", "model", "seed"]

TEXT = """\
# What the course's page measures

{explained}

The course's two models:

{both}

The exercise:

{exercise}
"""

BOTH = (
    "epochs=10",
    "epochs=10 training.scheduler=lambda",
    "epochs=10 training.scheduler=linear",
    "epochs=10 training.scheduler=onecycle",
    "epochs=10 training.scheduler=onecycle lr=0.5",
    "epochs=10 training.scheduler=onecycle lr=1",
    "epochs=10 training.scheduler=linear lr=1",
    "epochs=10 lr=1",
    "training.scheduler=onecycle lr=1",
    "split.train=0.4",
    "training.scheduler=lambda fcn.dropout=0.1 wavenet.dropout=0.1",
)
"""The parameters of each row of the course's two models that differ from the defaults."""

AVERAGED = "wavenet.hidden_dim=70 ++wavenet.average=0.999"
DECAYED = f"{AVERAGED} ++wavenet.weight_decay=0.1 ++wavenet.scheduler=linear"
ALONE = "compact.channels=72 compact.distill=0"

EXERCISE = {
    "WaveNet, 70 units": "wavenet.hidden_dim=70",
    "the same, averaged": AVERAGED,
    "the same, AdamW": f"{DECAYED} ++wavenet.optimizer=adamw wavenet.lr=0.005",
    "the same, Muon": f"{DECAYED} ++wavenet.optimizer=muon wavenet.lr=0.02 ++wavenet.momentum=0.95",
    "compact, SGD": f"{ALONE} compact.optimizer=sgd compact.lr=0.2 compact.momentum=0 "
    "compact.weight_decay=0 compact.scheduler=none compact.keep=last compact.patience= "
    "compact.average=0.999 compact.batch_size=256 compact.epochs=50",
    "compact, AdamW": f"{ALONE} compact.optimizer=adamw compact.lr=0.01",
    "compact, Muon": ALONE,
    "compact, Muon, not averaged": f"{ALONE} compact.average=0",
    "compact, Muon, a layer per level": "compact.channels=43 compact.distill=0 "
    "compact.shared=false",
    "compact, distilled": "compact.channels=72",
    "compact, distilled, 40 epochs": "compact.channels=72 compact.epochs=40",
    "48 channels": "compact.channels=48 compact.epochs=40",
    "44 channels": "compact.channels=44 compact.epochs=40",
    "40 channels": "compact.channels=40 compact.epochs=40",
}
"""The parameters of each row of the exercise, all of one model."""


def assignments(row: str) -> list[str]:
    """Return the assignments of a row, as `dvc exp run -S` takes them."""
    return EXERCISE.get(row, row).split()


def options(row: str) -> str:
    """Return the options of `dvc exp run` of a row."""
    return " ".join(f"-S {assignment}" for assignment in assignments(row))


def runs_wanted() -> list[tuple[str, str, int]]:
    """Return the row, model and seed of each run."""
    models = {row: list(MODELS) for row in BOTH}
    models |= {row: [text.partition(".")[0]] for row, text in EXERCISE.items()}
    return [(row, model, seed) for row in models for model in models[row] for seed in SEEDS]


def params_of(changes: Iterable[str], seed: int) -> Params:
    """Return `params.yaml` as `dvc exp run -S` changes it, with a seed."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / PARAMS_FILE.name
        shutil.copy(PARAMS_FILE, file)
        apply_overrides(file, [*changes, f"seed={seed}"])
        return load_params(file)


@cache
def teacher(seed: int) -> LanguageModel:
    """Train the hybrid with the default settings: no row changes them."""
    params = params_of([], seed)
    return trained(trainer_of("hybrid", params, *windows_of(params)))


def losses_of(row: str, model: str, seed: int) -> dict[str, float]:
    """Train a model; return its number of parameters and its losses on all three sets."""
    params = params_of(assignments(row), seed)
    corpus, windows = windows_of(params)
    by = teacher(seed) if params.setting(model, "distill") else None
    net = trained(trainer_of(model, params, corpus, windows, teacher=by))
    losses = {f"{part.name.lower()}_loss": mean_loss(net, windows[part]) for part in Part}
    return {"parameters": count_parameters(net), **losses}


def summarize(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the parameters and mean ± standard deviation of the losses, by row and model."""
    runs = runs.assign(gap=runs["val_loss"] - runs["train_loss"])
    of_rows = runs.groupby(["row", "model"], sort=False)
    cells = of_rows[["parameters"]].mean().map("{:,.0f}".format)
    columns = {"gap": "gap", "val_loss": "validation", "test_loss": "test"}
    for column, title in columns.items():
        mean, std = of_rows[column].mean(), of_rows[column].std()
        cells[title] = mean.map("{:.4f}".format) + " ± " + std.map("{:.4f}".format)
    return cells


def tables(runs: pd.DataFrame) -> tuple[str, str]:
    """Return the tables of the course's two models and of the exercise."""
    cells = summarize(runs)
    titles = ["gap", "validation", "test"]
    head = ["", *(f"{title}: {column}" for title in MODELS.values() for column in titles)]
    both = [
        [f"`{options(row)}`", *(str(cells[it][row, model]) for model in MODELS for it in titles)]
        for row in BOTH
    ]
    its = ["parameters", *titles]
    exercise = [
        [row, *map(str, cells.xs(row, level="row").iloc[0][its]), f"`{options(row)}`"]
        for row in EXERCISE
    ]
    return markdown(head, both), markdown(["", *its, "options"], exercise)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.course", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--jobs", type=int, default=cores(), help="number of parallel runs")
    jobs = parser.parse_args().jobs
    wanted = runs_wanted()
    runs = kept_runs(losses_of, KEYS, {key: key for key in wanted}, RUNS, jobs)
    runs = runs.set_index(KEYS).loc[wanted].reset_index()
    write_csv(RUNS, runs)
    both, exercise = tables(runs)
    write_result(TABLES, TEXT, __doc__, both=both, exercise=exercise)


if __name__ == "__main__":
    main()
