"""The whole pipeline compared with the notebook's training, evaluation and sampling.

A run of the pipeline is all stages in a fresh clone without results, by `dvc repro`, or by `make
repro`, which trains models in parallel. A run of the notebook is `benchmarks/notebook_loop.py`,
which imports torch once, not eight times, and trains only the course's two models; so each command
is also timed with one epoch of the compact WaveNet and the hybrid. (With fewer epochs than 50 the
fixed costs weigh more.) Then the same command is run again when everything is up to date; a
pipeline of a single stage that copies a file shows DVC's own part of that.

    python -m benchmarks.whole --pairs 5 --epochs 50
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
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
ONE_EPOCH = "the compact WaveNet and the hybrid for one epoch"
COPY = "copy" if sys.platform == "win32" else "cp"
ONE_STAGE = f"stages:\n  copy:\n    cmd: {COPY} one two\n    deps: [one]\n    outs: [two]\n"


def notebook(epochs: int) -> Figures:
    script = [sys.executable, "-m", "benchmarks.notebook_loop", "data/prenoms.txt"]
    return {"seconds": _timed([*script, "--epochs", str(epochs)], ROOT)}


def one_stage() -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "one").write_text("one", encoding="utf-8")
        (Path(folder) / "dvc.yaml").write_text(ONE_STAGE, encoding="utf-8")
        _timed(["dvc", "init", "--no-scm", "--quiet"], Path(folder))
        return _twice(["dvc", "repro"], Path(folder))


def pipeline(command: list[str], epochs: int, own_epochs: int | None = None) -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        clone = ["git", "clone", "--quiet", str(ROOT), folder]
        subprocess.run(clone, check=True)
        params = Path(folder) / "params.yaml"
        text = re.sub(r"(?m)^epochs: \d+", f"epochs: {epochs}", params.read_text(encoding="utf-8"))
        if own_epochs:  # of the models whose sections have their own
            text = re.sub(r"(?m)^  epochs: \S+", f"  epochs: {own_epochs}", text)
        params.write_text(text, encoding="utf-8")
        # With dvc.lock, the committed metrics and plots would count as up to date.
        (Path(folder) / "dvc.lock").unlink()
        # A cache of its own: a shared one would have the results of the previous run.
        config = Path(folder) / ".dvc/config.local"
        config.write_text("[cache]\n    dir = cache\n", encoding="utf-8")
        return _twice(command, Path(folder))


def _twice(command: list[str], folder: Path) -> Figures:
    """Measure the seconds of the first and of a second run."""
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
        encoding="utf-8",
        errors="replace",
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        sys.exit(f"{done.stdout}error: {' '.join(command)} failed (see above)")
    return seconds


def table(count: int, epochs: int) -> str:
    """Return a table with a row for each way to run the pipeline."""
    ways = {f"`{way}`": partial(pipeline, command, epochs) for way, command in WAYS.items()}
    ways |= {f"{way}, {ONE_EPOCH}": partial(turn, own_epochs=1) for way, turn in ways.items()}
    turns: dict[str, Callable[[], Figures]] = {
        "notebook": partial(notebook, epochs),
        **ways,
        "one stage": one_stage,
    }
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
    header = ["notebook, s", "pipeline, s", "fraction of its time", "up to date, s"]
    return markdown([f"{epochs} epochs each", *header], rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.whole", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--pairs", type=int, default=5, help="number of pairs of runs")
    parser.add_argument("--epochs", type=int, default=50, help="epochs of the course's models")
    arguments = parser.parse_args()
    print(table(arguments.pairs, arguments.epochs))


if __name__ == "__main__":
    main()
