"""Names sampled per second, compared with the notebook, which samples one at a time.

Both use the weights in `data/checkpoints`, trained by the pipeline. The notebook has no mixture,
which is compared with its WaveNet.

    python -m benchmarks.sampling --pairs 5
"""

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path

from benchmarks.turns import Figures, in_a_process, markdown, median_of, median_ratio, pairs
from charlm.core.pinning import pin_kernels

MODELS = {"fcn": "fcn", "wavenet": "wavenet", "mixture": "wavenet"}
"""The pipeline's models, and the notebook's model that each is compared with."""

CHECKPOINTS = Path("data/checkpoints")
WARM_UP = 100
ONE_BY_ONE = 1000
"""Names that the notebook samples in a run; its speed does not depend on their number."""


def notebook(model: str) -> Figures:
    """Measure names per second of the notebook."""
    from safetensors.torch import load_file

    from benchmarks import notebook_loop

    weights = load_file(CHECKPOINTS / f"{model}.safetensors")
    vocab_size = len(weights["embedding.weight"])
    net = notebook_loop.MODELS[model](vocab_size)
    # Parameters are in order from embedding to output, the tensors of the file by name.
    for parameter, name in zip(net.parameters(), sorted(weights, key=_layer), strict=True):
        parameter.data.copy_(weights[name])
    characters = [chr(33 + token) for token in range(vocab_size - 1)]
    began = time.perf_counter()
    for _ in range(ONE_BY_ONE):
        notebook_loop.sample(net, characters)
    return {"names per second": ONE_BY_ONE / (time.perf_counter() - began)}


def _layer(name: str) -> tuple[int, str, bool]:
    """Return a key that sorts the tensors of a checkpoint in the order of `parameters()`."""
    layer, _, kind = name.rpartition(".")
    return (
        ["embedding", "hidden", "tree", "output"].index(layer.split(".")[0]),
        layer,
        kind == "bias",
    )


def pipeline(model: str, count: int) -> Figures:
    """Measure names per second, total seconds, and peak memory of the process."""
    pin_kernels()
    from charlm.core.randomness import generator
    from charlm.data import checkpoint
    from charlm.fast.devices import set_up
    from charlm.fast.running import Runner
    from charlm.models.base import build
    from charlm.sampling.sampler import sample_names

    set_up("cpu", 1)
    loaded = checkpoint.load(CHECKPOINTS / f"{model}.safetensors", build)
    draw = partial(
        sample_names,
        Runner(loaded.model),
        loaded.vocabulary,
        block_size=loaded.model.hyperparameters["block_size"],
        generator=generator(1, "benchmark"),
    )
    draw(WARM_UP)
    began = time.perf_counter()
    draw(count)
    seconds = time.perf_counter() - began
    figures = {"names per second": count / seconds, "seconds": seconds}
    return {**figures, "megabytes": peak_bytes() / 2**20}


def peak_bytes() -> int:
    """Return the peak memory of this process."""
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def table(count: int, many: int = 100_000, most: int = 1_000_000) -> str:
    """Return a table with a row per model."""
    header = [
        "",
        "notebook, names/s",
        f"pipeline at {many:,} names, names/s",
        "speedup",
        f"{most:,} names, s",
        "peak memory, MB",
    ]
    turn = partial(in_a_process, "benchmarks.sampling", "--turn")
    rows = []
    for model, its in MODELS.items():
        taken = pairs(
            count,
            partial(turn, "pipeline", model, str(many)),
            partial(turn, "notebook", its, "0"),
        )
        million = turn("pipeline", model, str(most))
        rows.append(
            [
                model,
                f"{median_of(taken, 1, 'names per second'):,.0f}",
                f"{median_of(taken, 0, 'names per second'):,.0f}",
                f"{median_ratio(taken, 'names per second'):.0f}",
                f"{million['seconds']:.0f}",
                f"{million['megabytes']:.0f}",
            ]
        )
    return markdown(header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sampling", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--pairs", type=int, default=5, help="number of pairs of runs")
    parser.add_argument("--turn", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    match arguments.turn:
        case None:
            print(table(arguments.pairs))
        case "notebook", model, _:
            print(json.dumps(notebook(model)))
        case _, model, count:
            print(json.dumps(pipeline(model, int(count))))


if __name__ == "__main__":
    main()
