"""Mean and standard error of every metric over several seeds.

Runs the whole pipeline for each seed through DVC's queue, as many at a time as there are cores; the
workspace is not changed. Prints a Markdown table:

    python -m experiments.seeds
    python -m experiments.seeds --seeds 1 2 3 --names ~/names.txt -S wavenet.epochs=40
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.turns import markdown
from experiments import queue
from experiments.runs import add_options
from pipeline.clone import refuse_incomplete

NAME = "seeds"
METRICS = ["train_loss", "val_loss", "test_loss", "test_loss_stderr"]
METRICS += ["test_perplexity", "test_bits_per_character", "test_accuracy", "parameters"]
METRICS += ["unique", "novel"]


def run_seeds(
    seeds: Sequence[int], assignments: Sequence[str], jobs: int
) -> tuple[list[dict[str, dict[str, Any]]], int]:
    """Run the pipeline with each seed; return each run's metrics by model, and the number of names.

    DVC's queue keeps the output of failed runs until the next call.
    """
    names = queue.experiments(NAME, seeds)
    queue.refuse_others(names.values())
    queue.forget(names.values())  # left over from an interrupted run, maybe with other parameters
    try:
        queue.run(queue.enqueue(NAME, assignments, seeds), jobs)
    except KeyboardInterrupt:
        queue.forget(names.values())
        raise
    revisions = queue.finished()
    metrics = [queue.metrics(revisions[name]) for name in names.values()]
    data = json.loads(queue.read(revisions[names[seeds[0]]], "metrics/dataset.json"))
    queue.forget(names.values())
    return metrics, data["names"]


def table(runs: Sequence[dict[str, dict[str, Any]]]) -> str:
    """Return a table with a row per model, mean ± its standard error over the runs in each cell.

    A cell is empty if the model does not have the metric (n-gram models have no samples).
    """
    every = pd.concat([pd.DataFrame(run).T for run in runs])
    known = [metric for metric in METRICS if metric in every]
    of_models = every[known].groupby(level=0, sort=False)
    mean = of_models.mean()
    cells = _written(mean) + " ± " + _written(of_models.sem())
    cells = cells.where(mean.notna(), "")
    return markdown(["", *known], [[str(model), *row] for model, row in cells.T.items()])


def _written(values: pd.DataFrame) -> pd.DataFrame:
    """Format numbers of parameters as integers, everything else with four decimals."""
    texts = values.map("{:.4f}".format)
    if "parameters" in values:
        texts["parameters"] = values["parameters"].map("{:,.0f}".format)
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.seeds", description=(__doc__ or "").partition("\n")[0]
    )
    add_options(parser)
    parser.add_argument("--names", type=Path, help="another list of names")
    parser.add_argument(
        *("-S", "--set-param"),
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a parameter, as for dvc exp run",
    )
    arguments = parser.parse_args()
    if len(set(arguments.seeds)) < len(arguments.seeds):
        sys.exit("error: --seeds has a seed more than once; give each once")
    assignments = list(arguments.set_param)
    if arguments.names:
        if not arguments.names.expanduser().is_file():
            sys.exit(f"error: --names {arguments.names} does not exist; give the path of a list")
        # An experiment runs in its own folder, where a relative path would be wrong.
        assignments.append(f"names.path={arguments.names.expanduser().resolve()}")
    refuse_incomplete()
    try:
        runs, count = run_seeds(arguments.seeds, assignments, arguments.jobs)
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)  # dvc has printed the error
    except KeyboardInterrupt:
        sys.exit("interrupted")
    of_what = f"{assignments or 'defaults'}, {count:,} names"
    print(f"\nMean ± standard error over seeds {arguments.seeds}, {of_what}:\n")
    print(table(runs))


if __name__ == "__main__":
    main()
