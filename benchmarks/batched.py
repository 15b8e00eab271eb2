"""Several seeds at once: as one batched model by `torch.func`, or a process each.

One turn trains the notebook's models of all seeds as one, their weights stacked and a step of all
of them mapped over the seeds (`torch.func.vmap`), each on batches of its own, by as many threads as
torch takes. The other trains as many of the pipeline's models as there are cores, each in a process
of its own, as DVC's queue does for `make seeds`. An epoch each, validation included, after one to
warm up.

    python -m benchmarks.batched --pairs 3

prints milliseconds a step and a model.
"""

import argparse
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from statistics import mean

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

from benchmarks import notebook_loop
from benchmarks.steps import MODELS, NAMES
from benchmarks.turns import Figures, in_a_process, markdown, median_of, median_ratio, pairs

Weights = dict[str, Tensor]


def loss_of(model: nn.Module, weights: Weights, contexts: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of a model with other weights than its own."""
    return F.cross_entropy(functional_call(model, weights, (contexts,)), targets)


class Batched:
    """The notebook's models of several seeds, trained as one.

    Attributes:
        weights: each parameter of all models, (S, ...).
    """

    def __init__(self, models: list[nn.Module], lr: float) -> None:
        self.weights, _ = stack_module_state(models)
        self._lr = lr
        of_model = partial(loss_of, models[0])
        self._gradients = vmap(grad(of_model))
        self._losses = vmap(of_model, (0, None, None))

    def step(self, contexts: Tensor, targets: Tensor) -> None:
        """SGD, each model on its batch: contexts (S, N, T) and targets (S, N)."""
        for name, slope in self._gradients(self.weights, contexts, targets).items():
            self.weights[name].data.sub_(slope, alpha=self._lr)

    @torch.no_grad()
    def losses(self, contexts: Tensor, targets: Tensor) -> list[float]:
        """The mean cross-entropy of each model on one batch: contexts (N, T) and targets (N,)."""
        losses: list[float] = self._losses(self.weights, contexts, targets).tolist()
        return losses


def batched(model_name: str, seeds: int) -> Figures:
    """Milliseconds a step and a model of all seeds' models trained as one."""
    contexts, targets, characters = notebook_loop.read_windows(NAMES)
    W = len(targets)
    train, val, _ = torch.randperm(W).split(notebook_loop.sizes(W))
    build = notebook_loop.MODELS[model_name]
    models = Batched([build(len(characters) + 1) for _ in range(seeds)], notebook_loop.LR)

    def epoch() -> int:
        orders = torch.stack([train[torch.randperm(len(train))] for _ in range(seeds)])
        batches = orders.split(notebook_loop.BATCH_SIZE, dim=1)
        for its in batches:  # cut by index, which costs less than a DataLoader
            models.step(contexts[its], targets[its])
        for its in val.split(notebook_loop.BATCH_SIZE):
            models.losses(contexts[its], targets[its])
        return len(batches)

    epoch()
    began = time.perf_counter()
    steps = epoch()
    return {"step": 1e3 * (time.perf_counter() - began) / steps / seeds}


def one_each(model_name: str, processes: int) -> Figures:
    """The same of the pipeline's models, each trained in one of so many processes at once."""
    turn = partial(in_a_process, "benchmarks.steps", "--turn", "pipeline", model_name)
    with ThreadPoolExecutor(processes) as pool:
        taken = list(pool.map(lambda _: turn(), range(processes)))
    return {"step": mean(figures["with validation"] for figures in taken) / processes}


def table(count: int, seeds: int) -> str:
    """A row a model."""
    cores = len(os.sched_getaffinity(0))
    rows = []
    for model in MODELS:
        one = partial(in_a_process, "benchmarks.batched", "--seeds", str(seeds), "--turn", model)
        taken = pairs(count, one, partial(one_each, model, cores))
        row = [f"{median_of(taken, side, 'step'):.2f}" for side in (0, 1)]
        rows.append([model, *row, f"{median_ratio(taken, 'step'):.2f}"])
    header = ["ms a step and model", f"{seeds} seeds by torch.func", f"{cores} processes"]
    return markdown([*header, "times as fast"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--turn", choices=MODELS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.seeds < 1:
        sys.exit(f"error: --seeds is {arguments.seeds}; give 1 or more")
    if arguments.turn:
        print(json.dumps(batched(arguments.turn, arguments.seeds)))
    else:
        print(table(arguments.pairs, arguments.seeds))


if __name__ == "__main__":
    main()
