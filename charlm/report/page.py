"""Render the report: a single self-contained, deterministic HTML page.

`page.html` is the template, `charts` draws, `tables` prepares data, and `live` embeds a model.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import DictLoader, Environment, StrictUndefined

from charlm.core.params import Params, Recipe
from charlm.data.checkpoint import Weights
from charlm.data.corpus import Corpus, printable
from charlm.data.splits import Split
from charlm.report import charts, figures, live
from charlm.report.nearest import Neighbor
from charlm.report.tables import Tree, calibration_error, in_use, mistake_grid, worst_mistakes

if TYPE_CHECKING:
    import pandas as pd

PAGE, STYLE, SCRIPT = (
    Path(__file__).with_name(name).read_text(encoding="utf-8")
    for name in ("page.html", "style.css", "generator.js")
)
"""Read on import like the code: the stage compares them with what DVC records after its imports."""
LARGEST = 1_500_000
"""Bytes of a page with a model that runs in it."""
SHOWN = 12
"""Number of generated names shown for each model."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """What the models were trained on.

    Attributes:
        path: path of the list of names.
        column: the heading or number of its column with the names; None if it is no table.
        names: number of names.
        mean_length: their mean length in characters.
        characters: number of distinct characters.
        block_size: characters of context.
        by: unit of the split, window or name.
        shares: fractions of the training, validation and test sets.
        windows: number of windows in each.
        seed: the random seed.
        example: a name of the list.
    """

    path: str
    column: str | int | None
    names: int
    mean_length: float
    characters: int
    block_size: int
    by: str
    shares: Sequence[float]
    windows: Sequence[int]
    seed: int
    example: str

    @classmethod
    def of(cls, params: Params, corpus: Corpus, split: Split) -> "Source":
        """Describe the list of names in `params`, as read and split."""
        source, parts = params.names, params.split
        count, _ = corpus.count()
        return cls(
            path=source.path,
            column=source.column,
            names=count,
            mean_length=corpus.mean_length(),
            characters=len(corpus.vocabulary.characters),
            block_size=corpus.block_size,
            by=parts.by,
            shares=[parts.train, parts.val, 1 - parts.train - parts.val],
            windows=list(split.sizes(corpus).values()),
            seed=params.seed,
            example=next(name for names in corpus.name_chunks() for name in names),
        )


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained model and its results.

    Attributes:
        weights: its checkpoint.
        recipe: its training settings; None if it is not trained by gradient descent.
        metrics: as returned by `metrics.summarize`.
        history: losses and learning rate by epoch; None if it is not trained.
        calibration: as returned by `analysis.calibration`.
        mistakes: as returned by `analysis.mistakes`.
        samples: generated names, with columns name, log_likelihood, in_training.
        nearest: the real name nearest to each of the first `SHOWN` samples.
        advice: what to do if it has memorized its training names; empty if it is not trained.
    """

    weights: Weights
    recipe: Recipe | None
    metrics: Mapping[str, float]
    history: "pd.DataFrame | None"
    calibration: "pd.DataFrame"
    mistakes: "pd.DataFrame"
    samples: "pd.DataFrame"
    nearest: Sequence[Neighbor]
    advice: str

    @property
    def title(self) -> str:
        return self.weights.title

    @property
    def mean_length(self) -> float:
        """Return the mean length of the generated names, in characters."""
        return float(self.samples["name"].str.len().mean())

    @property
    def likelihoods(self) -> dict[str, float]:
        """Return the log-likelihoods of the first generated names, by name."""
        first = self.samples[["name", "log_likelihood"]].head(live.COMPARED)
        return dict(first.itertuples(index=False, name=None))

    def rows(self) -> Iterator[tuple[tuple[str, float, bool], Neighbor]]:
        """Return (name, log-likelihood, in training set) of each sample, and its nearest name."""
        samples = self.samples[["name", "log_likelihood", "in_training"]].head(SHOWN)
        return zip(samples.itertuples(index=False, name=None), self.nearest, strict=True)


def render(
    source: Source,
    models: Mapping[str, Trained],
    counts: Mapping[str, Mapping[str, float]],
    loss_by: "Mapping[str, pd.DataFrame]",
) -> str:
    """Render the page as HTML, with the best model that it can run and that fits.

    Args:
        models: trained models by name.
        counts: metrics of the n-gram models, by name.
        loss_by: mean test loss by "position" and by "length", as from `results.read_loss_by`.
    """
    environment = Environment(
        loader=DictLoader({"page.html": PAGE}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"svg": functools.cache(charts.svg), "printable": printable}
    titles = {name: model.title for name, model in models.items()}
    count_titles = {name: figures.COUNT_MODELS[name] for name in counts}
    metrics = {titles[name]: model.metrics for name, model in models.items()}
    metrics |= {count_titles[name]: values for name, values in counts.items()}
    settings = {its.title: in_use(its.recipe) if its.recipe else {} for its in models.values()}
    histories = {its.title: its.history for its in models.values() if its.history is not None}
    sizes = dict.fromkeys(key for its in models.values() for key in its.weights.hyperparameters)
    symbols = next(iter(models.values())).weights.vocabulary.symbols()
    page = functools.partial(
        environment.get_template("page.html").render,
        style=STYLE,
        script=SCRIPT,
        source=source,
        models=list(models.values()),
        ranked=sorted(metrics.items(), key=lambda item: item[1]["test_loss"]),
        color={
            title: f"var(--model-{n % len(figures.MODEL_COLORS)})"
            for n, title in enumerate(titles.values())
        },
        settings=settings,
        setting_names=list(dict.fromkeys(key for its in settings.values() for key in its)),
        sizes=[key for key in sizes if key not in ("vocab_size", "members")],
        averaged=[its.title for its in models.values() if its.recipe and its.recipe.average],
        fewest=charts.FEWEST,
        side_by_side=charts.side_by_side(metrics, list(titles.values())),
        histories=histories,
        curves=charts.losses_and_rates(histories, list(titles.values())),
        by_position=charts.loss_by(
            loss_by["position"], "position", titles, "position in the name (including its end)"
        ),
        by_length=charts.loss_by(loss_by["length"], "length", titles, "length of the name"),
        loss_by=loss_by,
        drawn=titles,
        calibration=charts.calibration({titles[n]: its.calibration for n, its in models.items()}),
        calibration_error=calibration_error,
        grids={its.title: mistake_grid(its.mistakes) for its in models.values()},
        worst={its.title: worst_mistakes(its.mistakes) for its in models.values()},
        maps={
            its.title: charts.embedding_map(its.title, embedding, symbols)
            for its in models.values()
            if (embedding := its.weights.embedding) is not None
        },
        tree=Tree.over(source.block_size, source.example),
        shown=SHOWN,
    )
    best_first = sorted(models.values(), key=lambda its: its.metrics["test_loss"])
    for model in live.able((its.weights, its.likelihoods) for its in best_first):
        text: str = page(live=model)
        if len(text.encode()) <= LARGEST:
            return text
    return page(live=None)
