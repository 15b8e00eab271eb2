"""Measure how low the loss gets, with ensembles of hybrids and compact nets distilled from them.

For each seed (of split and initialization): trains several hybrids, wider than the default one,
each with its own initialization and batch order; distills compact WaveNets of three sizes from the
mean of their probabilities; and mixes all of them, with weights by validation loss.

    python -m experiments.ensemble
    python -m experiments.ensemble --names FILE

prints the mean validation and test loss over the seeds with standard errors. Results are kept in
`experiments/ensemble.csv` and are not recomputed.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import NAMES
from benchmarks.trainer import trained, trainer_of, windows_of
from benchmarks.turns import markdown, say
from charlm.core.params import Params
from charlm.data.splits import Part
from charlm.models.base import LanguageModel, count_parameters
from charlm.models.mixture import Mixture
from charlm.training.mixing import mixture_weights
from experiments.best import By, measured, params_of, probabilities, with_error
from experiments.runs import add_options

KEPT = Path(__file__).with_suffix(".csv")
MEMBERS = 4
WIDE: dict[str, Any] = {"channels": 128, "dropout": 0.1, "epochs": 10}
"""Settings of each hybrid."""

STUDENTS: dict[str, dict[str, Any]] = {
    "compact, 72 channels": {"channels": 72, "epochs": 60, "distill": 0.7},
    "compact, 130 channels": {"channels": 130, "epochs": 30, "distill": 0.7},
    "compact, 256 channels": {"channels": 256, "epochs": 14, "distill": 0.7},
    "another": {"channels": 256, "epochs": 14, "distill": 0.7},
}
"""Settings of the compact WaveNets that are distilled."""


def losses_of(path: Path, by: By, seed: int) -> dict[str, float]:
    """Return the losses of each kind of model, and its parameters."""
    params = params_of(by, seed)
    corpus, windows = windows_of(params, path)

    def wide(number: int) -> LanguageModel:
        say(f"seed {seed}, hybrid {number} of {MEMBERS}")
        own = _with(params, "hybrid", WIDE).model_copy(update={"seed": 1000 * seed + number})
        return trained(trainer_of("hybrid", own, corpus, windows))

    hybrids = [wide(number) for number in range(1, MEMBERS + 1)]
    members = [("hybrid", model.hyperparameters) for model in hybrids]
    teacher = Mixture(len(corpus.vocabulary), corpus.block_size, members)
    for member, model in zip(teacher.members, hybrids, strict=True):
        member.load_state_dict(model.state_dict())
    models: dict[str, LanguageModel] = {"one hybrid": hybrids[0], "hybrids": teacher}
    for number, (name, settings) in enumerate(STUDENTS.items(), start=MEMBERS + 1):
        say(f"seed {seed}, {name}")
        own = _with(params, "compact", settings).model_copy(update={"seed": 1000 * seed + number})
        models[name] = trained(trainer_of("compact", own, corpus, windows, teacher=teacher))
    found: dict[str, float] = {}
    every = [*hybrids, *(models[name] for name in STUDENTS)]
    val, test = (
        {model: probabilities([model], windows[part])[0] for model in [*every, teacher]}
        for part in (Part.VAL, Part.TEST)
    )
    weights = mixture_weights(np.array([val[model] for model in every]))
    for name, model in models.items():
        found |= _figures(name, val[model], test[model], count_parameters(model))
    of_val, of_test = (weights @ np.array([its[model] for model in every]) for its in (val, test))
    chosen = [model for model, weight in zip(every, weights, strict=True) if weight]
    return found | _figures("mixed", of_val, of_test, sum(map(count_parameters, chosen)))


def _with(params: Params, model: str, settings: dict[str, Any]) -> Params:
    return params.model_copy(update={model: params.section(model).model_copy(update=settings)})


def _figures(name: str, val: Any, test: Any, parameters: int) -> dict[str, float]:
    return {
        f"{name}/parameters": float(parameters),
        f"{name}/validation": float(-np.log(val).mean()),
        f"{name}/test": float(-np.log(test).mean()),
    }


def table(rows: pd.DataFrame) -> str:
    """Return a Markdown table with a row for each kind of model."""
    lines = []
    for column in rows.columns[rows.columns.str.endswith("/test")]:
        name = column.removesuffix("/test")
        size = f"{rows[f'{name}/parameters'].mean():,.0f}"
        losses = [with_error(rows[f"{name}/{part}"]) for part in ("validation", "test")]
        lines.append([name, size, *losses])
    return markdown(["", "parameters", "validation", "test"], lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.ensemble", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--names", type=Path, default=NAMES, help="a list with one name per line")
    add_options(parser)
    arguments = parser.parse_args()
    paths = {arguments.names.stem: arguments.names}
    print(table(measured(losses_of, KEPT, paths, "window", arguments.seeds, arguments.jobs)))


if __name__ == "__main__":
    main()
