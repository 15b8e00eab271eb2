"""Train several seeds at once: as one batched model with `torch.func`, or in one process each.

One run trains the notebook's models of all seeds as one: their weights are stacked and the step is
mapped over the seeds with `torch.func.vmap`, each on its own batches, with torch's default number
of threads. The other trains one of the pipeline's models per core, each in its own process, as
DVC's queue does for `make seeds`. Each trains for an epoch, including validation, after a warm-up
epoch.

    python -m benchmarks.batched --pairs 3

prints milliseconds per step and model.
"""

import argparse
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from statistics import mean

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

from benchmarks import NAMES, notebook_loop
from benchmarks.steps import MODELS
from benchmarks.turns import Figures, in_a_process, markdown, median_of, median_ratio, pairs

Weights = dict[str, Tensor]


def loss_of(model: nn.Module, weights: Weights, contexts: Tensor, targets: Tensor) -> Tensor:
    """Compute the mean cross-entropy of a model with the given weights."""
    return F.cross_entropy(functional_call(model, weights, (contexts,)), targets)


class Batched:
    """The notebook's models of several seeds, trained as one.

    Attributes:
        weights: the parameters of all S models, stacked, (S, ...).
    """

    def __init__(self, models: list[nn.Module], lr: float) -> None:
        self.weights, _ = stack_module_state(models)
        self._lr = lr
        of_model = partial(loss_of, models[0])
        self._gradients = vmap(grad(of_model))
        self._losses = vmap(of_model, (0, None, None))

    def step(self, contexts: Tensor, targets: Tensor) -> None:
        """Take an SGD step of each model on its batch: contexts (S, N, T) and targets (S, N)."""
        for name, gradient in self._gradients(self.weights, contexts, targets).items():
            self.weights[name].data.sub_(gradient, alpha=self._lr)

    @torch.no_grad()
    def losses(self, contexts: Tensor, targets: Tensor) -> list[float]:
        """Compute each model's mean cross-entropy on a batch: contexts (N, T) and targets (N,)."""
        losses: list[float] = self._losses(self.weights, contexts, targets).tolist()
        return losses


def batched(model_name: str, seeds: int) -> Figures:
    """Measure milliseconds per step and model, with the models of all seeds trained as one."""
    contexts, targets, characters = notebook_loop.read_windows(NAMES)
    W = len(targets)
    train, val, _ = torch.split(torch.randperm(W), notebook_loop.sizes(W))
    build = notebook_loop.MODELS[model_name]
    models = Batched([build(len(characters) + 1) for _ in range(seeds)], notebook_loop.LR)

    def epoch() -> int:
        orders = torch.stack([train[torch.randperm(len(train))] for _ in range(seeds)])
        batches = torch.split(orders, notebook_loop.BATCH_SIZE, dim=1)
        for batch in batches:  # indexing is faster than a DataLoader
            models.step(contexts[batch], targets[batch])
        for batch in torch.split(val, notebook_loop.BATCH_SIZE):
            models.losses(contexts[batch], targets[batch])
        return len(batches)

    epoch()
    began = time.perf_counter()
    steps = epoch()
    return {"step": 1e3 * (time.perf_counter() - began) / steps / seeds}


def one_each(model_name: str, processes: int) -> Figures:
    """Measure the same for the pipeline's models, each trained in its own parallel process."""
    turn = partial(in_a_process, "benchmarks.steps", "--turn", "pipeline", model_name)
    with ThreadPoolExecutor(processes) as pool:
        taken = list(pool.map(lambda _: turn(), range(processes)))
    return {"step": mean(figures["with validation"] for figures in taken) / processes}


def table(count: int, seeds: int) -> str:
    """Return a table with a row per model."""
    from pipeline.side_by_side import cores  # imports DVC

    processes = cores()
    rows = []
    for model in MODELS:
        one = partial(in_a_process, "benchmarks.batched", "--seeds", str(seeds), "--turn", model)
        taken = pairs(count, one, partial(one_each, model, processes))
        row = [f"{median_of(taken, side, 'step'):.2f}" for side in (0, 1)]
        rows.append([model, *row, f"{median_ratio(taken, 'step'):.2f}"])
    header = ["ms per step and model", f"{seeds} seeds by torch.func", f"{processes} processes"]
    return markdown([*header, "speedup"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.batched", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--pairs", type=int, default=3, help="number of pairs of runs")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
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
