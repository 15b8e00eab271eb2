"""The charts of the report: matplotlib figures as SVG, with the colors of the page."""

import io
import re
from collections.abc import Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import rc_context, style
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from charlm.report.figures import (
    LOSS,
    MODEL_COLORS,
    MUTED,
    STYLE,
    Floats,
    embedding_maps,
    lay_out,
)

if TYPE_CHECKING:
    import pandas as pd

MARKERS = "os^DvP"
POINTS = 72
"""Dots per inch of an SVG file."""
FEWEST = 30
"""Minimum number of windows for a point on a chart."""
MARKED = 100
"""Maximum markers on a line, each an element of the page; longer lines leave some out."""

THEME = {
    "#000000": "var(--ink)",
    "#b0b0b0": "var(--line)",
    MUTED: "var(--muted)",
    **{color: f"var(--model-{n})" for n, color in enumerate(MODEL_COLORS)},
}
"""The page's custom property (light or dark) for each color of a figure."""


def svg(figure: Figure, name: str) -> str:
    """Render a figure as an inline SVG element with the colors and the font of the page.

    The output is deterministic.

    Args:
        name: prefix of its identifiers, unique on the page.
    """
    target = io.StringIO()
    with style.context(STYLE), rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        lay_out(figure, FigureCanvasSVG(figure), POINTS)
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(target, format="svg", transparent=True, metadata=nothing)
    text = target.getvalue()
    unwanted = r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->"
    text = re.sub(unwanted, "", text, flags=re.DOTALL)
    text = text[text.index("<svg") :]
    text = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', r'<svg aria-hidden="true" \1>', text)
    text = re.sub(r"#[0-9a-f]{6}", lambda found: THEME.get(found[0], found[0]), text)
    text = re.sub(r"font: (?:bold |\d+ )?([\d.]+px) [^;\"]*", r"font-size: \1", text)
    text = re.sub(r"font-family: [^;\"]*;?", "", text)
    text = _own_identifiers(text, name)
    text = re.sub(r' (?:d|x|y|transform)="[^"]*"', _rounded, text)
    return re.sub(r"\s*\n\s*", "\n", text).strip()


def _rounded(attribute: re.Match[str]) -> str:
    """Shorten the numbers of an attribute to two decimals."""
    return re.sub(r"(\d+\.\d{2})\d+", r"\1", attribute[0])


