"""All benchmarks, one after the other, into `benchmarks/RESULTS.md`.

    python -m benchmarks.run

The file is written whole at the end, or not at all; what is being measured is told meanwhile.
`python -m pipeline.readme` puts the tables into the README.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

import psutil

from benchmarks import sampling, steps, whole
from benchmarks.turns import say
from charlm.core.files import write_text
from pipeline.environment import describe
from pipeline.side_by_side import cores

RESULTS = Path(__file__).parent / "RESULTS.md"

INTRODUCTION = """\
# Results

Written by `make bench`, in one run on one machine: medians of {pairs} turns each, taken in turn
with what they are held against; a ratio is the median of the ratios pair by pair. Absolute
times drift from one run to the next, ratios much less.

{machine}
"""

PART = """\
## {title}

{explained}

{table}

This table alone: `{command}`
"""


def machine() -> str:
    """A line, with no name and no date in it."""
    facts = describe(Path("requirements.txt"))
    return (
        f"Measured on: {facts['processor']}, {cores()} cores, "
        f"{psutil.virtual_memory().total / 2**30:.0f} GB of memory; {facts['system']}; "
        f"Python {facts['python']}, torch {facts['torch']}, NumPy {facts['numpy']}, "
        f"DVC {facts['dvc']}"
    )


def explained(description: str) -> str:
    """What a module says of itself above the command that runs it."""
    return description.split("\n\n    python")[0].strip()


def tell(path: Path, template: str, description: str | None, **parts: object) -> None:
    """Write a text with what a module says of itself and its other parts, and print it."""
    text = template.format(explained=explained(description or ""), **parts)
    write_text(path, text)
    print(text)


def measure(pairs: int, epochs: int) -> str:
    """The text of the results."""
    sizes = f"--pairs {pairs}"
    parts = (
        ("Training at equal mathematics", steps, sizes, partial(steps.table, pairs)),
        ("Sampling", sampling, sizes, partial(sampling.table, pairs)),
        ("The whole", whole, f"{sizes} --epochs {epochs}", partial(whole.table, pairs, epochs)),
    )
    texts = [INTRODUCTION.format(pairs=pairs, machine=machine())]
    for number, (title, module, options, table) in enumerate(parts, start=1):
        say(f"{title} ({number} of {len(parts)})")
        text = PART.format(
            title=title,
            explained=explained(module.__doc__ or ""),
            table=table(),
            command=f"python -m {module.__name__} {options}",
        )
        print(text, flush=True)
        texts.append(text)
    return "\n".join(texts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=50, help="of the whole pipeline's turns")
    arguments = parser.parse_args()
    for model in sampling.MODELS:  # before half an hour is spent on what comes first
        path = sampling.CHECKPOINTS / f"{model}.safetensors"
        if not path.is_file():
            sys.exit(f"error: {path} does not exist; make it with: make repro")
    try:
        write_text(RESULTS, measure(arguments.pairs, arguments.epochs))
    except KeyboardInterrupt:
        sys.exit(f"interrupted; {RESULTS.name} stays as it was")


if __name__ == "__main__":
    main()
