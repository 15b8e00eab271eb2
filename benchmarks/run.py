"""All benchmarks, one after the other, into `benchmarks/RESULTS.md`.

python -m benchmarks.run
"""

import argparse
import os
from pathlib import Path

from benchmarks import sampling, steps, whole
from charlm.environment import describe

RESULTS = Path(__file__).parent / "RESULTS.md"

INTRODUCTION = """\
# Results

Written by `make bench`, in one run on one machine: medians of {pairs} turns each, taken in turn
with what they are held against; a ratio is the median of the ratios pair by pair. Absolute
times drift from one run to the next, ratios much less.

{machine}
"""


def machine() -> str:
    facts = describe(Path("requirements.txt"))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{facts['processor']}, {cores} cores; {facts['system']}; Python {facts['python']}, "
        f"torch {facts['torch']}, NumPy {facts['numpy']}, DVC {facts['dvc']}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10, help="of the whole pipeline's turns")
    arguments = parser.parse_args()
    parts = [INTRODUCTION.format(pairs=arguments.pairs, machine=machine())]
    for title, module, measured in (
        ("Training at equal mathematics", steps, lambda: steps.table(arguments.pairs)),
        ("Sampling", sampling, lambda: sampling.table(arguments.pairs)),
        ("The whole", whole, lambda: whole.table(arguments.pairs, arguments.epochs)),
    ):
        explained = (module.__doc__ or "").split("\n\n    python")[0].strip()
        parts.append(f"## {title}\n\n{explained}\n\n{measured()}\n")
        print(parts[-1], flush=True)
    RESULTS.write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
