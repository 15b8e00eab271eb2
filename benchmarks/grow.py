"""Seconds and peak memory of build_dataset, split and an epoch as the list of names grows.

Makes lists of distinct names, runs each stage on them in a process of its own and in a
temporary folder, prints a table in Markdown and draws benchmarks/growth.png:

    python -m benchmarks.grow
    python -m benchmarks.grow --sizes 30000 300000 --batches 200

The names are invented by the trained net (at temperature 1.2, so that they differ), repeated
ones left out.

An epoch's time is that of a few of its batches times the number of its batches; what goes
before its hundredth batch is in the seconds to start. Peak memory is
the largest resident set, in which a file that is mapped into memory counts as far as it was
looked at, though the system may take those pages back.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.turns import markdown

# What takes memory is imported where it is used: a process starts with its parent's peak.

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "benchmarks/growth.png"
STEPS = ["build_dataset", "split", "epoch"]
AT_ONCE = 500_000
TEMPERATURE = 1.2


def write_list(path: Path, size: int, checkpoint: Path) -> None:
    """Write `size` distinct names that a trained model invents."""
    from charlm.checkpoint import load
    from charlm.distinct import Distinct
    from charlm.randomness import generator
    from charlm.sampling import sample_names

    trained = load(checkpoint)
    draws = generator(1, "grow")
    with path.open("w+b") as file:
        distinct = Distinct(file)
        while (missing := size - distinct.count) > 0:
            count = min(missing, AT_ONCE)
            distinct.add(
                sample_names(
                    trained.model,
                    trained.vocabulary,
                    count,
                    generator=draws,
                    temperature=TEMPERATURE,
                )
            )


class EnoughError(Exception):
    """Ends a training early."""


def first_batches(limit: int) -> None:
    """Train the fully connected net for some batches in this folder; print what they took."""
    from benchmarks.trainer import trainer_of
    from charlm.corpus import load_corpus
    from charlm.params import load_params
    from charlm.splits import load_split
    from stages import DATASET, SPLIT

    params = load_params()
    corpus = load_corpus(DATASET)
    windows = load_split(SPLIT, corpus).windows(corpus)
    trainer = trainer_of("fcn", params, corpus, windows)
    reports: list[tuple[float, int]] = []  # seconds, batches done

    def on_batches(_: int) -> None:
        reports.append((time.monotonic(), trainer.batches_done))
        if trainer.batches_done >= limit:
            raise EnoughError

    with suppress(EnoughError):
        next(trainer.run(1, on_batches))
    # Before the first report, the order of the epoch is made and memory is allocated.
    (began, first), (ended, last) = reports[0], reports[-1]
    took = {
        "seconds": ended - began,
        "batches": last - first,
        "batches_per_epoch": trainer.batches_per_epoch,
        "windows": sum(map(len, windows.values())),
    }
    print(json.dumps(took))


def measured(command: list[str], folder: Path) -> tuple[float, float, str]:
    """Run a command; its seconds, its peak memory in MB, and what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryFile("w+") as output:
        began = time.monotonic()
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - began
        if process.returncode:
            sys.exit(process.returncode)  # it has said what is wrong
        output.seek(0)
        unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
        return seconds, usage.ru_maxrss * unit / 1e6, output.read()


def measure(size: int, batches: int, checkpoint: Path, scratch: Path) -> dict[str, Any]:
    """Seconds and MB of each step for one list, in a temporary folder."""
    python = [sys.executable, "-m"]
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        folder = Path(name)
        (folder / "requirements.txt").write_bytes((ROOT / "requirements.txt").read_bytes())
        text = (ROOT / "params.yaml").read_text(encoding="utf-8")
        text = text.replace("data/prenoms.txt", "names.txt")
        (folder / "params.yaml").write_text(text, encoding="utf-8")
        make = ["benchmarks.grow", "--make", str(size), "--checkpoint", str(checkpoint.resolve())]
        measured([*python, *make], folder)
        row: dict[str, Any] = {"names": size}
        for step in STEPS[: 3 if batches else 2]:
            command = ["benchmarks.grow", "--train", str(batches)]
            if step != "epoch":
                command = [f"stages.{step}"]
            seconds, megabytes, printed = measured([*python, *command], folder)
            if step == "epoch":
                took = json.loads(printed)
                row["windows"] = took["windows"]
                row["batch_ms"] = 1000 * took["seconds"] / took["batches"]
                row["start_seconds"] = seconds - took["seconds"]
                seconds = row["batch_ms"] / 1000 * took["batches_per_epoch"]
            row[f"{step}_seconds"], row[f"{step}_mb"] = seconds, megabytes
        return row


def table(rows: list[dict[str, Any]]) -> str:
    """A row a list."""
    columns = [c for c in rows[-1] if all(c in row for row in rows)]
    cells = [
        [f"{row[c]:,.1f}" if isinstance(row[c], float) else f"{row[c]:,}" for c in columns]
        for row in rows
    ]
    return markdown([c.replace("_", " ") for c in columns], cells)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Seconds and peak memory over the number of names, on logarithmic axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, unit, label in zip(
        figure.subplots(1, 2), ("seconds", "mb"), ("seconds", "peak memory (MB)"), strict=True
    ):
        for step in STEPS:
            points = [
                (row["names"], row[f"{step}_{unit}"]) for row in rows if f"{step}_{unit}" in row
            ]
            if points:
                axes.loglog(*zip(*points, strict=True), marker="o", label=step)
        axes.set(xlabel="names", ylabel=label)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = [30_000, 300_000, 3_000_000, 10_000_000, 30_000_000]
    parser.add_argument("--sizes", type=int, nargs="+", default=sizes, metavar="NAMES")
    parser.add_argument(
        "--batches", type=int, default=300, help="of an epoch, at least 200; 0 for none"
    )
    parser.add_argument(
        "--checkpoint", type=Path, default=ROOT / "data/checkpoints/fcn.safetensors"
    )
    parser.add_argument("--scratch", type=Path, help="where there is room for the largest list")
    parser.add_argument("--picture", type=Path, default=PICTURE)
    parser.add_argument("--make", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--train", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.make:
        write_list(Path("names.txt"), arguments.make, arguments.checkpoint)
        return
    if arguments.train:
        first_batches(arguments.train)
        return
    if not arguments.checkpoint.is_file():
        sys.exit(f"error: {arguments.checkpoint} does not exist; make it with: dvc repro")
    if 0 < arguments.batches < 200:
        parser.error("--batches must be 0 or at least 200")
    rows = []
    for size in arguments.sizes:
        rows.append(measure(size, arguments.batches, arguments.checkpoint, arguments.scratch))
        print(table(rows[-1:]), flush=True)
    print(f"\n{table(rows)}")
    draw(rows, arguments.picture)


if __name__ == "__main__":
    main()
