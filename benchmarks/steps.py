"""Training at equal mathematics: steps per second against the plain notebook loop.

Each turn is a process that trains one model for an epoch, validation included, as the notebook
does it or as the pipeline does, after a few batches to warm up; the two take turns. Beside
them, in the same processes as the pipeline's, the floor: the matrix products of a step of 256
different contexts alone, by the same library in as many threads. (The pipeline multiplies fewer,
see `charlm/sharing.py`.)

    python -m benchmarks.steps --pairs 5
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.turns import Figures, in_a_process, markdown, median_of, median_ratio, pairs

if TYPE_CHECKING:
    from charlm.models.base import LanguageModel

NAMES = Path("data/prenoms.txt")
MODELS = ("fcn", "wavenet")
WARM_UP = 50
REPETITIONS = 200


def notebook(model_name: str) -> Figures:
    """Milliseconds a step of the notebook loop, with validation and without."""
    import torch

    from benchmarks import notebook_loop

    contexts, targets, characters = notebook_loop.read_windows(NAMES)
    train, val, _ = notebook_loop.loaders(contexts, targets)
    model = notebook_loop.MODELS[model_name](len(characters) + 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=notebook_loop.LR)
    warm_up = zip(train, range(WARM_UP), strict=False)
    notebook_loop.train_epoch(model, (batch for batch, _ in warm_up), optimizer)
    began = time.perf_counter()
    notebook_loop.train_epoch(model, train, optimizer)
    trained = time.perf_counter()
    notebook_loop.mean_loss(model, val)
    ended = time.perf_counter()
    return {
        "step": 1e3 * (trained - began) / len(train),
        "with validation": 1e3 * (ended - began) / len(train),
    }


def pipeline(model_name: str) -> Figures:
    """The same of the pipeline's Trainer with the default parameters."""
    from benchmarks.trainer import trainer_of
    from charlm.corpus import Corpus
    from charlm.params import load_params
    from charlm.splits import split_windows

    params = load_params()
    corpus = Corpus.from_names(NAMES.read_text(encoding="utf-8").split(), params.block_size)
    windows = split_windows(corpus, "window", 0.8, 0.1, seed=1).windows(corpus)
    trainer = trainer_of(model_name, params, corpus, windows)
    next(trainer.run(1))
    times = []

    def on_batches(count: int) -> None:
        times.append(time.perf_counter())

    began = time.perf_counter()
    for _ in trainer.run(2, on_batches):
        pass
    ended = time.perf_counter()
    return {
        "step": 1e3 * (times[-1] - began) / trainer.batches_per_epoch,
        "with validation": 1e3 * (ended - began) / trainer.batches_per_epoch,
        "products": 1e3 * products(trainer.model, params.batch_size, params.block_size),
    }


def products(model: "LanguageModel", batch_size: int, block_size: int) -> float:
    """Seconds for the matrix products of one step alone, as `charlm.linear` multiplies.

    Three for each linear layer, of a whole batch: forward, and the gradients of its
    weights and of its input.
    """
    import numpy as np
    from torch import nn

    random = np.random.default_rng(0)
    layers = []
    width = block_size * model.embedding.embedding_dim  # of all the tokens of a context
    for layer in (module for module in model.modules() if isinstance(module, nn.Linear)):
        rows = batch_size * max(1, width // layer.in_features)
        width = rows // batch_size * layer.out_features
        shapes = (rows, layer.in_features), (rows, layer.out_features)
        x, gradient = (random.standard_normal(shape, dtype=np.float32) for shape in shapes)
        layers.append((x, layer.weight.detach().numpy(), gradient))
    times = []
    for _ in range(REPETITIONS):
        began = time.perf_counter()
        for x, weight, gradient in layers:
            np.dot(x, weight.T), np.dot(gradient, weight), np.dot(gradient.T, x)
        times.append(time.perf_counter() - began)
    return median(times)


def table(count: int) -> str:
    """A row a model."""
    header = [
        "",
        "notebook, ms a step",
        "pipeline, ms a step",
        "times as fast",
        "validation included",
        "products alone, ms",
        "their share of a step",
    ]
    turn = partial(in_a_process, "benchmarks.steps", "--turn")
    rows = []
    for model in MODELS:
        taken = pairs(
            count,
            lambda model=model: turn("notebook", model),
            lambda model=model: turn("pipeline", model),
        )
        floor = median(ours["products"] / ours["step"] for _, ours in taken)
        rows.append(
            [
                model,
                f"{median_of(taken, 0, 'step'):.2f}",
                f"{median_of(taken, 1, 'step'):.2f}",
                f"{median_ratio(taken, 'step'):.2f}",
                f"{median_ratio(taken, 'with validation'):.2f}",
                f"{median_of(taken, 1, 'products'):.2f}",
                f"{100 * floor:.0f}%",
            ]
        )
    return markdown(header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--turn", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.turn:
        who, model = arguments.turn
        print(json.dumps({"notebook": notebook, "pipeline": pipeline}[who](model)))
    else:
        print(table(arguments.pairs))


if __name__ == "__main__":
    main()
