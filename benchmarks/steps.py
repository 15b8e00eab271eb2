"""Training steps compared with the plain notebook loop, for the same models and updates.

Each run is a process that trains one model for an epoch, including validation, as the notebook or
as the pipeline does, after a few warm-up batches; the two alternate. For reference, the pipeline's
processes also time the matrix products alone of a step with 256 distinct contexts, with the same
library and number of threads. (The pipeline computes fewer, see `charlm/fast/rows.py`, so their
fraction of a step can exceed 100%.) On a GPU, use `--device cuda --batch-size 4096`; `--profile
fcn` profiles a model. `--plain` instead compares the pipeline with plain PyTorch: the same models
without the fast path, with the same portable matrix products. `--against FOLDER` compares it with
another version of the project, cloned into that folder.

    python -m benchmarks.steps --pairs 5
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, cast

from benchmarks import NAMES
from benchmarks.turns import HERE, Figures, in_a_process, markdown, median_of, median_ratio, pairs
from charlm.core.pinning import pin_kernels

if TYPE_CHECKING:
    from torch import Tensor, nn

    from charlm.training.trainer import Trainer

MODELS = ("fcn", "wavenet")
"""Models that the notebook also has."""
EVERY_MODEL = (*MODELS, "compact")
WARM_UP = 50
REPETITIONS = 200


@dataclass(frozen=True)
class Setting:
    """The device and the batch size."""

    device: str = "cpu"
    batch_size: int = 256


DEFAULT = Setting()


def notebook(model_name: str, setting: Setting = DEFAULT, compiled: bool = False) -> Figures:
    """Measure milliseconds per step of the notebook loop, with and without validation.

    Args:
        compiled: use `torch.compile`; compilation is counted as warm-up.
    """
    import torch

    from benchmarks import notebook_loop

    device = torch.device(setting.device)
    contexts, targets, characters = notebook_loop.read_windows(NAMES)
    train, val, _ = notebook_loop.loaders(contexts, targets, setting.batch_size)
    model: nn.Module = notebook_loop.MODELS[model_name](len(characters) + 1).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=notebook_loop.LR)

    def on_device(batches: "Iterable[list[Tensor]]") -> "Iterator[list[Tensor]]":
        return ([tensor.to(device) for tensor in batch] for batch in batches)

    began = time.perf_counter()
    if compiled:
        model = cast("nn.Module", torch.compile(model))
        notebook_loop.train_epoch(model, on_device(train), optimizer)  # both batch sizes
        notebook_loop.mean_loss(model, on_device(val))
    else:
        notebook_loop.train_epoch(model, on_device(islice(train, WARM_UP)), optimizer)
    warm = time.perf_counter() - began
    began = time.perf_counter()
    notebook_loop.train_epoch(model, on_device(train), optimizer)  # item() waits for the device
    trained = time.perf_counter()
    notebook_loop.mean_loss(model, on_device(val))
    ended = time.perf_counter()
    return {
        "step": 1e3 * (trained - began) / len(train),
        "with validation": 1e3 * (ended - began) / len(train),
        "seconds to warm up": warm,
    }


def pipeline(model_name: str, setting: Setting = DEFAULT, fast: bool = True) -> Figures:
    """Measure the same for the pipeline's Trainer with the default parameters.

    Args:
        fast: False for plain PyTorch.
    """
    trainer = new_trainer(model_name, setting, fast)
    next(trainer.run(1))
    times = []

    def on_batches(_: int) -> None:
        if trainer.batches_done == trainer.batches_per_epoch:
            wait_for(setting.device)
        times.append(time.perf_counter())

    began = time.perf_counter()
    for _ in trainer.run(2, on_batches):
        pass
    ended = time.perf_counter()
    figures = {
        "step": 1e3 * (times[-1] - began) / trainer.batches_per_epoch,
        "with validation": 1e3 * (ended - began) / trainer.batches_per_epoch,
    }
    if setting.device == "cpu" and model_name in MODELS:
        figures["products"] = 1e3 * products(trainer.model, setting.batch_size)
    return figures


TURNS: dict[str, Callable[[str, Setting], Figures]] = {
    "notebook": notebook,
    "compiled": partial(notebook, compiled=True),
    "pipeline": pipeline,
    "plain": partial(pipeline, fast=False),
}


def new_trainer(model_name: str, setting: Setting, fast: bool = True) -> "Trainer":
    pin_kernels()
    from benchmarks.trainer import trainer_of, windows_of
    from charlm.core.params import load_params

    params = load_params().model_copy(update={"batch_size": setting.batch_size})
    return trainer_of(model_name, params, *windows_of(params), setting.device, fast=fast)


def cuda_is_available() -> bool:
    import torch

    return torch.cuda.is_available()


def wait_for(device: str) -> None:
    """Wait until the device has finished its work."""
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def profile(model_name: str, setting: Setting) -> str:
    """Profile an epoch with torch's profiler; return the most expensive operations."""
    trainer = new_trainer(model_name, setting)
    import torch  # after its kernels are pinned

    next(trainer.run(1))
    activities = [torch.profiler.ProfilerActivity.CPU]
    if setting.device == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        next(trainer.run(2))
        wait_for(setting.device)
    order = f"self_{setting.device}_time_total"
    averages = profiler.key_averages()
    text: str = averages.table(sort_by=order, row_limit=20, max_name_column_width=60)
    return text


