"""Compare the combined models with Kneser-Ney counts on any lists of names.

For each list and seed (of split and initialization): counts n-grams, trains the hybrid and the
compact WaveNet with the settings of `params.yaml`, and mixes the three. (The pipeline's mixture may
also have the course's two models, which take most of its time.)

    python -m experiments.best --lists colors greek --seeds 0 1 2
    python -m experiments.best --names FILE --by window

prints the mean test loss of each model over the seeds with its standard error, and the differences
from Kneser-Ney, paired by seed. Results are kept in `experiments/best.csv` and are not recomputed.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from benchmarks.trainer import trained, trainer_of, windows_of
from benchmarks.turns import markdown
from charlm.core.params import Params, load_params
from charlm.data.splits import Part
from charlm.data.windows import Windows
from charlm.fast.running import Runner, losses
from charlm.models.kneser_ney import KneserNey
from charlm.training.counting import count_by_order
from charlm.training.mixing import mixture_weights
from experiments.lists import LISTS, path_of
from experiments.runs import add_options, kept_runs

MODELS = {
    "kneser_ney": "Kneser-Ney",
    "compact": "compact WaveNet",
    "hybrid": "hybrid",
    "mixture": "mixture",
}
KEPT = Path(__file__).with_name("best.csv")
KEYS = ["list", "by", "seed"]
By = Literal["name", "window"]


def params_of(by: By, seed: int) -> Params:
    """Return `params.yaml` with another split."""
    params = load_params()
    split = params.split.model_copy(update={"by": by})
    return params.model_copy(update={"seed": seed, "split": split})


def probabilities(models: Iterable[torch.nn.Module], windows: Windows) -> NDArray[np.float64]:
    """Return the probability (M, W) that each model gives to the target of each window."""
    return np.array([losses(Runner(model), windows).double().neg().exp() for model in models])


def losses_of(path: Path, by: By, seed: int) -> dict[str, float]:
    """Return the test loss of each of `MODELS`, the order of the counts, and how many windows."""
    params = params_of(by, seed)
    corpus, windows = windows_of(params, path)
    counts = KneserNey(len(corpus.vocabulary), params.block_size)
    orders = range(params.block_size + 1)
    list(count_by_order(counts, windows[Part.TRAIN], windows[Part.VAL], orders))
    hybrid = trained(trainer_of("hybrid", params, corpus, windows))
    compact = trained(trainer_of("compact", params, corpus, windows, teacher=hybrid))
    models = {"kneser_ney": counts, "compact": compact, "hybrid": hybrid}
    weights = mixture_weights(probabilities(models.values(), windows[Part.VAL]))
    each = probabilities(models.values(), windows[Part.TEST])
    test = [*each, weights @ each]
    found = {name: float(-np.log(its).mean()) for name, its in zip(MODELS, test, strict=True)}
    return {**found, "order": float(counts.order), "windows": float(len(windows[Part.TRAIN]))}


def measured(
    measure: Callable[[Path, By, int], dict[str, float]],
    file: Path,
    paths: dict[str, Path],
    by: By,
    seeds: Sequence[int],
    jobs: int,
) -> pd.DataFrame:
    """Return what `measure` returns for each list and seed, read from a file if it is there."""
    for path in paths.values():
        if not path.is_file():
            sys.exit(f"error: --names {path} does not exist; give the path of a list")
    wanted = {(name, by, seed): (paths[name], by, seed) for name in paths for seed in seeds}
    return kept_runs(measure, KEYS, wanted, file, jobs)


def table(rows: pd.DataFrame) -> str:
    """Return a Markdown table: mean ± standard error over seeds, and differences from counts."""
    lines = []
    for name, its in rows.groupby("list", sort=False):
        differences = [its[model] - its["kneser_ney"] for model in ("compact", "mixture")]
        cells = [with_error(its[model]) for model in MODELS]
        lines.append([str(name).replace("_", " "), *cells, *map(with_error, differences)])
    means = rows.groupby("list")[[*MODELS]].mean()
    if len(means) > 1:
        over = means.mean().map("{:.4f}".format)
        gains = (means.mean() - means["kneser_ney"].mean()).map("{:.4f}".format)
        lines.append(["mean", *over, gains["compact"], gains["mixture"]])
    headings = ["compact − Kneser-Ney", "mixture − Kneser-Ney"]
    return markdown(["", *MODELS.values(), *headings], lines)


def with_error(values: "pd.Series[float]") -> str:
    """Return the mean of values and its standard error, if there are several."""
    error = f" ± {values.std() / len(values) ** 0.5:.4f}" if len(values) > 1 else ""
    return f"{values.mean():.4f}{error}"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.best", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "--lists",
        nargs="+",
        choices=LISTS,
        default=[],
        metavar="LIST",
        help="lists of experiments.lists",
    )
    parser.add_argument("--names", type=Path, nargs="+", default=[], help="other lists of names")
    parser.add_argument(
        "--by", choices=["name", "window"], default="name", help="how to split (default: name)"
    )
    add_options(parser)
    arguments = parser.parse_args()
    paths = {name: path_of(name) for name in arguments.lists}
    paths |= {path.stem: path for path in arguments.names}
    rows = measured(losses_of, KEPT, paths, arguments.by, arguments.seeds, arguments.jobs)
    print(table(rows))


if __name__ == "__main__":
    main()
