"""Seconds of training to reach 2.0132, the final test loss of the course's WaveNet.

The notebook loop trains its WaveNet for the course's 40 epochs, alternating with the pipeline's
Trainer, which trains a compact WaveNet for two epochs (`FAST`, otherwise as in `params.yaml`;
chosen by validation loss on the splits 101, 102 and 103). Each uses an 80/10/10 split of the
default names. The time to compute the test loss after each epoch is not counted. As the notebook
may reach the course's loss before its last epoch, the seconds to that point are listed, too.

    python -m benchmarks.time_to_loss --pairs 3

writes `benchmarks/LOSS.md`, as `make bench` does.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchmarks import NAMES
from benchmarks.turns import Figures, in_a_process, markdown, median_of, median_ratio, pairs
from charlm.core.pinning import pin_kernels

if TYPE_CHECKING:
    from charlm.training.trainer import Trainer

GOAL = 2.0132
NEVER = float("inf")
FAST = {
    "channels": 92,
    "batch_size": 2048,
    "lr": 0.05,
    "momentum": 0.6,
    "beta2": 0.9,
    "weight_decay": 0.0,
    "average": 0.96,
}
RESULT = Path(__file__).parent / "LOSS.md"

TEXT = """\
# Time to the course's loss

{explained}

Medians of {pairs} runs each; a ratio is the median of the ratios of the pairs.

{machine}

{table}
"""


def notebook(epochs: int) -> Figures:
    """Measure seconds for all epochs of the notebook's WaveNet, and to the target loss."""
    import torch

    from benchmarks import notebook_loop

    torch.manual_seed(1)
    contexts, targets, characters = notebook_loop.read_windows(NAMES)
    train, val, test = notebook_loop.loaders(contexts, targets)
    model = notebook_loop.MODELS["wavenet"](len(characters) + 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=notebook_loop.LR)
    seconds, reached, loss = 0.0, NEVER, NEVER
    for _ in range(epochs):
        began = time.perf_counter()
        notebook_loop.train_epoch(model, train, optimizer)
        notebook_loop.mean_loss(model, val)
        seconds += time.perf_counter() - began
        loss = notebook_loop.mean_loss(model, test)
        reached = min(reached, seconds) if loss <= GOAL else reached
    return {"seconds": seconds, "first": reached, "loss": loss}


def pipeline(epochs: int) -> Figures:
    """Measure the same for the pipeline's compact WaveNet."""
    pin_kernels()
    from benchmarks.trainer import trained, trainer_of, windows_of
    from charlm.core.params import load_params
    from charlm.data.splits import Part
    from charlm.fast.running import mean_loss

    params = load_params()
    compact = params.section("compact").model_copy(update=FAST | {"epochs": epochs})
    params = params.model_copy(update={"compact": compact})
    corpus, windows = windows_of(params)

    def trainer() -> "Trainer":
        return trainer_of("compact", params, corpus, windows)

    next(trainer().run(1))  # warm-up: loads the compiled kernels
    training = trainer()
    began = time.perf_counter()
    model = trained(training)
    seconds = time.perf_counter() - began
    loss = mean_loss(model, windows[Part.TEST])
    return {"seconds": seconds, "first": seconds if loss <= GOAL else NEVER, "loss": loss}


TURNS: dict[str, tuple[Callable[[int], Figures], int]] = {
    "notebook": (notebook, 40),
    "pipeline": (pipeline, 2),
}


def table(count: int) -> str:
    """Return a table with a row for each, and the ratios."""
    turn = partial(in_a_process, "benchmarks.time_to_loss", "--turn")
    taken = pairs(count, partial(turn, "notebook"), partial(turn, "pipeline"))
    rows = []
    for side, (name, (_, epochs)) in enumerate(TURNS.items()):
        first = median_of(taken, side, "first")
        rows.append(
            [
                name,
                str(epochs),
                f"{median_of(taken, side, 'loss'):.4f}",
                f"{median_of(taken, side, 'seconds'):.1f}",
                "never" if first == NEVER else f"{first:.1f}",
            ]
        )
    firsts = [theirs["first"] / ours["first"] for theirs, ours in taken if ours["first"] < NEVER]
    ratio = f"{median(firsts):.0f}" if firsts else ""
    rows.append(["speedup", "", "", f"{median_ratio(taken, 'seconds'):.0f}", ratio])
    header = ["", "epochs", "final test loss", "seconds", f"seconds to {GOAL}"]
    return markdown(header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.time_to_loss", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--pairs", type=int, default=3, help="number of pairs of runs")
    parser.add_argument("--turn", choices=TURNS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.turn:
        measure, epochs = TURNS[arguments.turn]
        print(json.dumps(measure(epochs)))
    else:
        measured = table(arguments.pairs)
        from benchmarks.run import machine, write_result

        write_result(
            RESULT, TEXT, __doc__, machine=machine(), table=measured, pairs=arguments.pairs
        )


if __name__ == "__main__":
    main()
