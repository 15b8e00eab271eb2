"""What the report counts, and puts in place, without drawing it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from charlm.core.params import Recipe

if TYPE_CHECKING:
    import pandas as pd

MOST = 8
"""Mistakes of a model that are named."""

OF_OPTIMIZER = {
    "sgd": {"momentum"},
    "adamw": {"beta1", "beta2"},
    "muon": {"momentum", "beta1", "beta2"},
}
OF_SCHEDULER = {
    "none": set[str](),
    "lambda": {"lr_factor"},
    "step": {"lr_factor", "lr_every"},
    "linear": {"lr_factor"},
    "plateau": {"lr_factor", "lr_every"},
    "onecycle": {"warmup"},
}


def in_use(recipe: Recipe) -> dict[str, Any]:
    """The settings of a recipe that make a difference, by name: those of its own optimizer and
    scheduler alone, and of the others what is switched on."""
    settings = recipe.model_dump()
    optional = set().union(*OF_OPTIMIZER.values(), *OF_SCHEDULER.values())
    used = OF_OPTIMIZER[recipe.optimizer] | OF_SCHEDULER[recipe.scheduler]
    return {
        name: value
        for name, value in settings.items()
        if value not in (None, 0) and (name not in optional or name in used)
    }


def calibration_error(table: "pd.DataFrame") -> float:
    """By how much confidence and accuracy differ on average over the windows.

    The expected calibration error of Guo et al. (2017), equation 3, from what
    `analysis.calibration` gives.
    """
    gaps = (table["confidence"] - table["accuracy"]).abs()
    return float((gaps * table["windows"]).sum() / table["windows"].sum())


def worst_mistakes(table: "pd.DataFrame") -> list[dict[str, Any]]:
    """The most frequent wrong answers: rows of `analysis.mistakes`, the share of `actual` added."""
    table = table.assign(share=table["windows"] / _how_often(table))
    wrong = table[table["actual"] != table["predicted"]]
    worst = wrong.sort_values("windows", ascending=False, kind="stable").head(MOST)
    return [{str(key): value for key, value in row.items()} for row in worst.to_dict("records")]


def _how_often(table: "pd.DataFrame") -> "pd.Series[float]":
    """For each row, in how many windows its `actual` came."""
    return table.groupby("actual")["windows"].transform("sum")


@dataclass(frozen=True)
class Cell:
    """A square of a grid of mistakes.

    Attributes:
        row: of what came,
        column: and of what was predicted.
        right: whether they are the same.
        windows: how often that was.
        share: of all windows in which that came, the highest of any mistake being 1.
    """

    row: int
    column: int
    right: bool
    windows: int
    share: float


@dataclass(frozen=True)
class Grid:
    """Which character is taken for which: labels of rows and columns, and what is in the cells."""

    labels: list[str]
    cells: list[Cell]


def mistake_grid(table: "pd.DataFrame") -> Grid:
    """What `analysis.mistakes` gives, as squares."""
    labels = list(dict.fromkeys([*table["actual"], *table["predicted"]]))
    place = {label: index for index, label in enumerate(labels)}
    wrong = table["actual"] != table["predicted"]
    share = table["windows"] / _how_often(table)
    share /= share[wrong].max() if wrong.any() else 1.0
    rows = zip(table["actual"], table["predicted"], table["windows"], share, strict=True)
    cells = [
        Cell(place[actual], place[predicted], actual == predicted, int(windows), min(its, 1.0))
        for actual, predicted, windows, its in rows
    ]
    return Grid(labels, cells)


@dataclass(frozen=True)
class Tree:
    """A tree of pairs over a context, for a drawing whose leaves are a unit apart.

    Attributes:
        context: what stands at the leaves, "." for the padding.
        target: what comes next.
        levels: where the nodes of each level are along, the leaves first.
    """

    context: list[str]
    target: str
    levels: list[list[float]]

    @classmethod
    def over(cls, block_size: int, name: str) -> "Tree":
        """The tree that predicts the last character of `name`; `block_size` a power of two."""
        context = ["."] * block_size + list(name[:-1])
        levels = [[float(i) for i in range(block_size)]]
        while len(levels[-1]) > 1:
            below = levels[-1]
            levels.append([(a + b) / 2 for a, b in zip(below[::2], below[1::2], strict=True)])
        return cls(context[-block_size:], name[-1], levels)

    def lines(self) -> Iterator[tuple[int, float, float]]:
        """(level, x there, x one level above) of every line from a node to its parent."""
        for level, (below, above) in enumerate(zip(self.levels, self.levels[1:], strict=False)):
            for i, x in enumerate(below):
                yield level, x, above[i // 2]
