"""Functions that draw results as matplotlib figures."""

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import font_manager, ft2font, rc_context, style
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from charlm.core.files import replacing
from charlm.data.corpus import END, printable

Floats = NDArray[np.floating]

COUNT_MODELS = {
    "uniform": "Uniform",
    "unigram": "Unigram",
    "bigram": "Bigram",
}
"""Titles of the n-gram baselines."""

LOSS = "cross-entropy (nats per character)"
MODEL_COLORS = ("#1f6fb4", "#d1495b", "#3a7d44", "#8f5fbf", "#c77f1a", "#12808a")
MUTED = "#6b6b6b"
# "default" first, so that the user's matplotlibrc does not change the figures.
STYLE: list[Any] = [
    "default",
    {
        "figure.dpi": 150,
        "figure.constrained_layout.use": True,
        "font.family": "DejaVu Sans",
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "axes.axisbelow": True,
        "legend.frameon": False,
    },
]


@style.context(STYLE)
def save(path: Path, figure: Figure) -> None:
    """Write a figure as PNG, without metadata that depend on the version."""
    lay_out(figure, FigureCanvasAgg(figure), figure.dpi)
    with replacing(path) as partial:
        figure.savefig(partial, format="png", metadata={"Software": None})


def lay_out(figure: Figure, canvas: FigureCanvasBase, dpi: float) -> None:
    """Fix the layout of a figure, so that `savefig` does not draw it twice to compute it.

    Args:
        canvas: the canvas that saves the figure.
        dpi: the resolution that it is saved with.
    """
    engine = figure.get_layout_engine()
    if engine is None:
        return
    original, figure.dpi = figure.dpi, dpi
    engine.execute(canvas.figure)
    figure.dpi = original
    with rc_context({"figure.constrained_layout.use": False}):
        figure.set_layout_engine(None)  # "none" leaves one that does nothing, but is drawn for


@style.context(STYLE)
def loss_against_parameters(models: Mapping[str, Any], baselines: Mapping[str, Any]) -> Figure:
    """Draw test loss against number of parameters: everything, and a close-up of the models.

    Args:
        models: metrics of the models by title, as returned by `metrics.summarize`.
        baselines: the same for the n-gram baselines; one without parameters is drawn as a line.
    """
    figure, (overview, close_up) = _figure(10, 4.6, columns=2)
    for axes in (overview, close_up):
        for color, (title, metrics) in zip(cycle(MODEL_COLORS), models.items(), strict=False):
            _size_point(axes, metrics, title, color=color, marker="o")
    for marker, (title, metrics) in zip(cycle("sD^vP"), baselines.items(), strict=False):
        if metrics["parameters"]:
            _size_point(overview, metrics, title, color=MUTED, marker=marker)
        else:
            label = f"{title}: {metrics['test_loss']:#.4g}"
            overview.axhline(metrics["test_loss"], color=MUTED, linestyle="--", label=label)
    overview.set_title("Models and n-gram baselines (gray)")
    overview.set_xscale("log")
    overview.legend(
        fontsize=9, title="test loss, parameters", loc="upper right", bbox_to_anchor=(1, 0.93)
    )
    close_up.set_title("Models only (bars: two standard errors)")
    close_up.margins(x=0.3, y=0.3)
    close_up.xaxis.set_major_formatter("{x:,.0f}")
    return figure


