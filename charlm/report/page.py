"""Render the report: a single self-contained, deterministic HTML page.

`page.html` is the template, `charts` draws, `tables` prepares data, `findings` words the headings,
and `live` embeds models.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined, Template

from charlm.core.params import Params, Recipe
from charlm.data.checkpoint import Weights
from charlm.data.corpus import Corpus, printable
from charlm.data.splits import Split
from charlm.report import charts, figures, findings, live
from charlm.report.nearest import Neighbor
from charlm.report.tables import Tree, calibration_error, in_use, mistake_grid, worst_mistakes

if TYPE_CHECKING:
    import pandas as pd

PAGE, STYLE, SORT, GENERATOR = (
    Path(__file__).with_name(name).read_text(encoding="utf-8")
    for name in ("page.html", "style.css", "sort.js", "generator.js")
)
"""Read on import like the code: the stage compares them with what DVC records after its imports."""
LARGEST = 1_600_000
"""Maximum bytes of a page with models that run in it."""
SHOWN = 12
"""Number of generated names in the table of each model."""
OPENING = 10
"""Number of generated names that the page opens with."""
TREES = ("wavenet", "compact", "hybrid")
"""Architectures that merge the context in a tree."""


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

    @property
    def opening(self) -> Iterator[tuple[str, float]]:
        """Return the first generated names, each with its log-likelihood."""
        first = self.samples[["name", "log_likelihood"]].head(OPENING)
        return first.itertuples(index=False, name=None)

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
    """Render the page as HTML, with the models that it can run and that fit, the best first.

    Args:
        models: trained models by name.
        counts: metrics of the n-gram models, by name.
        loss_by: mean test loss by "position" and by "length", as from `results.read_loss_by`.
    """
    best_first = sorted(models.values(), key=lambda its: its.metrics["test_loss"])
    results = _results(source, models, counts, loss_by)

    def page(running: live.Live | None) -> str:
        titles = [its["title"] for its in running["models"]] if running else []
        opening = next((its for its in best_first if its.title in titles), best_first[0])
        novelty = findings.generated(opening.title, opening.samples["in_training"].tolist())
        return _template().render(
            results
            | {
                "live": running,
                "opening": opening,
                "left_out": [its.title for its in best_first if its.title not in titles],
                "finding": results["finding"] | {"generator": novelty},
            }
        )

    candidates = [live.Candidate(its.weights, its.likelihoods) for its in best_first]
    room = LARGEST - len(page(live.without_tensors(candidates)).encode())
    while running := live.choose(candidates, room):
        text = page(running)
        excess = len(text.encode()) - LARGEST
        if excess <= 0:
            return text
        room = live.size(running) - excess
    return page(None)


@functools.cache
def _template() -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"printable": printable, "called": findings.called}
    return environment.from_string(PAGE)


def _results(
    source: Source,
    models: Mapping[str, Trained],
    counts: Mapping[str, Mapping[str, float]],
    loss_by: "Mapping[str, pd.DataFrame]",
) -> dict[str, Any]:
    """Prepare what the page shows, apart from the generator."""
    titles = {name: model.title for name, model in models.items()}
    metrics = {titles[name]: model.metrics for name, model in models.items()}
    baselines = {figures.COUNT_MODELS[name]: values for name, values in counts.items()}
    ranked = sorted((metrics | baselines).items(), key=lambda item: item[1]["test_loss"])
    settings = {its.title: in_use(its.recipe) if its.recipe else {} for its in models.values()}
    histories = {its.title: its.history for its in models.values() if its.history is not None}
    sizes = dict.fromkeys(
        key
        for its in models.values()
        for key, value in its.weights.hyperparameters.items()
        if key not in ("vocab_size", "members") and value is not None
    )
    vocabulary = next(iter(models.values())).weights.vocabulary
    worst = {its.title: worst_mistakes(its.mistakes) for its in models.values()}
    errors = {its.title: calibration_error(its.calibration) for its in models.values()}
    embeddings = {
        its.title: embedding
        for its in models.values()
        if (embedding := its.weights.embedding) is not None
    }
    pairs = {
        its.title: findings.closest(
            embeddings[its.title], vocabulary.characters, its.mistakes["actual"].unique().tolist()
        )
        for its in models.values()
        if its.title in embeddings
    }
    best = min(models, key=lambda name: models[name].metrics["test_loss"])
    reliable = {place: charts.reliable(table) for place, table in loss_by.items()}
    memorized = [its.title for its in models.values() if its.recipe and its.metrics["memorized"]]
    finding = {
        "comparison": findings.comparison(metrics, baselines),
        "position": findings.position(reliable["position"], titles, best),
        "length": findings.length(reliable["length"], titles, best),
        "mistakes": findings.mistake(titles[best], worst[titles[best]]),
        "calibration": findings.calibration(titles[best], models[best].calibration),
        "samples": findings.novelty(
            {its.title: 1 - its.samples["in_training"].mean() for its in models.values()}
        ),
        "data": findings.data(source.names, sum(source.windows)),
    }
    trees = [its for its in models.values() if its.weights.architecture in TREES]
    if histories:
        finding["curves"] = findings.curves(histories, memorized)
    if embeddings:
        finding["embedding"] = findings.embedding(pairs)
    if trees:
        finding["tree"] = findings.tree(source.block_size)
    return {
        "style": STYLE,
        "sort": SORT,
        "generator": GENERATOR,
        "svg": functools.cache(charts.svg),
        "called": findings.called,
        "sentence": findings.sentence,
        "many": findings.many,
        "listed": findings.listed,
        "in_words": findings.in_words,
        "confusion": findings.confusion,
        "source": source,
        "models": list(models.values()),
        "best": models[best],
        "ranked": ranked,
        "finding": finding,
        "uncertain": findings.uncertain(
            source.windows[2], models[best].metrics["test_loss_stderr"]
        ),
        "color": {
            title: f"var(--model-{n % len(figures.MODEL_COLORS)})"
            for n, title in enumerate(titles.values())
        },
        "settings": settings,
        "setting_names": list(dict.fromkeys(key for its in settings.values() for key in its)),
        "sizes": list(sizes),
        "averaged": [its.title for its in models.values() if its.recipe and its.recipe.average],
        "fewest": charts.FEWEST,
        "side_by_side": charts.side_by_side(metrics | baselines, list(titles.values())),
        "histories": histories,
        "curves": charts.losses_and_rates(histories, list(titles.values())) if histories else None,
        "by": {
            "position": charts.loss_by(
                loss_by["position"], "position", titles, "position in the name (including its end)"
            ),
            "length": charts.loss_by(loss_by["length"], "length", titles, "length of the name"),
        },
        "reliable": reliable,
        "titles": titles,
        "calibration": charts.calibration({its.title: its.calibration for its in models.values()}),
        "calibration_errors": errors,
        "calibrated": findings.calibrated(errors),
        "grids": {its.title: mistake_grid(its.mistakes) for its in models.values()},
        "worst": worst,
        "maps": {
            title: charts.embedding_map(title, embedding, vocabulary.symbols())
            for title, embedding in embeddings.items()
        },
        "pairs": pairs,
        "tree": Tree.over(source.block_size, source.example),
        "trees": trees,
        "shown": SHOWN,
    }
