"""Reports of small models, made like those of the stages but much faster."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from charlm.core.params import Recipe
from charlm.core.randomness import generator, seeded
from charlm.data import checkpoint
from charlm.data.corpus import Corpus
from charlm.data.splits import Part
from charlm.data.windows import every_window
from charlm.evaluation import analysis
from charlm.evaluation.baselines import count_models
from charlm.evaluation.metrics import score, summarize
from charlm.models.base import LanguageModel, count_parameters
from charlm.models.compact import CompactWaveNet
from charlm.models.fcn import FCN
from charlm.models.hybrid import Hybrid
from charlm.models.kneser_ney import KneserNey
from charlm.models.mixture import Mixture
from charlm.models.wavenet import WaveNet
from charlm.report import charts, results
from charlm.report import page as report
from charlm.report.nearest import nearest_names
from charlm.sampling.sampler import name_log_likelihoods, sample_names
from charlm.training.counting import count

EVERY_KIND = pytest.mark.parametrize(
    ("architecture", "options"),
    [
        (CompactWaveNet, {"dropout": 0.2}),
        (CompactWaveNet, {"shared": False}),
        (WaveNet, {}),
        (WaveNet, {"norm": "layer", "dropout": 0.1}),
        (FCN, {}),
        (FCN, {"norm": "layer"}),
        (KneserNey, {}),
        (KneserNey, {"order": 3}),
        (Hybrid, {"dropout": 0.1}),
        (Hybrid, {"members": 2}),
        (Mixture, {}),
    ],
    ids=str,
)
"""The kinds of models that the page's generator can run."""

MEMBERS = ["hybrid", "kneser_ney", "compact", "wavenet", "fcn"]


def drawn(architecture: type[LanguageModel], corpus: Corpus, **options: Any) -> LanguageModel:
    """Return a model of the default size that has counted a corpus.

    Its weights are drawn so that no logit is near zero.
    """
    sizes = {"vocab_size": len(corpus.vocabulary), "block_size": corpus.block_size}
    if architecture is Mixture:
        options["members"] = [(module, sizes) for module in MEMBERS]
    with seeded(1, "init"):
        model = architecture(**sizes, **options)
        for parameter in model.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
    if isinstance(model, Mixture):
        model.weights = torch.tensor([0.3, 0.25, 0.2, 0.15, 0.1])
    for module in model.modules():
        if isinstance(module, KneserNey):
            count(module, every_window(corpus))
    return model.eval()


def weights_of(model: LanguageModel, corpus: Corpus) -> checkpoint.Weights:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        checkpoint.save(path, model, corpus.vocabulary)
        return checkpoint.load_weights({"it": path})["it"]


def leave_charts_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Render pages without their charts, which take longest to draw."""
    monkeypatch.setattr(charts, "svg", lambda figure, name: "<svg></svg>")


def report_of(models: Mapping[str, LanguageModel], corpus: Corpus, trained: bool = True) -> str:
    """Return the page of models with random weights, tested on all names of a corpus.

    With `trained`, they have a training history.
    """
    windows = every_window(corpus)
    its, losses = {}, {}
    for name, model in models.items():
        losses[name], correct = score(model, windows)
        predicted, confidence = analysis.predictions(model, windows)
        names = sample_names(
            model,
            corpus.vocabulary,
            report.SHOWN,
            block_size=corpus.block_size,
            generator=generator(1, name),
            max_length=9,
        )
        likelihoods = name_log_likelihoods(model, corpus.vocabulary, names, corpus.block_size)
        its[name] = report.Trained(
            weights=weights_of(model, corpus),
            recipe=Recipe(lr=0.2, batch_size=32, epochs=3, average=0.5 if name == "c" else 0.0)
            if trained
            else None,
            metrics=summarize(dict.fromkeys(Part, (losses[name], correct)), count_parameters(model))
            | {"memorized": name == "a"},
            history=pd.DataFrame(
                {"epoch": [1, 2, 3], "train_loss": [3, 2, 1], "val_loss": [3, 2, 2], "lr": 0.2},
                dtype=float,
            )
            if trained
            else None,
            calibration=analysis.calibration(confidence, correct),
            mistakes=analysis.mistakes(predicted, windows.targets(), corpus.vocabulary),
            samples=pd.DataFrame(
                {
                    "name": names,
                    "log_likelihood": likelihoods,
                    "in_training": [i % 3 == 0 for i in range(len(names))],
                }
            ),
            nearest=nearest_names(names, corpus),
            advice="try dvc exp run -S ++a.keep=best",
        )
    counts = {}
    for name, model in count_models(windows, len(corpus.vocabulary)).items():
        losses[name], correct = model.score(windows)
        counts[name] = summarize(dict.fromkeys(Part, (losses[name], correct)), model.parameters)
    count, _ = corpus.count()
    source = report.Source(
        path="names.txt",
        column=None,
        names=count,
        mean_length=corpus.mean_length(),
        characters=len(corpus.vocabulary.characters),
        block_size=corpus.block_size,
        by="window",
        shares=[0.8, 0.1, 0.1],
        windows=[len(windows)] * 3,
        seed=1,
        example=corpus.names()[0],
    )
    by = {
        column: results.side_by_side(analysis.mean_by(key, losses, column), column)
        for column, key in analysis.positions(windows).items()
    }
    return report.render(source, its, counts, by)
