"""The generalization gap by how often a context occurs in the training windows.

The course's models are trained with the course's settings on the default names, with seeds 1, 2
and 3. After every epoch the training and validation losses are computed separately for contexts
that occur in no other training window, in few, and in many. (A training window itself does not
count.) The gap is validation loss minus training loss, in nats per character; the part of a group
is the difference of its losses, each times its fraction of the windows, so the parts add up to the
gap. Mean ± standard deviation over the seeds; "lowest validation loss" is the epoch with the lowest
overall validation loss of each seed.

    python -m experiments.gap

writes `experiments/GAP.md` and `experiments/gap.png`.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib import style
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import nn

from benchmarks.run import write_result
from benchmarks.trainer import COURSE_MODELS as MODELS
from benchmarks.trainer import trainer_of, windows_of
from benchmarks.turns import markdown, say
from charlm.core.params import load_params
from charlm.data.splits import Part
from charlm.data.windows import Windows
from charlm.evaluation.metrics import score
from charlm.fast.rows import distinct
from charlm.report.figures import LOSS, MODEL_COLORS, STYLE, save

FOLDER = Path(__file__).parent
TABLE, PICTURE = FOLDER / "GAP.md", FOLDER / "gap.png"
GROUPS = {"none": 0, "1 to 9": 1, "10 to 99": 10, "100 and more": 100}
"""Groups of contexts, by the minimum number of other training windows with the same context."""
PARTS = {Part.TRAIN: "training", Part.VAL: "validation"}

TEXT = """\
# The generalization gap by context frequency

{explained}

{table}

![Losses by epoch for each group of contexts](gap.png)
"""


def groups_of(windows: Mapping[Part, Windows]) -> dict[Part, NDArray[np.intp]]:
    """Return the group of each training and validation window, as an index into `GROUPS`."""
    contexts = [windows[part].batch(slice(None))[0] for part in PARTS]
    _, numbers = distinct(torch.cat(contexts))
    train, val = (its.numpy() for its in torch.split(numbers, [len(its) for its in contexts]))
    counts = np.bincount(train, minlength=int(numbers.max()) + 1)
    fewest = list(GROUPS.values())
    others = {Part.TRAIN: counts[train] - 1, Part.VAL: counts[val]}
    return {part: np.searchsorted(fewest, its, side="right") - 1 for part, its in others.items()}


def losses_by_group(
    model: nn.Module, windows: Windows, groups: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Return each group's summed cross-entropy over the number of all windows.

    This is the group's mean loss times its fraction of the windows; they add up to the mean loss.
    """
    losses, _ = score(model, windows)
    sums = np.bincount(groups, weights=losses.double().numpy(), minlength=len(GROUPS))
    return sums / len(windows)


def measure(model: str, seed: int) -> pd.DataFrame:
    """Train a model with the course's settings; return a row for each epoch, part and group.

    Columns: `model`, `seed`, `epoch`, `part`, `group`, `loss` (nats per character, mean over the
    group), `share` (fraction of the part's windows that are in the group).
    """
    params = load_params().model_copy(update={"seed": seed})
    corpus, windows = windows_of(params)
    groups = groups_of(windows)
    shares = {
        part: np.bincount(its, minlength=len(GROUPS)) / len(its) for part, its in groups.items()
    }
    trainer = trainer_of(model, params, corpus, windows)
    tables = []
    for epoch in trainer.run(trainer.recipe.epochs):
        for part, name in PARTS.items():
            sums = losses_by_group(trainer.model, windows[part], groups[part])
            its = {"loss": sums / shares[part], "share": shares[part], "group": list(GROUPS)}
            tables.append(pd.DataFrame({**its, "epoch": epoch.epoch, "part": name}))
    return pd.concat(tables).assign(model=model, seed=seed)


def with_totals(runs: pd.DataFrame) -> pd.DataFrame:
    """Add the losses of all windows, as the group "all"."""
    keys = ["model", "seed", "epoch", "part"]
    weighted = runs.assign(loss=runs["loss"] * runs["share"])
    every = weighted.groupby(keys, sort=False)[["loss", "share"]].sum().reset_index()
    return pd.concat([runs, every.assign(group="all")])


def at_epochs(runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Select the rows of each training's epoch with the lowest validation loss, and of the last."""
    every = runs[(runs["group"] == "all") & (runs["part"] == "validation")]
    trainings = every.groupby(["model", "seed"])
    best = every.loc[trainings["loss"].idxmin(), ["model", "seed", "epoch"]]
    last = trainings["epoch"].max().reset_index()
    return {"lowest": runs.merge(best), "last": runs.merge(last)}


def table(runs: pd.DataFrame) -> str:
    """Return a table with a row for each model and group."""
    rows = []
    moments = at_epochs(with_totals(runs).reset_index(drop=True))
    for model, title in MODELS.items():
        for group in [*GROUPS, "all"]:
            cells = [title, group]
            for moment in moments.values():
                its = moment[(moment["model"] == model) & (moment["group"] == group)]
                train, val = (its[its["part"] == part].set_index("seed") for part in PARTS.values())
                if len(cells) == 2:
                    cells.append(f"{val['share'].mean():.0%}")
                parts = val["loss"] * val["share"] - train["loss"] * train["share"]
                cells += [spread(train["loss"]), spread(val["loss"]), spread(parts)]
            rows.append(cells)
    header = ["", "other windows with the context", "share of validation"]
    header += [
        f"{name}, {moment}"
        for moment in ("lowest validation loss", "last epoch")
        for name in ("training", "validation", "part of the gap")
    ]
    return markdown(header, rows)


def spread(values: "pd.Series[float]") -> str:
    return f"{values.mean():.3f} ± {values.std():.3f}"


def draw(runs: pd.DataFrame) -> Figure:
    """Plot each group's mean losses by epoch: validation solid, training dotted."""
    means = runs.groupby(["model", "group", "part", "epoch"])["loss"].mean()
    with style.context(STYLE):
        figure = Figure(figsize=(11, 4.8))
        axes = figure.subplots(1, len(MODELS), sharey=True)
        for panel, (model, title) in zip(axes, MODELS.items(), strict=True):
            for color, group in zip(MODEL_COLORS, GROUPS, strict=False):
                for part, line in zip(PARTS.values(), (":", "-"), strict=True):
                    its = means[model, group, part]
                    label = f"{group}, {part}"
                    panel.plot(its.index, its, line, color=color, label=label)
            panel.set(title=title, xlabel="epoch", ylabel=LOSS)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower center", ncols=len(GROUPS), fontsize=9,
            title="other training windows with the same context",
        )  # fmt: skip
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.gap", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[1, 2, 3], help="random seeds (default: 1 2 3)"
    )
    arguments = parser.parse_args()
    trainings = []
    for model in MODELS:
        for seed in arguments.seeds:
            say(f"{model}, seed {seed}")
            trainings.append(measure(model, seed))
    runs = pd.concat(trainings)
    save(PICTURE, draw(runs))
    write_result(TABLE, TEXT, __doc__, table=table(runs))


if __name__ == "__main__":
    main()
