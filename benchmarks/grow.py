"""Seconds and peak memory of build_dataset, split and an epoch as the list of names grows.

The names are distinct samples from the trained net, at temperature 1.2. Each stage runs in its own
process, with the default parameters. The time of an epoch of the fully connected net, without
validation, is extrapolated from some of its batches; everything before its hundredth batch counts
as startup. Peak memory is the largest resident set. It includes the pages of memory-mapped files
that were read, although the system can reclaim them.

    python -m benchmarks.grow
    python -m benchmarks.grow --sizes 30000 300000 --batches 200

Works in a temporary folder, and writes benchmarks/GROWTH.md and benchmarks/growth.png when all
sizes are measured; `python -m pipeline.readme` copies the table into docs/performance.md.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.turns import markdown, say
from charlm.core.pinning import pin_kernels

# Large modules are imported where they are used: a child process starts with its parent's peak.

ROOT = Path(__file__).resolve().parent.parent
STEPS = {
    "build_dataset": "build_dataset",
    "split": "split",
    "epoch": "an epoch of the fully connected net",
}
COLUMNS = {
    "names": "names",
    "windows": "windows",
    "build_dataset_seconds": "`build_dataset`, s",
    "build_dataset_mb": "peak memory, MB",
    "split_seconds": "`split`, s",
    "split_mb": "peak memory, MB",
    "epoch_seconds": "epoch, s",
    "epoch_mb": "peak memory, MB",
    "start_seconds": "startup, s",
    "batch_ms": "batch, ms",
}
AT_ONCE = 500_000
TEMPERATURE = 1.2

GROWTH = """\
# Lists that grow

Written by `make grow`, in a single run on one machine.

{machine}

{explained}

{table}

