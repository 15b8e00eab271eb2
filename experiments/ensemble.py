"""Ensembles of wide compact WaveNets, and knowledge distillation into a small one.

For each split seed, wide compact WaveNets are trained, each with its own initialization and batch
order; their probabilities are averaged; and a compact WaveNet of the default size is trained on
these averages instead of the targets (Hinton et al. 2015, with temperature 1). For any list of
names, split as in `params.yaml`:

    python -m experiments.ensemble
    python -m experiments.ensemble --names FILE

prints mean ± standard deviation of validation and test loss over the seeds.
"""

import argparse
import multiprocessing
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from benchmarks import NAMES
from benchmarks.trainer import trained, trainer_of, windows_of
from benchmarks.turns import markdown, say
from charlm.core.params import load_params
from charlm.data.splits import Part
from charlm.data.windows import Windows
from charlm.fast.rows import Rows, distinct
from charlm.fast.running import CHUNK, Runner
from charlm.models.base import LanguageModel, count_parameters
from charlm.training.trainer import Trainer
from pipeline.side_by_side import cores

WIDE: dict[str, Any] = {"channels": 200, "dropout": 0.2, "batch_size": 1024}


class Teacher:
    """An ensemble: the mean of several models' probabilities.

    Attributes:
        models: the models, in evaluation mode.
    """

    def __init__(self, models: Iterable[LanguageModel]) -> None:
        self.models = [model.eval() for model in models]
        self._runners = [Runner(model) for model in self.models]

    @torch.inference_mode()
    def __call__(self, contexts: Tensor) -> Tensor:
        """Return the probabilities (N, V) of the next token after contexts (N, T)."""
        parts = []
        for chunk in torch.split(contexts, CHUNK):
            each = [runner.logits(chunk).softmax(1) for runner in self._runners]
            parts.append(torch.stack(each).mean(0))
        return torch.cat(parts)

    def loss(self, windows: Windows) -> float:
        """Compute the mean cross-entropy over all windows, in nats per character."""
        contexts, targets = windows.batch(slice(None))
        return F.nll_loss(self(contexts).log(), targets).item()


class Lessons:
    """A teacher's probabilities for the distinct contexts of windows, computed once."""

    def __init__(self, teacher: Teacher, windows: Windows) -> None:
        contexts, _ = distinct(windows.batch(slice(None))[0])  # (U, T)
        keys = _bytes_of(contexts)
        order = np.argsort(keys)
        self._keys_in_order, self._answers = keys[order], teacher(contexts)[torch.from_numpy(order)]

    def __call__(self, contexts: Tensor) -> Tensor:
        """Return the probabilities (N, V) after contexts (N, T) that occur in the windows."""
        places = np.searchsorted(self._keys_in_order, _bytes_of(contexts))
        return self._answers[torch.from_numpy(places)]


def _bytes_of(contexts: Tensor) -> NDArray[np.bytes_]:
    """Return the bytes (N,) of each context (N, T) as unique, sortable keys."""
    rows = contexts.int().contiguous().numpy()
    keys: NDArray[np.bytes_] = rows.view(f"S{rows.itemsize * rows.shape[1]}")[:, 0]
    return keys


def taught_by(lessons: Callable[[Tensor], Tensor]) -> type[Trainer]:
    """Return a Trainer with the probabilities (N, V) of `lessons` as targets.

    The loss is the cross-entropy of Hinton et al. (2015), equation 2, with temperature 1.
    """

    class Taught(Trainer):
        def summed_loss(self, logits: Any, contexts: Tensor, targets: Tensor) -> Tensor:
            dense: Tensor = logits.dense() if isinstance(logits, Rows) else logits
            return -(lessons(contexts) * dense.log_softmax(1)).sum()

    return Taught


def losses_of(seed: int, names: Path, members: int) -> pd.DataFrame:
    """Compute validation and test loss of each kind of model for a seed.

    Columns: `model`, `parameters`, `val_loss` and `test_loss` in nats per character.
    """
    params = load_params().model_copy(update={"seed": seed})
    corpus, windows = windows_of(params, names)
    wide = params.model_copy(update={"compact": params.section("compact").model_copy(update=WIDE)})

    def member(number: int) -> LanguageModel:
        say(f"seed {seed}, wide model {number} of {members}")
        own = wide.model_copy(update={"seed": 1000 * seed + number})
        return trained(trainer_of("compact", own, corpus, windows))

    teacher = Teacher(member(number) for number in range(1, members + 1))
    say(f"seed {seed}, the small models")
    of_teacher = taught_by(Lessons(teacher, windows[Part.TRAIN]))
    pupil = trainer_of("compact", params, corpus, windows, kind=of_teacher)
    kinds = {
        "one wide compact WaveNet": Teacher(teacher.models[:1]),
        f"{members} of them": teacher,
        "the default one": Teacher([trained(trainer_of("compact", params, corpus, windows))]),
        f"the default one, distilled from the {members}": Teacher([trained(pupil)]),
    }
    return pd.DataFrame(
        {
            "model": name,
            "parameters": sum(map(count_parameters, its.models)),
            "val_loss": its.loss(windows[Part.VAL]),
            "test_loss": its.loss(windows[Part.TEST]),
        }
        for name, its in kinds.items()
    )


def table(runs: pd.DataFrame) -> str:
    """Return a table with a row per kind of model."""
    rows = []
    for name, its in runs.groupby("model", sort=False):
        losses = [its[column] for column in ("val_loss", "test_loss")]
        cells = [f"{loss.mean():.4f} ± {loss.std():.4f}" for loss in losses]
        rows.append([str(name), f"{its['parameters'].iloc[0]:,}", *cells])
    return markdown(["", "parameters", "validation", "test"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--names", type=Path, default=NAMES, help="a list with one name per line")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--members", type=int, default=3, help="wide models per ensemble")
    arguments = parser.parse_args()
    if not arguments.names.is_file():
        sys.exit(f"error: --names {arguments.names} does not exist; give the path of a list")
    if arguments.members < 1:
        sys.exit(f"error: --members is {arguments.members}; give 1 or more")
    of_seed = partial(losses_of, names=arguments.names, members=arguments.members)
    with ProcessPoolExecutor(cores(), multiprocessing.get_context("spawn")) as pool:
        print(table(pd.concat(pool.map(of_seed, arguments.seeds))))


if __name__ == "__main__":
    main()
