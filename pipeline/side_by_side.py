"""Run `dvc repro`, training several models in parallel. `make repro` runs this.

DVC runs one stage at a time. Here, each training stage runs in its own `dvc repro` as soon as those
that it depends on are done, with as many in parallel as there are cores. This works because DVC's
lock is free while a stage runs. The outputs and dvc.lock are the same as with a plain `dvc repro`.
"""

from charlm.core.interrupts import defer_interrupts

if __name__ == "__main__":  # the imports take a second
    defer_interrupts()

import argparse
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType

import networkx
import psutil
from dvc import cli
from dvc.repo import Repo
from dvc.repo.reproduce import plan_repro
from dvc.stage import Stage
from dvc.utils.serialize import modify_yaml, parse_yaml

from charlm.core.errors import InputError
from pipeline.cache import recorded_outputs, restorable_outputs
from pipeline.check import check_copies, check_input
from pipeline.clone import git
from pipeline.put_back import DVC_ERRORS, put_back_outputs
from pipeline.recorded import recorded_stages, refusing_other_inputs
from pipeline.recovery import clear_locks, repair
from stages import handle_signals, ignore_interrupts, run

TRAINING = "train_"
"""Prefix of the names of the training stages."""

stopping = threading.Event()
printing = threading.Lock()


@dataclass(frozen=True)
class Plan:
    """The stages to run.

    Attributes:
        outdated: all stages that changed, or that depend on one that did.
        trainings: the outdated training stages, each with those it depends on, in the order in
            which to start them: first those that others depend on, then the rest in reverse order
            (the first one takes the least time), and last those without epochs (counts).
        first: the stages that the training stages depend on.
        order: all stages, in the order in which a plain `dvc repro` has them in `dvc.lock`: as in
            the committed file, then new ones in the order in which they run.
    """

    outdated: set[str]
    trainings: dict[str, set[str]]
    first: list[str]
    order: list[str]


