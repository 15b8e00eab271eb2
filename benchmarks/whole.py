"""The whole pipeline against the notebook's trainings, evaluation and sampling.

A turn of the pipeline is a fresh clone, of what is committed, in which nothing has been made:
all stages, by `dvc repro`, or with the trainings side by side as `make repro` has it. A
turn of the notebook is `benchmarks/notebook_loop.py`, which imports one time and not eight, and
trains the course's two models; so each way is timed with a single epoch of the compact WaveNet as
well. (With fewer epochs than the default 50 what does not depend on them weighs more.) Then the
same command once more, when there is nothing left to do; how much of that is DVC's own shows a
pipeline of a single stage, which copies a file.

    python -m benchmarks.whole --pairs 5 --epochs 50
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks import ENVIRONMENT
from benchmarks.turns import Figures, markdown, median_of, median_ratio, say

ROOT = Path(__file__).resolve().parent.parent
WAYS = {
    "dvc repro": ["dvc", "repro"],
    "make repro": [sys.executable, "-m", "pipeline.side_by_side"],
}
ONE_EPOCH = "the compact WaveNet for one epoch"
ONE_STAGE = "stages:\n  copy:\n    cmd: cp one two\n    deps: [one]\n    outs: [two]\n"


def notebook(epochs: int) -> Figures:
    script = [sys.executable, "-m", "benchmarks.notebook_loop", "data/prenoms.txt"]
    return {"seconds": _timed([*script, "--epochs", str(epochs)], ROOT)}


def one_stage() -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "one").write_text("one")
        (Path(folder) / "dvc.yaml").write_text(ONE_STAGE)
        _timed(["dvc", "init", "--no-scm", "--quiet"], Path(folder))
        return _twice(["dvc", "repro"], Path(folder))


def pipeline(command: list[str], epochs: int, compact_epochs: int | None = None) -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        clone = ["git", "clone", "--quiet", str(ROOT), folder]
        subprocess.run(clone, check=True)
        params = Path(folder) / "params.yaml"
        text = re.sub(r"(?m)^epochs: \d+", f"epochs: {epochs}", params.read_text(encoding="utf-8"))
        if compact_epochs:  # the only section that has a number of its own
            text = re.sub(r"(?m)^  epochs: \d+", f"  epochs: {compact_epochs}", text)
        params.write_text(text, encoding="utf-8")
        # Which would know the metrics and plots that git has brought along as up to date.
        (Path(folder) / "dvc.lock").unlink()
        # Whatever the user's configuration says: a shared cache would know the turn before.
        config = Path(folder) / ".dvc/config.local"
        config.write_text("[cache]\n    dir = cache\n", encoding="utf-8")
        return _twice(command, Path(folder))


def _twice(command: list[str], folder: Path) -> Figures:
    """Seconds the first time, and again."""
    return {"seconds": _timed(command, folder), "again": _timed(command, folder)}


def _timed(command: list[str], folder: Path) -> float:
    path = os.pathsep.join([str(Path(sys.executable).parent), ENVIRONMENT["PATH"]])
    began = time.perf_counter()
    done = subprocess.run(
        command,
        cwd=folder,
        env={**ENVIRONMENT, "PATH": path},
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        sys.exit(f"{done.stdout}error: {' '.join(command)} failed, as said above")
    return seconds


def table(count: int, epochs: int) -> str:
    """A row a way to run the pipeline."""
    ways = {f"`{way}`": partial(pipeline, command, epochs) for way, command in WAYS.items()}
    ways |= {f"{way}, {ONE_EPOCH}": partial(turn, compact_epochs=1) for way, turn in ways.items()}
    turns = {"notebook": partial(notebook, epochs), **ways, "one stage": one_stage}
    taken: list[dict[str, Figures]] = [{} for _ in range(count)]
    for number, figures in enumerate(taken, start=1):
        for name, turn in turns.items():
            say(f"{name}, turn {number} of {count}")
            figures[name] = turn()
    rows = []
    for way in ways:
        against = [(turn[way], turn["notebook"]) for turn in taken]
        share = 100 * median_ratio(against, "seconds")
        ours, theirs = (median_of(against, side, "seconds") for side in (0, 1))
        again = f"{median_of(against, 0, 'again'):.1f}"
        rows.append([way, f"{theirs:.0f}", f"{ours:.0f}", f"{share:.0f}%", again])
    again = f"{median(turn['one stage']['again'] for turn in taken):.1f}"
    rows.append(["one stage that copies a file", "", "", "", again])
    header = ["notebook, s", "pipeline, s", "share of its time", "with nothing to do, s"]
    return markdown([f"{epochs} epochs each", *header], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=50)
    arguments = parser.parse_args()
    print(table(arguments.pairs, arguments.epochs))


if __name__ == "__main__":
    main()