@style.context(STYLE)
def embedding_maps(embeddings: Mapping[str, Floats | None], symbols: Sequence[str]) -> Figure:
    """Draw each model's token embedding, projected to two dimensions.

    Overlapping labels are moved apart a little; if there are too many for that, tokens whose
    label has no room are drawn as dots.

    Args:
        embeddings: (V, C) by title; a model whose embedding is None is left out.
        symbols: a label for each of the V tokens.
    """
    tables = {title: table for title, table in embeddings.items() if table is not None}
    figure, row = _figure(5.6 * max(1, len(tables)), 5.6, columns=len(tables) or 1)
    few = len(symbols) <= 100
    size = 11 if few else 7
    for axes, (title, embedding) in zip(row, tables.items(), strict=False):
        points, shares = principal_components(embedding)
        room = 0.03 * float(np.ptp(points, axis=0).max())  # for a label
        points = move_apart(points, room) if few else points
        lettered = list(range(len(symbols))) if few else spaced_out(points, room)
        dots = np.full(len(symbols), 2.0)
        dots[lettered] = 0
        axes.scatter(points[:, 0], points[:, 1], s=dots, color=MUTED)
        axes.set_aspect("equal", adjustable="datalim")
        for token in lettered:
            x, y = points[token].tolist()
            label, font = _drawable(printable(symbols[token]))
            text = axes.text(x, y, label, fontproperties=font, ha="center", va="center")
            text.set_fontsize(size)
            if token == END:
                text.set(color=MODEL_COLORS[1], fontweight="bold", fontsize=2 * size)
        axes.set_title(title)
        axes.set_xlabel(f"first principal component ({shares[0]:.0%} of the variance)")
        axes.set_ylabel(f"second ({shares[1]:.0%})")
    if not tables:
        row[0].set_axis_off()
        figure.suptitle("No model has a character embedding")
        return figure
    figure.suptitle("Character embeddings (red dot: end of a name)")
    return figure


def principal_components(points: Floats) -> tuple[Floats, Floats]:
    """Project points on two principal axes: coordinates (V, 2), explained variance ratios (2,).

    The sign of an axis, which the decomposition leaves undetermined, is chosen so that the
    farthest point is on the positive side. With a single dimension, the second is zero.
    """
    centered = points - points.mean(0, dtype=np.float64)  # (V, C)
    u, s, _ = np.linalg.svd(centered, full_matrices=False)
    projected = np.pad(u * s, ((0, 0), (0, 2)))[:, :2]
    farthest = np.take_along_axis(projected, np.abs(projected).argmax(0, keepdims=True), axis=0)
    shares = np.pad(s**2 / max((s**2).sum(), 1e-12), (0, 2))[:2]
    return projected * np.where(farthest < 0, -1, 1), shares


def move_apart(points: Floats, distance: float) -> Floats:
    """Push points (V, 2) that are closer than `distance` apart a little."""
    for _ in range(100):
        gaps = points[:, None] - points  # (V, V, 2)
        lengths = np.sqrt((gaps**2).sum(2, keepdims=True)).clip(min=1e-9)
        points = points + (gaps / lengths * (distance - lengths).clip(min=0)).sum(1) / 4
    return points


def spaced_out(points: Floats, distance: float) -> list[int]:
    """Select points (V, 2) greedily, in order, at least `distance` from all selected ones."""
    taken: list[int] = []
    for index, point in enumerate(points):
        if not taken or ((points[taken] - point) ** 2).sum(1).min() >= distance**2:
            taken.append(index)
    return taken


def _figure(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height))
    return figure, [figure.add_subplot(1, columns, i + 1) for i in range(columns)]


def _size_point(
    axes: Axes, metrics: Mapping[str, Any], title: str, color: str, marker: str
) -> None:
    axes.set_xlabel("parameters")
    axes.set_ylabel(f"test {LOSS}")
    axes.errorbar(
        metrics["parameters"],
        metrics["test_loss"],
        yerr=2 * metrics["test_loss_stderr"],
        fmt=marker,
        color=color,
        capsize=3,
        label=f"{title}: {metrics['test_loss']:#.4g}, {metrics['parameters']:,}",
    )


@cache
def _drawable(label: str) -> tuple[str, font_manager.FontProperties | None]:
    """Return `label` and a font that has it; if there is none, its code point."""
    code_points = [ord(character) for character in label]
    default = Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")
    if all(map(ft2font.FT2Font(default).get_char_index, code_points)):
        return label, None
    # The "Last Resort" font claims every character, but draws a box for each.
    fonts = (f for f in font_manager.fontManager.ttflist if not f.name.startswith("Last Resort"))
    for path in sorted({font.fname for font in fonts}):
        try:
            if all(map(ft2font.FT2Font(path).get_char_index, code_points)):
                return label, font_manager.FontProperties(fname=path)
        except (OSError, RuntimeError):
            continue
    return f"U+{code_points[-1]:04X}", None
