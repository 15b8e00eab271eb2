"""Two commands timed in turn, A B A B ..., each in a process of its own.

The speed of a machine drifts by half from one minute to the next; the ratio of two turns that
follow each other drifts much less.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median

from benchmarks import ENVIRONMENT

Figures = dict[str, float]

BEGAN = time.monotonic()


def say(what: str) -> None:
    """Tell what is being measured, and since when, apart from the tables."""
    print(f"{(time.monotonic() - BEGAN) / 60:5.1f} min  {what}", file=sys.stderr, flush=True)


def in_a_process(module: str, *arguments: str) -> Figures:
    """What `python -m module arguments` prints as JSON in its last line."""
    say(" ".join([module, *arguments]))
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, env=ENVIRONMENT, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)  # it has said what is wrong
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def pairs(
    count: int, a: Callable[[], Figures], b: Callable[[], Figures]
) -> list[tuple[Figures, Figures]]:
    """The figures of `count` turns of each."""
    taken = []
    for number in range(1, count + 1):
        say(f"pair {number} of {count}")
        taken.append((a(), b()))
    return taken


def median_of(taken: Sequence[tuple[Figures, Figures]], side: int, figure: str) -> float:
    return median(turn[side][figure] for turn in taken)


def median_ratio(taken: Sequence[tuple[Figures, Figures]], figure: str) -> float:
    """The median of A / B, pair by pair."""
    return median(a[figure] / b[figure] for a, b in taken)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
