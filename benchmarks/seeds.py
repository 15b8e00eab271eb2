"""Mean and standard deviation of every metric over several seeds.

Runs the whole pipeline once a seed (`dvc exp run --temp`, so the workspace stays
as it is), and prints a table in Markdown:

    python -m benchmarks.seeds
    python -m benchmarks.seeds --names ~/names.txt -S wavenet.epochs=40
"""

import argparse
import subprocess
import sys
from pathlib import Path

import dvc.api
import pandas as pd

from benchmarks.turns import markdown

METRICS = ["train_loss", "val_loss", "test_loss", "test_loss_stderr"]
METRICS += ["test_perplexity", "test_bits_per_character", "test_accuracy"]
OF_SAMPLES = ["unique", "novel", "mean_length"]


def run_seed(seed: int, assignments: list[str]) -> dict[str, dict[str, float]]:
    """Run the pipeline with one seed; the metrics by model."""
    name = f"seeds-{seed}"
    options = [word for item in [f"seed={seed}", *assignments] for word in ("-S", item)]
    subprocess.run(["dvc", "exp", "run", "--temp", "--force", "--name", name, *options], check=True)
    metrics: dict[str, dict[str, float]] = dvc.api.metrics_show("metrics/evaluation.json", rev=name)
    samples = dvc.api.metrics_show("metrics/samples.json", rev=name)
    for model, its in metrics.items():
        its.update(samples.get(model, {}))
    subprocess.run(["dvc", "exp", "remove", "--quiet", name], check=True)
    return metrics


def table(runs: list[dict[str, dict[str, float]]]) -> str:
    """A row a model, mean ± standard deviation over the runs in each cell.

    Where a model has no such metric, as the counts have no samples, the cell is empty.
    """
    every = pd.concat([pd.DataFrame(run).T for run in runs])
    known = [metric for metric in [*METRICS, *OF_SAMPLES] if metric in every]
    mean, deviation = (every.groupby(level=0, sort=False)[known].agg(f) for f in ("mean", "std"))
    cells = mean.map("{:.4f}".format) + " ± " + deviation.map("{:.4f}".format)
    cells = cells.where(mean.notna(), "")
    return markdown(["", *known], [[str(model), *row] for model, row in cells.T.items()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--names", type=Path, help="another list of names, wherever it is")
    parser.add_argument("-S", "--set-param", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    assignments = list(arguments.set_param)
    if arguments.names:
        if not arguments.names.expanduser().is_file():
            sys.exit(f"error: --names {arguments.names} does not exist; give the path of a list")
        # An experiment runs in a folder of its own, where a relative path would lead elsewhere.
        assignments.append(f"names.path={arguments.names.expanduser().resolve()}")
    try:
        runs = [run_seed(seed, assignments) for seed in arguments.seeds]
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)  # dvc has said what is wrong
    print(
        f"\nMean ± standard deviation over seeds {arguments.seeds}, {assignments or 'defaults'}:\n"
    )
    print(table(runs))


if __name__ == "__main__":
    main()
