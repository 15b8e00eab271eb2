"""The figures."""

import itertools
import math
import warnings
from collections.abc import Callable
from pathlib import Path

import matplotlib.style
import matplotlib.text
import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from charlm.report import figures


def metrics(loss: float, parameters: int, stderr: float = 0.01) -> dict[str, float]:
    return {"test_loss": loss, "test_loss_stderr": stderr, "parameters": parameters}


NETS = {"Net A": metrics(2.03, 38_606), "Net B": metrics(2.01, 74_874)}
COUNTS = {"None": metrics(3.83, 0), "One": metrics(2.9, 46), "Two": metrics(2.4, 2116)}
SYMBOLS = list(".ABCDÉ")


def embedding(channels: int = 10, tokens: int = len(SYMBOLS), seed: int = 1) -> figures.Floats:
    return np.random.default_rng(seed).standard_normal((tokens, channels), dtype=np.float32)


DRAW: dict[str, Callable[[], Figure]] = {
    "loss_against_parameters": lambda: figures.loss_against_parameters(NETS, COUNTS),
    "embedding_maps": lambda: figures.embedding_maps(
        {"A": embedding(), "B": embedding(seed=2)}, SYMBOLS
    ),
}
EACH = pytest.mark.parametrize("draw", DRAW.values(), ids=DRAW.keys())


