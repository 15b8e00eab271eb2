"""`dvc repro`, with the trainings side by side: `make repro` runs this.

DVC runs one stage after the other. The trainings do not depend on each other, so each gets a
`dvc repro` of its own, as many at once as there are cores; DVC takes turns over its files
by itself while no stage runs. The outputs and dvc.lock are those of a plain `dvc repro`.
"""

import argparse
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import FrameType

import networkx
import psutil
from dvc import cli
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.repo.reproduce import plan_repro
from dvc.stage import Stage
from dvc.utils.serialize import load_yaml, modify_yaml

from charlm.core.errors import InputError
from pipeline.check import check_copies, check_input
from stages import run

TRAINING = "train_"
"""What the name of a training stage starts with."""

stopping = threading.Event()
printing = threading.Lock()


@dataclass(frozen=True)
class Plan:
    """What is to be done, by the names of the stages.

    Attributes:
        outdated: all stages that changed, or that depend on one that did.
        trainings: those of them that train and wait for no other training.
        first: what has to be up to date before.
    """

    outdated: set[str]
    trainings: list[str]
    first: list[str]


def main() -> None:
    options = parse_options()
    if options.only:
        sys.exit(dvc("--wait-for-lock", "repro", "--single-item", options.only, last=False))
    signal.signal(signal.SIGTERM, terminate_stages)
    training = check_input().training
    at_once = options.at_once or max(1, cores() // (training.threads * training.processes))
    plan = None
    # What hinders DVC from looking at its files, it says itself when it is run.
    with suppress(DvcException, OSError), Repo() as repo, repo.lock:
        check_copies(repo)
        plan = look(repo)
    if plan and not plan.outdated:
        print("Data and pipelines are up to date.")
        return
    if plan and len(plan.trainings) > 1 and at_once > 1:
        if plan.outdated.intersection(plan.first):
            ended(dvc("repro", *plan.first, last=False))
            print(flush=True)
        train(plan.trainings, at_once)
        print(flush=True)
    ended(dvc("repro"))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m pipeline.side_by_side", description=__doc__)
    parser.add_argument("--at-once", type=int, metavar="N", help="how many trainings at once")
    parser.add_argument("--only", metavar="STAGE", help="run that one stage, waiting for the lock")
    return parser.parse_args()


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def dvc(*arguments: str, last: bool = True) -> int:
    """Run a command of DVC in this process, which has imported it; its exit code.

    The advice to track the changes with git is left to the last one.
    """
    level = logging.INFO if last else logging.WARNING
    logging.getLogger("dvc.repo.scm_context").setLevel(level)
    code: int = cli.main(list(arguments))
    return code


def ended(code: int) -> None:
    """End as the command of DVC did, if that was not well; it has said why."""
    if stopping.is_set():
        raise KeyboardInterrupt
    if code:
        sys.exit(code)


def look(repo: Repo) -> Plan:
    """Find out what is to be done, in the order in which DVC would do it."""
    graph = repo.index.graph  # from each stage to those that it depends on
    order = plan_repro(graph)
    outdated: set[Stage] = set()
    for stage in order:
        if stage.changed() or outdated.intersection(graph.successors(stage)):
            outdated.add(stage)
    waiting = [stage for stage in order if stage in outdated and is_training(stage.addressing)]
    ready = [s for s in waiting if not networkx.descendants(graph, s).intersection(waiting)]
    first = {before.addressing for stage in ready for before in graph.successors(stage)}
    return Plan(
        outdated={stage.addressing for stage in outdated},
        trainings=[stage.addressing for stage in ready],
        first=sorted(first),
    )


def is_training(stage: str) -> bool:
    return stage.startswith(TRAINING)


def train(stages: list[str], at_once: int) -> None:
    """Run training stages side by side, each through DVC.

    Where one fails the others go on, and are recorded. Ctrl-C, which reaches them too, is
    left to them: each keeps its state, puts back what it was about to replace, and ends.

    Raises InputError where one fails, KeyboardInterrupt where they were interrupted.
    """
    recorded = recorded_stages()
    before = signal.signal(signal.SIGINT, lambda number, frame: stopping.set())
    try:
        with ThreadPoolExecutor(at_once) as pool:
            run_one = partial(train_one, width=max(map(len, stages)))
            codes = dict(zip(stages, pool.map(run_one, stages), strict=True))
    finally:
        signal.signal(signal.SIGINT, before)
    put_in_order([*recorded, *(stage for stage in stages if stage not in recorded)])
    if stopping.is_set():
        raise KeyboardInterrupt
    if failed := [stage for stage, code in codes.items() if code]:
        raise InputError(
            f"{', '.join(failed)} failed, as said above; mend it and run the same command again"
        )


def train_one(stage: str, width: int) -> int:
    """Run a training stage and pass on what it says, each line after its name; the exit code."""
    if stopping.is_set():
        return 130
    command = [sys.executable, "-m", "pipeline.side_by_side", "--only", stage]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,  # which is no terminal: a training draws no bar there
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        if stopping.is_set():  # asked to end between the two
            process.terminate()
        for line in process.stdout or ():
            with printing:
                print(f"{stage:{width}} | {line}", end="", flush=True)
    return process.returncode


def terminate_stages(number: int, frame: FrameType | None) -> None:
    """Pass a request to end (SIGTERM) on to the stages that run; they take it as Ctrl-C.

    DVC passes on nothing: it would end at once, and leave its stage behind.
    """
    stopping.set()
    running = psutil.Process().children(recursive=True)
    if not running:
        raise KeyboardInterrupt
    for process in running:
        with suppress(psutil.Error):
            if not process.children():  # not DVC, which waits for it, nor a shell in between
                process.terminate()


def recorded_stages() -> list[str]:
    """The stages in dvc.lock, in its order."""
    try:
        return list(load_yaml("dvc.lock")["stages"])
    except FileNotFoundError:
        return []


def put_in_order(stages: Iterable[str]) -> None:
    """Sort dvc.lock, to whose end DVC adds a new stage when it is done: not as it happened."""
    recorded = recorded_stages()
    wanted = [stage for stage in stages if stage in recorded]
    if recorded == wanted:
        return
    with Repo() as repo, repo.lock, modify_yaml("dvc.lock") as lock:
        for stage in wanted:
            lock["stages"][stage] = lock["stages"].pop(stage)


if __name__ == "__main__":
    run(main)
