"""Prepare the data of the report's tables and drawings."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from charlm.core.params import Recipe

if TYPE_CHECKING:
    import pandas as pd

MOST = 8
"""Number of mistakes listed for each model."""

OPTIMIZER_SETTINGS = {
    "sgd": {"momentum"},
    "adamw": {"beta1", "beta2"},
    "muon": {"momentum", "beta1", "beta2"},
}
SCHEDULER_SETTINGS = {
    "none": set[str](),
    "lambda": {"lr_factor"},
    "step": {"lr_factor", "lr_every"},
    "linear": {"lr_factor"},
    "plateau": {"lr_factor", "lr_every"},
    "onecycle": {"warmup"},
}


def in_use(recipe: Recipe) -> dict[str, Any]:
    """Return the settings of a recipe that have an effect, by name.

    Settings of other optimizers and schedulers, and those that are switched off, are left out.
    """
    settings = recipe.model_dump()
    optional = set().union(*OPTIMIZER_SETTINGS.values(), *SCHEDULER_SETTINGS.values())
    used = OPTIMIZER_SETTINGS[recipe.optimizer] | SCHEDULER_SETTINGS[recipe.scheduler]
    return {
        name: value
        for name, value in settings.items()
        if value not in (None, 0) and (name not in optional or name in used)
    }


def calibration_error(table: "pd.DataFrame") -> float:
    """Compute the expected calibration error of Guo et al. (2017), equation 3.

    The mean absolute difference of confidence and accuracy over the bins of
    `analysis.calibration`, weighted by their windows.
    """
    gaps = (table["confidence"] - table["accuracy"]).abs()
    return float((gaps * table["windows"]).sum() / table["windows"].sum())


def worst_mistakes(table: "pd.DataFrame") -> list[dict[str, Any]]:
    """Return the most frequent rows of `analysis.mistakes`, with their share of `actual`."""
    table = table.assign(share=table["windows"] / _how_often(table))
    wrong = table[table["actual"] != table["predicted"]]
    worst = wrong.sort_values("windows", ascending=False, kind="stable").head(MOST)
    return [{str(key): value for key, value in row.items()} for row in worst.to_dict("records")]


def _how_often(table: "pd.DataFrame") -> "pd.Series[float]":
    """Return, for each row, the number of windows with its `actual`."""
    return table.groupby("actual")["windows"].transform("sum")


@dataclass(frozen=True)
class Cell:
    """A cell of a confusion matrix.

    Attributes:
        row: index of the actual character.
        column: index of the predicted character.
        right: whether they are equal.
        windows: number of windows.
        share: fraction of the row's windows, scaled so that the largest of any mistake is 1.
    """

    row: int
    column: int
    right: bool
    windows: int
    share: float


@dataclass(frozen=True)
class Grid:
    """A confusion matrix: labels of rows and columns, and its cells."""

    labels: list[str]
    cells: list[Cell]


def mistake_grid(table: "pd.DataFrame") -> Grid:
    """Arrange the results of `analysis.mistakes` as a confusion matrix."""
    labels = list(dict.fromkeys([*table["actual"], *table["predicted"]]))
    indices = {label: index for index, label in enumerate(labels)}
    wrong = table["actual"] != table["predicted"]
    share = table["windows"] / _how_often(table)
    share /= share[wrong].max() if wrong.any() else 1.0
    rows = zip(table["actual"], table["predicted"], table["windows"], share, strict=True)
    cells = [
        Cell(indices[actual], indices[predicted], actual == predicted, int(windows), min(its, 1.0))
        for actual, predicted, windows, its in rows
    ]
    return Grid(labels, cells)


@dataclass(frozen=True)
class Tree:
    """A binary tree over a context, for a drawing with leaves one unit apart.

    Attributes:
        context: the characters at the leaves, "." for padding.
        target: the next character.
        levels: x coordinates of the nodes of each level, leaves first.
    """

    context: list[str]
    target: str
    levels: list[list[float]]

    @classmethod
    def over(cls, block_size: int, name: str) -> "Tree":
        """Build the tree for the last character of `name`; `block_size` is a power of two."""
        context = ["."] * block_size + list(name[:-1])
        levels = [[float(i) for i in range(block_size)]]
        while len(levels[-1]) > 1:
            below = levels[-1]
            levels.append([(a + b) / 2 for a, b in zip(below[::2], below[1::2], strict=True)])
        return cls(context[-block_size:], name[-1], levels)

    def lines(self) -> Iterator[tuple[int, float, float]]:
        """Yield (level, x of the node, x of its parent) for every edge."""
        for level, (below, above) in enumerate(zip(self.levels, self.levels[1:], strict=False)):
            for i, x in enumerate(below):
                yield level, x, above[i // 2]