def legend(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def save_without_warning(path: Path, figure: Figure) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures.save(path, figure)
    return path.read_bytes()


@EACH
def test_both_axes_of_every_panel_have_a_label(draw: Callable[[], Figure]) -> None:
    figure = draw()
    assert isinstance(figure, Figure)
    for axes in figure.axes:
        assert axes.get_xlabel()
        assert axes.get_ylabel()
        assert axes.get_title()


@EACH
def test_a_figure_is_saved_as_the_same_png_twice(
    draw: Callable[[], Figure], tmp_path: Path
) -> None:
    first = save_without_warning(tmp_path / "first.png", draw())
    assert first.startswith(b"\x89PNG")
    assert b"Software" not in first
    assert save_without_warning(tmp_path / "second.png", draw()) == first


@EACH
def test_drawing_leaves_the_settings_of_matplotlib_alone(draw: Callable[[], Figure]) -> None:
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        before = dict(matplotlib.rcParams)
        draw()
        assert dict(matplotlib.rcParams) == before


@EACH
def test_a_figure_is_drawn_once_with_the_layout_of_matplotlib(
    draw: Callable[[], Figure], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with matplotlib.style.context(figures.STYLE):
        draw().savefig(tmp_path / "plain.png", metadata={"Software": None})
    drawn = []
    original = matplotlib.text.Text.draw
    monkeypatch.setattr(
        matplotlib.text.Text,
        "draw",
        lambda text, renderer: drawn.append(text) or original(text, renderer),
    )
    figures.save(tmp_path / "saved.png", draw())
    assert len(drawn) == len(set(drawn))
    assert (tmp_path / "saved.png").read_bytes() == (tmp_path / "plain.png").read_bytes()


def test_every_model_is_at_its_loss_and_parameters() -> None:
    overview, close_up = figures.loss_against_parameters(NETS, COUNTS).axes
    places = {
        (float(bar.lines[0].get_xdata()[0]), float(bar.lines[0].get_ydata()[0]))
        for bar in overview.containers
    }
    assert places == {
        (m["parameters"], m["test_loss"])
        for m in [*NETS.values(), *COUNTS.values()]
        if m["parameters"]
    }
    assert len(close_up.containers) == len(NETS)
    assert overview.get_xscale() == "log"
    assert overview.get_xlabel() == close_up.get_xlabel() == "parameters"
    assert overview.get_ylabel() == "test cross-entropy (nats per character)"


def test_a_model_without_parameters_is_a_line() -> None:
    overview, _ = figures.loss_against_parameters(NETS, COUNTS).axes
    (line,) = [line for line in overview.lines if line.get_linestyle() == "--"]
    assert list(line.get_ydata()) == [3.83, 3.83]


def test_the_legend_has_every_loss_and_size() -> None:
    overview, _ = figures.loss_against_parameters(NETS, COUNTS).axes
    assert sorted(legend(overview)) == [
        "Net A: 2.030, 38,606",
        "Net B: 2.010, 74,874",
        "None: 3.830",
        "One: 2.900, 46",
        "Two: 2.400, 2,116",
    ]


def test_the_bars_are_two_standard_errors() -> None:
    _, close_up = figures.loss_against_parameters({"A": metrics(2.0, 9, stderr=0.03)}, {}).axes
    (segment,) = close_up.containers[0].lines[2][0].get_segments()
    assert [y for _, y in segment] == pytest.approx([1.94, 2.06])


def test_every_token_is_at_its_place_in_the_embedding() -> None:
    embeddings = {"A": embedding(), "B": embedding(seed=2)}
    figure = figures.embedding_maps(embeddings, SYMBOLS)
    assert figure.get_suptitle()
    for axes, (title, points) in zip(figure.axes, embeddings.items(), strict=True):
        places, shares = figures.principal_components(points)
        assert axes.get_title() == title
        assert [text.get_text() for text in axes.texts] == SYMBOLS
        assert [text.get_position() for text in axes.texts] == [tuple(p) for p in places.tolist()]
        assert f"{shares[0]:.0%} of the variance" in axes.get_xlabel()
        assert f"{shares[1]:.0%}" in axes.get_ylabel()


def test_the_end_stands_out_among_the_tokens() -> None:
    (axes,) = figures.embedding_maps({"A": embedding()}, SYMBOLS).axes
    end, *others = axes.texts
    assert end.get_color() not in {text.get_color() for text in others}
    assert end.get_fontsize() > max(text.get_fontsize() for text in others)


@pytest.mark.parametrize(
    "characters",
    [
        "ΑΩώ",
        "中文字",
        "अिके",
        "שלום",
        "한글",
        " \u00a0",
        "$_^\\{}%#&",
        "\u0301\u200b",
        "\x00\x7f",
        "𝔸😀",
    ],
    ids=[
        "Greek",
        "Chinese",
        "Devanagari",
        "Hebrew",
        "Hangul",
        "blanks",
        "signs of TeX",
        "marks",
        "control",
        "beyond sixteen bits",
    ],
)
def test_characters_of_any_script_are_drawn_without_a_warning(
    characters: str, tmp_path: Path
) -> None:
    symbols = [".", *characters]
    figure = figures.embedding_maps({"A": embedding(tokens=len(symbols))}, symbols)
    save_without_warning(tmp_path / "figure.png", figure)
    drawn = [text.get_text() for text in figure.axes[0].texts]
    assert all(label.strip() for label in drawn)


def test_a_character_missing_from_all_fonts_is_drawn_as_its_code_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Matplotlib's last-resort font draws the same box for a whole script."""
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [])
    symbols = [".", "A", "\U0010fffd", "\u9fa5"]
    figure = figures.embedding_maps({"A": embedding(tokens=len(symbols))}, symbols)
    save_without_warning(tmp_path / "figure.png", figure)
    drawn = [text.get_text() for text in figure.axes[0].texts]
    assert drawn == [".", "A", "U+10FFFD", "U+9FA5"]


def test_an_invisible_character_is_drawn_as_a_label(tmp_path: Path) -> None:
    symbols = [".", *" \xa0\u200c\u0301"]
    figure = figures.embedding_maps({"A": embedding(tokens=len(symbols))}, symbols)
    save_without_warning(tmp_path / "figure.png", figure)
    drawn = [text.get_text() for text in figure.axes[0].texts]
    assert drawn == [".", "␣", "U+00A0", "U+200C", "◌\u0301"]


def test_thousands_of_tokens_are_drawn_in_small_letters() -> None:
    symbols = [".", *map(chr, range(0x4E00, 0x4E00 + 150))]
    (axes,) = figures.embedding_maps({"A": embedding(tokens=151)}, symbols).axes
    (few,) = figures.embedding_maps({"A": embedding()}, SYMBOLS).axes
    assert axes.texts[1].get_fontsize() < few.texts[1].get_fontsize()


@pytest.mark.parametrize(("tokens", "channels"), [(46, 10), (5, 20), (30, 2), (3, 2)])
def test_principal_components_are_the_eigenvectors_of_the_covariance(
    tokens: int, channels: int
) -> None:
    points = embedding(channels, tokens)
    places, shares = figures.principal_components(points)
    centered = points.astype(float) - points.astype(float).mean(0)
    variances, axes = np.linalg.eigh(centered.T @ centered)
    order = np.argsort(variances)[::-1][:2]
    expected = centered @ axes[:, order]
    assert places.shape == (tokens, 2)
    np.testing.assert_allclose(np.abs(places), np.abs(expected), atol=1e-5)
    np.testing.assert_allclose(shares, variances[order] / variances.sum(), atol=1e-6)
    for found, reference in zip(places.T, expected.T, strict=True):
        assert abs(found @ reference) == pytest.approx(found @ found)  # the same up to sign


def test_the_farthest_point_is_on_the_positive_side() -> None:
    for seed, flip in itertools.product(range(5), (1, -1)):
        places, _ = figures.principal_components(flip * embedding(seed=seed))
        for axis in places.T:
            assert axis[np.abs(axis).argmax()] > 0


def test_a_single_dimension_has_no_second_component(tmp_path: Path) -> None:
    points = np.array([[1.0], [2.0], [6.0]])
    places, shares = figures.principal_components(points)
    assert places[:, 0].tolist() == pytest.approx([-2, -1, 3])
    assert places[:, 1].tolist() == [0, 0, 0]
    assert shares.tolist() == pytest.approx([1, 0])
    save_without_warning(tmp_path / "f.png", figures.embedding_maps({"A": points}, list(".AB")))


def test_identical_points_have_no_variance(tmp_path: Path) -> None:
    points = np.ones((3, 4))
    places, shares = figures.principal_components(points)
    assert places.tolist() == [[0.0, 0.0]] * 3
    assert shares.tolist() == [0.0, 0.0]
    save_without_warning(tmp_path / "f.png", figures.embedding_maps({"A": points}, list(".AB")))


def test_only_letters_that_would_overlap_are_moved_apart() -> None:
    points = np.array([[0.0, 0.0], [0.01, 0.0], [0.0, 0.02], [5.0, 5.0], [9.0, 0.0]])
    moved = figures.move_apart(points, distance=0.3)
    assert min(math.dist(a, b) for a, b in itertools.combinations(moved, 2)) > 0.25
    assert np.array_equal(moved[3:], points[3:])
    assert np.abs(moved[:3]).max() < 0.3


def test_the_first_of_crowded_letters_is_drawn() -> None:
    points = np.array([[0.0, 0.0], [0.1, 0.0], [0.2, 0.0], [0.3, 0.0], [0.36, 0.0]])
    assert figures.spaced_out(points, distance=0.15) == [0, 2, 4]
    symbols = [".", *map(chr, range(0x4E00, 0x4E00 + 999))]
    (axes,) = figures.embedding_maps({"A": embedding(tokens=1000)}, symbols).axes
    assert 50 < len(axes.texts) < 1000
    (dots,) = axes.collections
    assert (dots.get_sizes() > 0).sum() == 1000 - len(axes.texts)


def test_more_models_than_colors_are_all_drawn() -> None:
    titles = [f"Net {number}" for number in range(len(figures.MODEL_COLORS) + 2)]
    nets = {title: metrics(2.0, 1000) for title in titles}
    overview, close_up = figures.loss_against_parameters(nets, nets).axes
    assert len(close_up.containers) == len(titles)
    assert len(overview.containers) == 2 * len(titles)


def test_a_model_without_an_embedding_is_left_out_of_the_maps(tmp_path: Path) -> None:
    figure = figures.embedding_maps({"A": None, "B": embedding(), "C": None}, SYMBOLS)
    assert [axes.get_title() for axes in figure.axes] == ["B"]
    figure = figures.embedding_maps({"A": None}, SYMBOLS)
    assert figure.get_suptitle() == "No model has a character embedding"
    save_without_warning(tmp_path / "f.png", figure)
