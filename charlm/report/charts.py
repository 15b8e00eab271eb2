"""The charts of the report: drawn by matplotlib, coloured by the page that they stand in."""

import io
import re
from collections.abc import Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING

from matplotlib import rc_context, style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from charlm.report.figures import LOSS, MODEL_COLOURS, MUTED, STYLE, Floats, embedding_maps

if TYPE_CHECKING:
    import pandas as pd

MARKERS = "os^Dv"
FEWEST = 30
"""Windows whose mean loss is worth drawing."""

THEME = {
    "#000000": "var(--ink)",
    "#b0b0b0": "var(--line)",
    MUTED: "var(--muted)",
    **{colour: f"var(--model-{n})" for n, colour in enumerate(MODEL_COLOURS)},
}
"""The page's custom properties, which are others in its dark form, for each colour of a figure."""


def svg(figure: Figure, name: str) -> str:
    """A figure as an SVG element to stand in a page: its colours and its font are the page's.

    The same figure gives the same text.

    Args:
        name: what its identifiers begin with, unlike those of any other figure of the page.
    """
    target = io.StringIO()
    with style.context(STYLE), rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
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
    """An attribute's numbers with two digits after the point."""
    return re.sub(r"(\d+\.\d{2})\d+", r"\1", attribute[0])


def _own_identifiers(text: str, name: str) -> str:
    """Only those identifiers that are referred to, each beginning with `name`."""
    referred = dict.fromkeys(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    number = count()
    new = {old: f"{name}-{next(number)}" for old in referred}
    text = re.sub(
        r' id="([^"]+)"', lambda found: f' id="{new[found[1]]}"' if found[1] in new else "", text
    )
    return re.sub(r'(url\(#|href="#)([^)"]+)', lambda found: f"{found[1]}{new[found[2]]}", text)


def _axes(height: float = 3.6, rows: Sequence[float] = (1,)) -> tuple[Figure, list[Axes]]:
    """Panels one above the other, that share what is along."""
    figure = Figure(figsize=(5.2, height))
    grid = figure.add_gridspec(len(rows), 1, height_ratios=rows)
    top = figure.add_subplot(grid[0])
    return figure, [top, *(figure.add_subplot(grid[i], sharex=top) for i in range(1, len(rows)))]


@style.context(STYLE)
def side_by_side(metrics: Mapping[str, Mapping[str, float]], nets: Sequence[str]) -> Figure:
    """The test loss of every model by title, a row each, the lowest at the top.

    Args:
        metrics: `test_loss` and `test_loss_stderr` by title.
        nets: the titles of those that were trained, in the order of their colours.
    """
    figure, (axes,) = _axes(0.9 + 0.33 * len(metrics))
    ranked = sorted(metrics, key=lambda title: metrics[title]["test_loss"], reverse=True)
    for row, title in enumerate(ranked):
        colour = MODEL_COLOURS[nets.index(title) % len(MODEL_COLOURS)] if title in nets else MUTED
        loss, error = metrics[title]["test_loss"], 2 * metrics[title]["test_loss_stderr"]
        axes.errorbar(loss, row, xerr=error, fmt="o", color=colour, capsize=3)
        axes.annotate(
            f"{loss:.3f}", (loss, row), (0, 5), textcoords="offset points", ha="center", fontsize=9
        )
    axes.set_yticks(range(len(ranked)), ranked)
    axes.margins(x=0.08)
    axes.set_ylim(-0.5, len(ranked) - 0.3)
    axes.set_xlabel(f"test {LOSS}")
    return figure


@style.context(STYLE)
def losses_and_rates(histories: "Mapping[str, pd.DataFrame]") -> Figure:
    """Validation (solid) and training loss (dotted) of every model, and its learning rate below."""
    figure, (losses, rates) = _axes(5.0, rows=(2.6, 1))
    width = 2.0 * len(histories)  # of one that others may lie upon
    for number, (title, history) in enumerate(histories.items()):
        colour, epochs = MODEL_COLOURS[number % len(MODEL_COLOURS)], history["epoch"]
        marker = "o" if len(epochs) == 1 else ""
        losses.plot(epochs, history["val_loss"], color=colour, label=title, marker=marker)
        losses.plot(epochs, history["train_loss"], ":", color=colour, marker=marker)
        rates.plot(epochs, history["lr"], color=colour, marker=marker, linewidth=width)
        width -= 2 if width > 2 else 0
    every = [history[["train_loss", "val_loss"]].to_numpy() for history in histories.values()]
    lowest = min(its.min() for its in every)
    highest = max(its[min(1, len(its) - 1) :].max() for its in every)  # the first may be far above
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


@style.context(STYLE)
def loss_by(table: "pd.DataFrame", place: str, titles: Mapping[str, str], label: str) -> Figure:
    """The mean test loss against a column of `analysis.mean_by`, where there is enough to tell.

    Args:
        titles: of the columns to draw: those of the nets in the order of their colours, and a
            last one that is no net's.
    """
    figure, (axes,) = _axes()
    enough = table[table["windows"] >= FEWEST]
    shown = enough if len(enough) else table
    *nets, counts = titles
    for number, name in enumerate(nets):
        marker = MARKERS[number % len(MARKERS)]
        colour = MODEL_COLOURS[number % len(MODEL_COLOURS)]
        axes.plot(shown[place], shown[name], color=colour, marker=marker, ms=4, label=titles[name])
    axes.plot(shown[place], shown[counts], "--", color=MUTED, label=titles[counts])
    axes.set_xlabel(label)
    axes.set_ylabel(LOSS)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    axes.legend()
    return figure


@style.context(STYLE)
def embedding_map(title: str, embedding: Floats, symbols: Sequence[str]) -> Figure:
    """`figures.embedding_maps` of one model, without titles, which the page has.

    Its dots are one image: as thousands of elements they would be most of the page.
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
    """How often the likeliest character came, against the probability that the model gave it.

    Args:
        tables: what `analysis.calibration` gives, by title.
    """
    figure, (axes,) = _axes(4.4)
    axes.plot([0, 1], [0, 1], "--", color=MUTED, label="as sure as right")
    for number, (title, table) in enumerate(tables.items()):
        colour = MODEL_COLOURS[number % len(MODEL_COLOURS)]
        marker = MARKERS[number % len(MARKERS)]
        axes.plot(
            table["confidence"], table["accuracy"], color=colour, marker=marker, ms=4, label=title
        )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_xlabel("probability of the likeliest character")
    axes.set_ylabel("how often it came")
    axes.legend()
    return figure
