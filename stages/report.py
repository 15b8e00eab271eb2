"""What the page of the `plot` stage is made from."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from charlm.core.files import read_numbers, read_table
from charlm.core.params import Params
from charlm.data.checkpoint import Weights
from charlm.data.corpus import Corpus, load_corpus
from charlm.data.splits import load_split
from charlm.report import figures
from charlm.report import page as report
from charlm.report.nearest import nearest_names
from stages import (
    DATASET,
    MISTAKES,
    SPLIT,
    calibration_path,
    loss_by_path,
    samples_path,
)

if TYPE_CHECKING:
    import pandas as pd

METRICS = [
    "test_loss",
    "test_loss_stderr",
    "test_bits_per_character",
    "test_perplexity",
    "test_accuracy",
    "parameters",
]

MISTAKE = {"model": str, "actual": str, "predicted": str, "windows": int}
SAMPLE = {"name": str, "log_likelihood": float, "in_training": bool}

Metrics = Mapping[str, Mapping[str, float]]


def page(
    params: Params,
    metrics: Metrics,
    weights: Mapping[str, Weights],
    histories: "Mapping[str, pd.DataFrame]",
) -> str:
    """The report, from what is at hand already and the other outputs of the stages before.

    Args:
        metrics: of each model and count model, by name.
        weights: of each model, by name.
        histories: of each model, by title.
    """
    corpus = load_corpus(DATASET)
    mistakes = read_table(MISTAKES, MISTAKE)
    models = {}
    for name in params.models:
        samples = read_table(samples_path(name), SAMPLE)
        first = samples.head(report.SHOWN)
        models[name] = report.Trained(
            weights=weights[name],
            recipe=params.recipe(name),
            metrics=metrics[name],
            history=histories[weights[name].title],
            calibration=read_numbers(calibration_path(name), ["confidence", "accuracy", "windows"]),
            mistakes=mistakes[mistakes["model"] == name],
            samples=first,
            nearest=nearest_names(first["name"].tolist(), corpus),
        )
    columns = [*params.models, *figures.COUNT_MODELS]
    return report.render(
        _source(params, corpus),
        models,
        {name: metrics[name] for name in figures.COUNT_MODELS},
        {
            place: read_numbers(loss_by_path(place), [place, "windows", *columns])
            for place in ("position", "length")
        },
    )


def _source(params: Params, corpus: Corpus) -> report.Source:
    sizes, split = load_split(SPLIT, corpus).sizes(corpus), params.split
    names, _ = corpus.count()
    return report.Source(
        path=params.names.path,
        column=params.names.column,
        names=names,
        characters=len(corpus.vocabulary.characters),
        block_size=corpus.block_size,
        by=split.by,
        shares=[split.train, split.val, 1 - split.train - split.val],
        windows=list(sizes.values()),
        seed=params.seed,
        example=next(name for names in corpus.name_chunks() for name in names),
    )