def products(model: "nn.Module", batch_size: int) -> float:
    """Measure seconds for only the matrix products of a step, with NumPy as in the pipeline.

    Three for each linear layer and a whole batch: forward, and the gradients of its weights and
    its input.
    """
    import numpy as np
    from torch import nn

    from charlm.models.base import LanguageModel

    assert isinstance(model, LanguageModel)
    (embedding,) = (module for module in model.modules() if isinstance(module, nn.Embedding))
    random = np.random.default_rng(0)
    layers = []
    width = model.hyperparameters["block_size"] * embedding.embedding_dim  # a whole context
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


def table(count: int, setting: Setting = DEFAULT) -> str:
    """Return a table with a row per model."""
    header = ["", "notebook, ms per step", "pipeline, ms per step", "speedup"]
    header += ["speedup with validation"]
    if setting.device == "cpu":
        header += ["matrix products, ms", "fraction of a step"]
    rows = []
    for model in MODELS:
        taken = turns(count, setting, model, "notebook")
        row = [
            model,
            f"{median_of(taken, 0, 'step'):.2f}",
            f"{median_of(taken, 1, 'step'):.2f}",
            f"{median_ratio(taken, 'step'):.2f}",
            f"{median_ratio(taken, 'with validation'):.2f}",
        ]
        if setting.device == "cpu":
            floor = median(ours["products"] / ours["step"] for _, ours in taken)
            row += [f"{median_of(taken, 1, 'products'):.2f}", f"{100 * floor:.0f}%"]
        rows.append(row)
    return markdown(header, rows)


def gains(count: int, setting: Setting = DEFAULT, before: Path | None = None) -> str:
    """Return a table of the speedup by the fast path, with a row per model.

    Given the folder of another version, it is the speedup over that version.
    """
    other, folder = ("pipeline", before) if before else ("plain", HERE)
    rows = []
    for model in EVERY_MODEL:
        taken = turns(count, setting, model, other, folder)
        times = (f"{median_of(taken, side, 'step'):.3f}" for side in (0, 1))
        rows.append([model, *times, f"{median_ratio(taken, 'step'):.2f}"])
    name = before.resolve().name if before else "plain PyTorch"
    header = ["", f"{name}, ms per step", "pipeline, ms per step", "speedup"]
    return markdown(header, rows)


def turns(
    count: int, setting: Setting, model: str, other: str, folder: Path = HERE
) -> list[tuple[Figures, Figures]]:
    """Run another loop, in a folder, and the pipeline alternately."""
    where = ("--device", setting.device, "--batch-size", str(setting.batch_size))
    turn = partial(in_a_process, "benchmarks.steps", *where, "--turn")
    return pairs(
        count, partial(turn, other, model, folder=folder), partial(turn, "pipeline", model)
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.steps", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--pairs", type=int, default=5, help="number of pairs of runs")
    parser.add_argument("--device", choices=["cpu", "cuda"], default=DEFAULT.device)
    parser.add_argument("--batch-size", type=int, default=DEFAULT.batch_size)
    others = parser.add_mutually_exclusive_group()
    others.add_argument("--plain", action="store_true", help="measure the speedup of the fast path")
    others.add_argument("--against", type=Path, help="measure the speedup over another version")
    parser.add_argument("--profile", choices=EVERY_MODEL, help="profile a model instead")
    parser.add_argument("--turn", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    setting = Setting(arguments.device, arguments.batch_size)
    if not arguments.turn and setting.device == "cuda" and not cuda_is_available():
        sys.exit("error: torch finds no CUDA device on this machine; leave out --device cuda")
    before = arguments.against
    if before and not (before / "benchmarks/steps.py").is_file():
        sys.exit(f"error: {before} has no benchmarks/steps.py; clone another version there")
    if arguments.turn:
        who, model = arguments.turn
        print(json.dumps(TURNS[who](model, setting)))
    elif arguments.profile:
        print(profile(arguments.profile, setting))
    elif arguments.plain or before:
        print(gains(arguments.pairs, setting, before))
    else:
        print(table(arguments.pairs, setting))


if __name__ == "__main__":
    main()
