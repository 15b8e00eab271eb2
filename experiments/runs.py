"""Runs of a study, in parallel processes and kept in a file."""

import multiprocessing
from argparse import ArgumentParser
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.turns import say
from pipeline.side_by_side import cores


def add_options(parser: ArgumentParser) -> None:
    """Add the options of a study over seeds: `--seeds` and `--jobs`."""
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=list(range(10)),
        help="random seeds (default: 0 to 9)",
    )
    parser.add_argument("--jobs", type=int, default=cores(), help="number of parallel runs")


def kept_runs(
    measure: Callable[..., Mapping[str, Any]],
    keys: list[str],
    wanted: Mapping[tuple[Any, ...], tuple[Any, ...]],
    file: Path,
    jobs: int,
) -> pd.DataFrame:
    """Return the rows of a CSV file for the wanted runs, after measuring those that are missing.

    A row is added to the file as soon as it is measured, so an interrupted study can continue.

    Args:
        measure: returns the other columns of a row. It is called in another process.
        keys: the columns that identify a run.
        wanted: the arguments of `measure` for each run, by the values of these columns.
        jobs: number of parallel processes.
    """
    kept = pd.read_csv(file) if file.exists() else pd.DataFrame(columns=keys)
    done = set(kept[keys].itertuples(index=False, name=None))
    jobs = min(jobs, 61)  # the maximum on Windows
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        running = {
            pool.submit(measure, *arguments): key
            for key, arguments in wanted.items()
            if key not in done
        }
        for future in as_completed(running):
            row = {**dict(zip(keys, running[future], strict=True)), **future.result()}
            say(" ".join(f"{key} {value}" for key, value in row.items()))
            text = pd.DataFrame([row]).to_csv(
                header=not file.exists(), index=False, lineterminator="\n"
            )
            with file.open("a", encoding="utf-8", newline="\n") as rows:
                rows.write(text)
    kept = pd.read_csv(file)
    return kept[[key in wanted for key in kept[keys].itertuples(index=False, name=None)]]
