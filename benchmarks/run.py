"""Run all benchmarks and write `benchmarks/RESULTS.md`.

    python -m benchmarks.run

The file is written at the end; progress is printed meanwhile. `python -m pipeline.readme` copies
the tables into docs/performance.md.
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

Written by `make bench`, in a single run on one machine: medians of {pairs} runs, alternating with
the code they are compared with; a ratio is the median of the ratios of the pairs. Absolute times
vary from run to run, ratios much less.

{machine}
"""

PART = """\
## {title}

{explained}

{table}

Only this table: `{command}`
"""


def machine() -> str:
    """Return a line that describes the machine, without host name or date."""
    facts = describe(Path("requirements.txt"))
    return (
        f"Measured on: {facts['processor']}, {cores()} cores, "
        f"{psutil.virtual_memory().total / 2**30:.0f} GB of memory; {facts['system']}; "
        f"Python {facts['python']}, torch {facts['torch']}, NumPy {facts['numpy']}, "
        f"DVC {facts['dvc']}"
    )


def explained(description: str | None) -> str:
    """Return a module's docstring, which `python -OO` drops, up to the command that runs it."""
    return (description or "").split("\n\n    python")[0].strip()


def write_result(path: Path, template: str, description: str | None, **parts: object) -> None:
    """Fill a template with a module's docstring and other parts; write and print it."""
    text = template.format(explained=explained(description), **parts)
    write_text(path, text)
    print(text)


def measure(pairs: int, epochs: int) -> str:
    """Run the benchmarks and return the text of the results."""
    sizes = f"--pairs {pairs}"
    parts = (
        ("Training steps", steps, sizes, partial(steps.table, pairs)),
        ("Sampling", sampling, sizes, partial(sampling.table, pairs)),
        (
            "The whole pipeline",
            whole,
            f"{sizes} --epochs {epochs}",
            partial(whole.table, pairs, epochs),
        ),
    )
    texts = [INTRODUCTION.format(pairs=pairs, machine=machine())]
    for number, (title, module, options, table) in enumerate(parts, start=1):
        say(f"{title} ({number} of {len(parts)})")
        text = PART.format(
            title=title,
            explained=explained(module.__doc__),
            table=table(),
            command=f"python -m {module.__name__} {options}",
        )
        print(text, flush=True)
        texts.append(text)
    return "\n".join(texts)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--pairs", type=int, default=5, help="number of pairs of runs")
    parser.add_argument(
        "--epochs", type=int, default=50, help="epochs of the course's models in the whole pipeline"
    )
    arguments = parser.parse_args()
    for model in sampling.MODELS:  # fail early, not after an hour
        path = sampling.CHECKPOINTS / f"{model}.safetensors"
        if not path.is_file():
            sys.exit(f"error: {path} does not exist; create it with: make repro")
    try:
        write_text(RESULTS, measure(arguments.pairs, arguments.epochs))
    except KeyboardInterrupt:
        sys.exit(f"interrupted; {RESULTS.name} is unchanged")


if __name__ == "__main__":
    main()
