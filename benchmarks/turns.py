"""Two commands timed in turn, A B A B ..., each in a process of its own.

The speed of a machine drifts by half from one minute to the next; the ratio of two turns that
follow each other drifts much less.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from statistics import median

Figures = dict[str, float]


def in_a_process(module: str, *arguments: str) -> Figures:
    """What `python -m module arguments` prints as JSON in its last line."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def pairs(
    count: int, a: Callable[[], Figures], b: Callable[[], Figures]
) -> list[tuple[Figures, Figures]]:
    """The figures of `count` turns of each."""
    return [(a(), b()) for _ in range(count)]


def median_of(taken: Sequence[tuple[Figures, Figures]], side: int, figure: str) -> float:
    return median(turn[side][figure] for turn in taken)


def median_ratio(taken: Sequence[tuple[Figures, Figures]], figure: str) -> float:
    """The median of A / B, pair by pair."""
    return median(a[figure] / b[figure] for a, b in taken)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