def main() -> None:
    options = parse_options()
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, interrupt_once)
    if options.only:
        run_only(options.only)
        return
    handle_signals(terminate_stages)
    training = check_input().training
    at_once = options.at_once or max(1, cores() // (training.threads * training.processes))
    plan = None
    # DVC reports its own errors when it runs.
    with suppress(*DVC_ERRORS), Repo() as repo:
        clear_locks(repo)
        with repo.lock:
            repair(repo)
            check_copies(repo, recorded_outputs(repo))
            plan = make_plan(repo)
            check_copies(repo, restorable_outputs(repo, plan.outdated))
    try:
        if plan and not plan.outdated:
            print("Data and pipelines are up to date.")
        else:
            reproduce(plan, at_once)
    finally:
        if plan:
            put_in_order(plan.order)


def run_only(stage: str) -> None:
    """Run a single stage with `dvc repro`; restore its outputs if it fails or is interrupted."""
    handle_signals(interrupt_once)
    try:
        code = dvc("--wait-for-lock", "repro", "--single-item", stage, stage=stage, last=False)
    except KeyboardInterrupt:
        code = 130
    exit_on_failure(code, stage)


def interrupt_once(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt on the first signal only, because what follows must complete."""
    if not stopping.is_set():
        stopping.set()
        raise KeyboardInterrupt


def reproduce(plan: Plan | None, at_once: int) -> None:
    """Run the outdated stages: those that train in parallel, all others with `dvc repro`."""
    if plan and len(plan.trainings) > 1 and at_once > 1:
        if plan.outdated.intersection(plan.first):
            exit_on_failure(dvc("repro", *plan.first, last=False))
            print(flush=True)
        train(plan.trainings, at_once)
        print(flush=True)
    exit_on_failure(dvc("repro"))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m pipeline.side_by_side", description=__doc__)
    parser.add_argument("--at-once", type=int, metavar="N", help="models to train in parallel")
    parser.add_argument("--only", metavar="STAGE", help="run a single stage; wait for DVC's lock")
    return parser.parse_args()


def cores() -> int:
    """Return the number of cores that this process can use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def dvc(*arguments: str, stage: str | None = None, last: bool = True) -> int:
    """Run a DVC command in this process and return its exit code.

    Only the last command prints DVC's advice to track the changes with git. Raises InputError if
    `stage` (by default, any stage) was recorded with different inputs than it ran with.
    """
    level = logging.INFO if last else logging.WARNING
    logging.getLogger("dvc.repo.scm_context").setLevel(level)
    with refusing_other_inputs(stage):
        try:
            code: int = cli.main(list(arguments))
        except OSError:  # DVC cannot print
            code = 1
    return code


def exit_on_failure(code: int, stage: str | None = None) -> None:
    """Exit with the code of a DVC command if it failed. DVC has printed the error.

    DVC has also removed the outputs of the failed stage. If the stage was killed or could not
    start, it has not restored them, so they are restored here. `stage` is its name, if known.
    """
    if code:
        ignore_interrupts()
        put_back_outputs(stage)
    if stopping.is_set():
        raise KeyboardInterrupt
    if code:
        sys.exit(code)


def make_plan(repo: Repo) -> Plan:
    """Determine the stages to run."""
    graph = repo.index.graph  # edges from each stage to its dependencies
    order = plan_repro(graph)
    outdated: set[Stage] = set()
    for stage in order:
        if stage.changed() or outdated.intersection(graph.successors(stage)):
            outdated.add(stage)
    waiting = [stage for stage in order if stage in outdated and is_training(stage.addressing)]
    needs = {stage: networkx.descendants(graph, stage) for stage in waiting}
    others = {before for needed in needs.values() for before in needed.difference(waiting)}
    first = {s for s in others if not networkx.descendants(graph, s).intersection(waiting)}
    trainings = [s for s in reversed(waiting) if needs[s] <= first.union(waiting)]
    trainings.sort(
        key=lambda stage: (
            not has_epochs(stage),
            -sum(stage in needed for needed in needs.values()),
        )
    )
    return Plan(
        outdated={stage.addressing for stage in outdated},
        trainings={
            stage.addressing: {needed.addressing for needed in needs[stage].intersection(trainings)}
            for stage in trainings
        },
        first=sorted(stage.addressing for stage in first),
        order=[*committed_stages(), *(stage.addressing for stage in order)],
    )


def is_training(stage: str) -> bool:
    return stage.startswith(TRAINING)


def has_epochs(stage: Stage) -> bool:
    """Return whether the stage depends on the parameter `epochs`: it trains on batches."""
    return any("epochs" in parameters.params for parameters in stage.params)


def train(stages: Mapping[str, set[str]], at_once: int) -> None:
    """Run training stages in parallel through DVC, each once those that it depends on are done.

    If one fails, the others continue and are recorded. Ctrl-C also reaches the stages: each saves
    its state, restores its previous outputs, and exits.

    Raises InputError if one fails, and KeyboardInterrupt if they were interrupted.
    """
    before = signal.signal(signal.SIGINT, lambda number, frame: stopping.set())
    try:
        with ThreadPoolExecutor(at_once) as pool:
            width = max(map(len, stages))
            codes, running = dict[str, int](), dict[Future[int], str]()
            while True:
                done = {stage for stage, code in codes.items() if code == 0}
                for stage, needs in stages.items():
                    started = stage in codes or stage in running.values()
                    if not started and needs <= done:
                        running[pool.submit(train_one, stage, width)] = stage
                if not running:
                    break
                # With a timeout, since on Windows Python handles Ctrl-C only after the wait.
                for future in wait(running, timeout=1, return_when=FIRST_COMPLETED).done:
                    codes[running.pop(future)] = future.result()
    finally:
        signal.signal(signal.SIGINT, before)
    if stopping.is_set():
        raise KeyboardInterrupt
    if failed := [stage for stage, code in codes.items() if code]:
        raise InputError(
            f"{', '.join(failed)} failed (see above); fix the problem and run the same command "
            "again"
        )


def train_one(stage: str, width: int) -> int:
    """Run a training stage, print its output with its name as prefix; return its exit code."""
    if stopping.is_set():
        return 130
    command = [sys.executable, "-m", "pipeline.side_by_side", "--only", stage]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,  # not a terminal, so there are no progress bars
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ) as process:
        if stopping.is_set():  # interrupted just before it was started
            process.terminate()
        for line in process.stdout or ():
            if line.startswith("Use `dvc push`"):  # the last command prints this once
                continue
            with printing, suppress(OSError):  # the terminal can be closed
                print(f"{stage:{width}} | {line}", end="", flush=True)
    return process.returncode


def terminate_stages(number: int, frame: FrameType | None) -> None:
    """Forward SIGTERM or SIGHUP to the running stages, which treat it like Ctrl-C.

    DVC would not forward the signal, but exit at once and leave its stage running.
    """
    stopping.set()
    running = psutil.Process().children(recursive=True)
    if not running:
        raise KeyboardInterrupt
    for process in running:
        with suppress(psutil.Error):
            if not process.children():  # the stage, not a shell or DVC that waits for it
                process.terminate()


def committed_stages() -> list[str]:
    """Return the stages in the `dvc.lock` of HEAD, in order; empty if there is no such file."""
    committed = git("show", "HEAD:./dvc.lock")
    return list(parse_yaml(committed, "dvc.lock")["stages"]) if committed else []


def put_in_order(stages: Iterable[str]) -> None:
    """Sort `dvc.lock`, because DVC appends new stages in the order in which they finish."""
    with suppress(*DVC_ERRORS), Repo() as repo, repo.lock:  # fails if another DVC is running
        recorded = list(recorded_stages())
        wanted = [stage for stage in dict.fromkeys([*stages, *recorded]) if stage in recorded]
        if recorded != wanted:
            with modify_yaml("dvc.lock") as lock:
                for stage in wanted:
                    lock["stages"][stage] = lock["stages"].pop(stage)


if __name__ == "__main__":
    run(main)
