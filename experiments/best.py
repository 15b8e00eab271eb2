"""The combined models on any lists of names, against Kneser-Ney counts.

For each list and seed (of split and initialization): counts n-grams, trains the hybrid and the
compact WaveNet with the settings of `params.yaml`, and mixes the three. (The pipeline's mixture may
have the course's two models too, which take most of its time.)

    python -m experiments.best --lists colours greek --seeds 0 1 2
    python -m experiments.best --names FILE --by window

prints the mean test loss of each model over the seeds with its standard error, and the differences
from Kneser-Ney, paired by seed. Results are kept in `.lists/best.csv` and not measured again.
"""

import argparse
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from benchmarks.trainer import trained, trainer_of, windows_of
from benchmarks.turns import markdown, say
from charlm.core.params import load_params
from charlm.data.splits import Part
from charlm.fast.running import Runner, losses
from charlm.models.kneser_ney import KneserNey
from charlm.training.counting import count_by_order
from charlm.training.mixing import mixture_weights
from experiments.lists import FOLDER, LISTS, path_of
from pipeline.side_by_side import cores

MODELS = ("kneser_ney", "compact", "hybrid", "mixture")
KEPT = FOLDER / "best.csv"
KEYS = ["list", "by", "seed"]
By = Literal["name", "window"]


def losses_of(path: Path, by: By, seed: int) -> dict[str, float]:
    """Return the test loss of each of `MODELS`, the order of the counts, and how many windows."""
    params = load_params()
    split = params.split.model_copy(update={"by": by})
    params = params.model_copy(update={"seed": seed, "split": split})
    corpus, windows = windows_of(params, path)
    counts = KneserNey(len(corpus.vocabulary), params.block_size)
    orders = range(params.block_size + 1)
    list(count_by_order(counts, windows[Part.TRAIN], windows[Part.VAL], orders))
    hybrid = trained(trainer_of("hybrid", params, corpus, windows))
    compact = trained(trainer_of("compact", params, corpus, windows, teacher=hybrid))
    models = {"kneser_ney": counts, "compact": compact, "hybrid": hybrid}
    probs = {
        part: np.array(
            [losses(Runner(its), windows[part]).double().neg().exp() for its in models.values()]
        )
        for part in (Part.VAL, Part.TEST)
    }
    weights = mixture_weights(probs[Part.VAL])
    test = [*probs[Part.TEST], weights @ probs[Part.TEST]]
    found = {name: float(-np.log(its).mean()) for name, its in zip(MODELS, test, strict=True)}
    return {**found, "order": float(counts.order), "windows": float(len(windows[Part.TRAIN]))}


def measured(paths: dict[str, Path], by: By, seeds: Sequence[int], jobs: int) -> pd.DataFrame:
    """Return a row for each list and seed, from `KEPT` if it is there."""
    kept = pd.read_csv(KEPT) if KEPT.exists() else pd.DataFrame(columns=[*KEYS, *MODELS])
    done = {tuple(row) for row in kept[KEYS].itertuples(index=False)}
    wanted = [(name, by, seed) for name in paths for seed in seeds]
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        running = {
            pool.submit(losses_of, paths[name], by, seed): (name, by, seed)
            for name, _, seed in wanted
            if (name, by, seed) not in done
        }
        for future in as_completed(running):
            row = dict(zip(KEYS, running[future], strict=True)) | future.result()
            say(" ".join(f"{key} {value}" for key, value in row.items()))
            kept = pd.concat([kept, pd.DataFrame([row])]) if len(kept) else pd.DataFrame([row])
            kept.to_csv(KEPT, index=False)
    return kept[[tuple(row) in wanted for row in kept[KEYS].itertuples(index=False)]]


def table(rows: pd.DataFrame) -> str:
    """Return a Markdown table: mean ± standard error over seeds, and differences from counts."""
    lines = []
    for name, its in rows.groupby("list", sort=False):
        differences = [its[model] - its["kneser_ney"] for model in MODELS[1:]]
        cells = [_with_error(its[model]) for model in MODELS]
        lines.append([str(name), *cells, *map(_with_error, differences)])
    headings = [f"{model} − kneser_ney" for model in MODELS[1:]]
    return markdown(["", *MODELS, *headings], lines)


def _with_error(values: "pd.Series[float]") -> str:
    error = values.std() / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{values.mean():.4f} ± {error:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--lists", nargs="+", choices=LISTS, default=[], metavar="LIST")
    parser.add_argument("--names", type=Path, nargs="+", default=[], help="other lists of names")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--by", choices=["name", "window"], default="name")
    parser.add_argument("--jobs", type=int, default=cores())
    arguments = parser.parse_args()
    paths = {name: path_of(name) for name in arguments.lists}
    paths |= {path.stem: path for path in arguments.names}
    print(table(measured(paths, arguments.by, arguments.seeds, arguments.jobs)))


if __name__ == "__main__":
    main()
