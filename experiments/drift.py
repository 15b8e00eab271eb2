"""Where validation parts from training: by how often a context occurs in the training windows.

Trains the course's models with the course's settings on the default names, seeds 1, 2 and 3, and
looks at the losses of the training and the validation windows after every epoch, apart for
contexts that occur in no other training window, in few and in many. (For a training window the
others are those besides itself; for a validation window they are all.) The gap is the loss of
validation windows less that of training windows, in nats per character; its parts, each the loss
of a group times its share of the windows, add up to the whole. Mean ± standard deviation over the
seeds; the lowest validation loss is that of the whole, in whatever epoch each seed has it.

    python -m experiments.drift

writes `experiments/DRIFT.md` and `experiments/drift.png`.
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

from benchmarks.run import tell
from benchmarks.trainer import COURSE_MODELS as MODELS
from benchmarks.trainer import trainer_of, windows_of
from benchmarks.turns import markdown, say
from charlm.core.params import load_params
from charlm.data.splits import Part
from charlm.data.windows import Windows
from charlm.evaluation.metrics import score
from charlm.fast.rows import distinct
from charlm.models.base import LanguageModel
from charlm.report.figures import LOSS, MODEL_COLORS, STYLE, save

FOLDER = Path(__file__).parent
TABLE, PICTURE = FOLDER / "DRIFT.md", FOLDER / "drift.png"
GROUPS = {"none": 0, "1 to 9": 1, "10 to 99": 10, "100 and more": 100}
"""Groups of contexts, by the fewest other training windows with the same one."""
PARTS = {Part.TRAIN: "training", Part.VAL: "validation"}

TEXT = """\
# Where validation parts from training

{explained}

{table}

![Losses by epoch for each group of contexts](drift.png)
"""


def groups_of(windows: Mapping[Part, Windows]) -> dict[Part, NDArray[np.intp]]:
    """The group of each training and each validation window, by its place in `GROUPS`."""
    contexts = [windows[part].batch(slice(None))[0] for part in PARTS]
    _, numbers = distinct(torch.cat(contexts))
    train, val = (its.numpy() for its in numbers.split([len(its) for its in contexts]))
    counts = np.bincount(train, minlength=int(numbers.max()) + 1)
    fewest = list(GROUPS.values())
    others = {Part.TRAIN: counts[train] - 1, Part.VAL: counts[val]}
    return {part: np.searchsorted(fewest, its, side="right") - 1 for part, its in others.items()}


def losses_by_group(
    model: LanguageModel, windows: Windows, groups: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Cross-entropy of the windows of each group in sum, over the number of all windows.

    Which is the mean loss of the group times its share: they add up to the mean loss.
    """
    losses, _ = score(model, windows)
    sums = np.bincount(groups, weights=losses.double().numpy(), minlength=len(GROUPS))
    return sums / len(windows)


def measure(model: str, seed: int) -> pd.DataFrame:
    """The losses of a training of the course's, a row for each epoch, part and group.

    Columns: `model`, `seed`, `epoch`, `part`, `group`, `loss` (nats per character, mean over the
    group), `share` (of the part's windows that are in the group).
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


def wholes(runs: pd.DataFrame) -> pd.DataFrame:
    """The same with the losses of all windows besides, as the group "all"."""
    keys = ["model", "seed", "epoch", "part"]
    weighted = runs.assign(loss=runs["loss"] * runs["share"])
    every = weighted.groupby(keys, sort=False)[["loss", "share"]].sum().reset_index()
    return pd.concat([runs, every.assign(group="all")])


def at_epochs(runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of the epoch with the lowest validation loss of each training, and of the last."""
    every = runs[(runs["group"] == "all") & (runs["part"] == "validation")]
    trainings = every.groupby(["model", "seed"])
    best = every.loc[trainings["loss"].idxmin(), ["model", "seed", "epoch"]]
    last = trainings["epoch"].max().reset_index()
    return {"lowest": runs.merge(best), "last": runs.merge(last)}


def table(runs: pd.DataFrame) -> str:
    """A row for each model and group."""
    rows = []
    moments = at_epochs(wholes(runs).reset_index(drop=True))
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
    """Each group's losses by epoch, mean over the seeds: validation solid, training dotted."""
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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    arguments = parser.parse_args()
    trainings = []
    for model in MODELS:
        for seed in arguments.seeds:
            say(f"{model}, seed {seed}")
            trainings.append(measure(model, seed))
    runs = pd.concat(trainings)
    save(PICTURE, draw(runs))
    tell(TABLE, TEXT, __doc__, table=table(runs))


if __name__ == "__main__":
    main()