![Seconds and peak memory against the number of names](growth.png)
"""


def write_list(path: Path, size: int, checkpoint: Path) -> None:
    """Write `size` distinct names sampled from a trained model."""
    pin_kernels()
    from charlm.core.randomness import generator
    from charlm.data.checkpoint import load
    from charlm.models.base import build
    from charlm.names.distinct import Distinct
    from charlm.sampling.sampler import sample_names

    trained = load(checkpoint, build)
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
                    block_size=trained.model.hyperparameters["block_size"],
                    generator=draws,
                    temperature=TEMPERATURE,
                )
            )


class EnoughError(Exception):
    """Ends a training early."""


def first_batches(limit: int) -> None:
    """Train the fully connected net for some batches in this folder; print their time."""
    pin_kernels()
    from benchmarks.trainer import trainer_of
    from charlm.core.params import load_params
    from charlm.data.corpus import load_corpus
    from charlm.data.splits import load_split
    from charlm.data.windows import windows_by_part
    from stages import DATASET, SPLIT

    params = load_params()
    corpus = load_corpus(DATASET)
    windows = windows_by_part(corpus, load_split(SPLIT, corpus))
    trainer = trainer_of("fcn", params, corpus, windows)
    reports: list[tuple[float, int]] = []  # seconds, batches done

    def on_batches(_: int) -> None:
        reports.append((time.monotonic(), trainer.batches_done))
        if trainer.batches_done >= limit:
            raise EnoughError

    with suppress(EnoughError):
        next(trainer.run(1, on_batches))
    if len(reports) < 2:
        sys.exit(
            f"error: an epoch of this list has only {trainer.batches_per_epoch} batches; "
            "use a longer list, or skip the epoch with: --batches 0"
        )
    # The time before the first report is left out: shuffling and memory allocation.
    (began, first), (ended, last) = reports[0], reports[-1]
    took = {
        "seconds": ended - began,
        "batches": last - first,
        "batches_per_epoch": trainer.batches_per_epoch,
        "windows": sum(map(len, windows.values())),
    }
    print(json.dumps(took))


def measured(command: list[str], folder: Path) -> tuple[float, float, str]:
    """Run a command; return its seconds, its peak memory in MB, and its output."""
    if sys.platform == "win32":
        sys.exit("error: the peak memory cannot be measured on Windows; run this on Linux or macOS")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        began = time.monotonic()
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - began
        if process.returncode:
            sys.exit(process.returncode)  # it has printed the error
        output.seek(0)
        unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
        return seconds, usage.ru_maxrss * unit / 1e6, output.read()


def measure(size: int, batches: int, checkpoint: Path, scratch: Path) -> dict[str, Any]:
    """Measure seconds and MB of each step for one list, in a temporary folder."""
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
        for step in STEPS:
            command = [f"stages.{step}"]
            if step == "epoch":
                if not batches:
                    continue
                command = ["benchmarks.grow", "--train", str(batches)]
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
    """Return a table with a row per list."""
    columns = [c for c in COLUMNS if all(c in row for row in rows)]
    cells = [[_number(row[c]) for c in columns] for row in rows]
    return markdown([COLUMNS[c] for c in columns], cells)


def _number(value: float) -> str:
    return f"{value:,.0f}" if isinstance(value, int) or value >= 100 else f"{value:.1f}"


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Plot seconds and peak memory against the number of names, on logarithmic axes."""
    from matplotlib import style
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter, StrMethodFormatter

    from charlm.report.figures import MODEL_COLORS, STYLE, save

    with style.context([*STYLE, {"font.size": 11}]):
        figure = Figure(figsize=(9, 4.4))
        seconds, memory = figure.subplots(1, 2)
        for axes, unit in ((seconds, "seconds"), (memory, "mb")):
            low, high = math.inf, 0.0
            for (step, label), color in zip(STEPS.items(), MODEL_COLORS, strict=False):
                measured = [row for row in rows if f"{step}_{unit}" in row]
                sizes = [row["names"] for row in measured]
                values = [row[f"{step}_{unit}"] for row in measured]
                if values:
                    axes.loglog(sizes, values, marker="o", label=label, color=color)
                    low, high = min(low, *values), max(high, *values)
            # Whole powers of ten: a tight range would turn noise into a steep line.
            decades = math.floor(math.log10(low)), math.ceil(math.log10(1.01 * high))
            axes.set(ylim=[10.0**n for n in decades], xlabel="names in the list")
            axes.set_xticks([row["names"] for row in rows])
            steps = (1.0, 2.0, 5.0) if decades[1] - decades[0] < 3 else (1.0,)
            axes.yaxis.set_major_locator(LogLocator(subs=steps))
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_minor_formatter(NullFormatter())
        seconds.set(title="Time", ylabel="seconds")
        memory.set(title="Peak memory", ylabel="MB")
        handles, labels = seconds.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    save(path, figure)


def write(rows: list[dict[str, Any]], folder: Path) -> None:
    """Write the table and the plot; large modules are imported after all measurements."""
    from benchmarks.run import explained, machine
    from charlm.core.files import write_text

    draw(rows, folder / "growth.png")
    text = GROWTH.format(machine=machine(), explained=explained(__doc__), table=table(rows))
    write_text(folder / "GROWTH.md", text)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.grow", description=(__doc__ or "").partition("\n")[0]
    )
    sizes = [30_000, 300_000, 3_000_000, 10_000_000, 30_000_000]
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=sizes, metavar="NAMES", help="sizes of the lists"
    )
    parser.add_argument(
        "--batches",
        type=int,
        default=300,
        help="batches of an epoch to time, at least 200; 0 skips it",
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        default=ROOT / "data/checkpoints/fcn.safetensors",
        help="the model that samples the names",
    )
    parser.add_argument("--scratch", type=Path, help="a folder with room for the largest list")
    parser.add_argument(
        "--into",
        type=Path,
        default=ROOT / "benchmarks",
        metavar="FOLDER",
        help="folder for the results",
    )
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
        sys.exit(f"error: {arguments.checkpoint} does not exist; create it with: dvc repro")
    if 0 < arguments.batches < 200:
        parser.error("--batches must be 0 or at least 200")
    rows = []
    for size in arguments.sizes:
        say(f"{size:,} names")
        rows.append(measure(size, arguments.batches, arguments.checkpoint, arguments.scratch))
        print(table(rows[-1:]), flush=True)
    print(f"\n{table(rows)}")
    write(rows, arguments.into)


if __name__ == "__main__":
    main()
