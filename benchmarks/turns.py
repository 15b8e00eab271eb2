"""Time two commands alternately, A B A B ..., each in its own process.

The speed of a machine can change by half within minutes; the ratio of consecutive runs varies much
less.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from benchmarks import ENVIRONMENT

Figures = dict[str, float]

HERE = Path()
"""The folder that this process runs in."""

BEGAN = time.monotonic()


def say(what: str) -> None:
    """Print progress to stderr, with the minutes since the start."""
    print(f"{(time.monotonic() - BEGAN) / 60:5.1f} min  {what}", file=sys.stderr, flush=True)


def in_a_process(module: str, *arguments: str, folder: Path = HERE) -> Figures:
    """Run `python -m module arguments` in a folder and parse the JSON in its last line."""
    say(" ".join([module, *arguments]) + (f" in {folder}" if folder != HERE else ""))
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(
        command, cwd=folder, env=ENVIRONMENT, check=False, stdout=subprocess.PIPE, encoding="utf-8"
    )
    if done.returncode:
        sys.exit(done.returncode)  # it has printed the error
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def pairs(
    count: int, a: Callable[[], Figures], b: Callable[[], Figures]
) -> list[tuple[Figures, Figures]]:
    """Run each `count` times, alternating, and return the figures."""
    taken = []
    for number in range(1, count + 1):
        say(f"pair {number} of {count}")
        taken.append((a(), b()))
    return taken


def median_of(taken: Sequence[tuple[Figures, Figures]], side: int, figure: str) -> float:
    return median(turn[side][figure] for turn in taken)


def median_ratio(taken: Sequence[tuple[Figures, Figures]], figure: str) -> float:
    """Return the median of A / B over the pairs."""
    return median(a[figure] / b[figure] for a, b in taken)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