def _own_identifiers(text: str, name: str) -> str:
    """Keep only the identifiers that are referenced, and prefix them with `name`."""
    referred = dict.fromkeys(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    number = count()
    new = {old: f"{name}-{next(number)}" for old in referred}
    text = re.sub(
        r' id="([^"]+)"', lambda found: f' id="{new[found[1]]}"' if found[1] in new else "", text
    )
    return re.sub(r'(url\(#|href="#)([^)"]+)', lambda found: f"{found[1]}{new[found[2]]}", text)


def _axes(height: float = 3.6, rows: Sequence[float] = (1,)) -> tuple[Figure, list[Axes]]:
    """Create panels one above the other that share their x axis."""
    figure = Figure(figsize=(5.2, height))
    grid = figure.add_gridspec(len(rows), 1, height_ratios=rows)
    top = figure.add_subplot(grid[0])
    return figure, [top, *(figure.add_subplot(grid[i], sharex=top) for i in range(1, len(rows)))]


@style.context(STYLE)
def side_by_side(metrics: Mapping[str, Mapping[str, float]], titles: Sequence[str]) -> Figure:
    """Draw the test loss of every model, a row each, the lowest at the top.

    Args:
        metrics: `test_loss` and `test_loss_stderr` by title.
        titles: those of the models with a color, in the order of their colors.
    """
    figure, (axes,) = _axes(0.9 + 0.33 * len(metrics))
    ranked = sorted(metrics, key=lambda title: metrics[title]["test_loss"], reverse=True)
    for row, title in enumerate(ranked):
        color = MODEL_COLORS[titles.index(title) % len(MODEL_COLORS)] if title in titles else MUTED
        loss, error = metrics[title]["test_loss"], 2 * metrics[title]["test_loss_stderr"]
        axes.errorbar(loss, row, xerr=error, fmt="o", color=color, capsize=3)
        axes.annotate(
            f"{loss:.3f}", (loss, row), (0, 5), textcoords="offset points", ha="center", fontsize=9
        )
    axes.set_yticks(range(len(ranked)), ranked)
    axes.margins(x=0.08)
    axes.set_ylim(-0.5, len(ranked) - 0.3)
    axes.set_xlabel(f"test {LOSS}")
    return figure


@style.context(STYLE)
def losses_and_rates(histories: "Mapping[str, pd.DataFrame]", titles: Sequence[str]) -> Figure:
    """Draw validation (solid) and training losses (dotted), and learning rates below.

    Args:
        histories: losses and learning rate by epoch, by title.
        titles: those of all models, in the order of their colors.
    """
    figure, (losses, rates) = _axes(5.0, rows=(2.6, 1))
    drawn: list[Floats] = []
    for title, history in histories.items():
        color = MODEL_COLORS[titles.index(title) % len(MODEL_COLORS)]
        epochs = history["epoch"]
        marker = "o" if len(epochs) == 1 else ""
        losses.plot(epochs, history["val_loss"], color=color, label=title, marker=marker)
        losses.plot(epochs, history["train_loss"], ":", color=color, marker=marker)
        lr = history["lr"].to_numpy()
        below = sum(_coincide(lr, other) for other in drawn)
        dashes = (0, (4, 4 * below)) if below else "-"  # show the lines below in the gaps
        rates.plot(epochs, lr, linestyle=dashes, color=color, marker=marker)
        drawn.append(lr)
    every = [history[["train_loss", "val_loss"]].to_numpy() for history in histories.values()]
    lowest = min(values.min() for values in every)
    highest = max(
        values[min(1, len(values) - 1) :].max() for values in every
    )  # the first may be far higher
    room = max(0.05 * (highest - lowest), 0.01)
    losses.set_ylim(lowest - room, highest + room)
    losses.set_ylabel(LOSS)
    losses.legend(title="validation; dotted: training")
    losses.tick_params(labelbottom=False)
    rates.set_yscale("log")
    rates.set_ylabel("learning rate")
    rates.set_xlabel("epoch")
    rates.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    return figure


def _coincide(a: Floats, b: Floats) -> bool:
    """Return whether two lines coincide in the epochs that both have."""
    both = min(len(a), len(b))
    return np.array_equal(a[:both], b[:both])


@style.context(STYLE)
def loss_by(table: "pd.DataFrame", column: str, titles: Mapping[str, str], label: str) -> Figure:
    """Draw the mean test loss against a column of `analysis.mean_by`, if there are enough windows.

    Args:
        titles: titles of the columns to draw, in the order of their colors.
    """
    figure, (axes,) = _axes()
    shown = reliable(table)
    every = -(-len(shown) // MARKED)
    for number, name in enumerate(titles):
        marker = MARKERS[number % len(MARKERS)]
        color = MODEL_COLORS[number % len(MODEL_COLORS)]
        (line,) = axes.plot(shown[column], shown[name], color=color, marker=marker, ms=4)
        line.set(label=titles[name], markevery=every)
    axes.set_xlabel(label)
    axes.set_ylabel(LOSS)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    axes.legend()
    return figure


def reliable(table: "pd.DataFrame") -> "pd.DataFrame":
    """Return the rows of `analysis.mean_by` with enough windows; all if there are none."""
    enough = table[table["windows"] >= FEWEST]
    return enough if len(enough) else table


@style.context(STYLE)
def embedding_map(title: str, embedding: Floats, symbols: Sequence[str]) -> Figure:
    """Draw `figures.embedding_maps` of one model, without titles, which the page has.

    The dots are rasterized: as thousands of SVG elements they would dominate the page's size.
    """
    figure = embedding_maps({title: embedding}, symbols)
    figure.suptitle("")
    for axes in figure.axes:
        axes.set_title("")
        for dots in axes.collections:
            dots.set_rasterized(True)
    return figure


@style.context(STYLE)
def calibration(tables: "Mapping[str, pd.DataFrame]") -> Figure:
    """Draw reliability diagrams: accuracy against confidence.

    Args:
        tables: results of `analysis.calibration`, by title.
    """
    figure, (axes,) = _axes(4.4)
    axes.plot([0, 1], [0, 1], "--", color=MUTED, label="perfectly calibrated")
    for number, (title, table) in enumerate(tables.items()):
        color = MODEL_COLORS[number % len(MODEL_COLORS)]
        marker = MARKERS[number % len(MARKERS)]
        axes.plot(
            table["confidence"], table["accuracy"], color=color, marker=marker, ms=4, label=title
        )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_xlabel("predicted probability of the most likely character")
    axes.set_ylabel("accuracy")
    axes.legend()
    return figure
