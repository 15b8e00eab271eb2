"""Run the whole pipeline with several seeds through DVC's queue.

A configuration is queued by `dvc exp run --queue --name NAME -S seed=1,2,3 -S KEY=VALUE ...`; DVC
names the experiments NAME-1, NAME-2, NAME-3. Each runs in its own folder, so the workspace is not
changed.
"""

import io
import json
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import pandas as pd
from dvc.repo import Repo

from benchmarks.turns import say

WAITING = ("Queued", "Running")
POLL_SECONDS = 2.0
RESTART_SECONDS = 15.0
PATIENCE_SECONDS = 60.0
"""How long the queue may be idle, for example while its workers start."""


def command(name: str, assignments: Iterable[str], seeds: Sequence[int]) -> list[str]:
    """Return the command that queues a configuration for each seed."""
    values = [f"seed={','.join(map(str, seeds))}", *assignments]
    options = [word for value in values for word in ("-S", value)]
    return ["dvc", "exp", "run", "--queue", "--name", name, *options]


def experiments(name: str, seeds: Sequence[int]) -> dict[int, str]:
    """Return the names of the experiments that `command` queues, by seed."""
    if len(seeds) == 1:
        return {seeds[0]: name}
    return {seed: f"{name}-{number}" for number, seed in enumerate(seeds, start=1)}


def finished() -> dict[str, str]:
    """Return the revisions of the finished experiments of HEAD, by name."""
    with Repo() as repo:
        listed = repo.experiments.ls().values()
    return {name: revision for experiments in listed for name, revision in experiments}


def queued() -> dict[str, str]:
    """Return the latest status of each name in the queue: Queued, Running, Success or Failed."""
    with Repo() as repo:
        tasks = repo.experiments.celery_queue.status()
    tasks.sort(key=lambda task: task["timestamp"])
    return {str(task["name"]): str(task["status"]) for task in tasks}


def refuse_others(names: Collection[str]) -> None:
    """Exit if the queue has experiments other than `names`, since it would run them too."""
    waiting = [name for name, state in queued().items() if state in WAITING]
    if others := sorted(set(waiting) - set(names)):
        first = f"{others[0]} and {len(others) - 1} more are" if others[1:] else f"{others[0]} is"
        sys.exit(
            f"error: {first} in the queue and would run, too; run the queue first with: dvc queue "
            "start, or empty it with: dvc exp remove --queue"
        )


def enqueue(name: str, assignments: Sequence[str], seeds: Sequence[int]) -> list[str]:
    """Queue experiments that are neither finished nor queued; return the names of all unfinished.

    Raises CalledProcessError if dvc fails; it prints the reason.
    """
    its, there, states = experiments(name, seeds), finished(), queued()
    missing = {seed: one for seed, one in its.items() if one not in there}
    idle = [seed for seed, one in missing.items() if states.get(one) not in WAITING]
    if idle == list(seeds):
        subprocess.run(command(name, assignments, seeds), check=True)
    else:
        for seed in idle:
            subprocess.run(command(its[seed], assignments, [seed]), check=True)
    return list(missing.values())


def run(names: Collection[str], jobs: int) -> None:
    """Run the queue, `jobs` at a time, until all of `names` have ended.

    Exits if one of them failed, or if nothing in the queue is running.
    """
    start = ["dvc", "queue", "start", "--jobs", str(jobs)]
    subprocess.run(start, check=True)
    waiting, failed = set(names), []
    moved = started = time.monotonic()
    while waiting:
        time.sleep(POLL_SECONDS)
        now, states = time.monotonic(), queued()
        for name in sorted(waiting):
            if (state := states.get(name, "Removed")) in WAITING:
                continue
            waiting.remove(name)
            say(f"{name}: {state.lower()}, {len(names) - len(waiting)} of {len(names)}")
            if state != "Success":
                failed.append(name)
        if "Running" in states.values():
            moved = now
        elif waiting and now - moved > PATIENCE_SECONDS:
            sys.exit("error: nothing in the queue is running; start it with: dvc queue start")
        # An idle worker may have exited just as the queue was started.
        if now - started > RESTART_SECONDS and "Queued" in map(states.get, waiting):
            subprocess.run([*start, "--quiet"], check=True)
            started = now
    if failed:
        sys.exit(f"error: no result of {', '.join(failed)}; see: dvc queue logs {failed[0]}")


def forget(names: Collection[str]) -> None:
    """Remove the experiments with these names, also from the queue, whatever their state."""
    while running := [n for n, state in queued().items() if n in names and state == "Running"]:
        subprocess.run(["dvc", "queue", "kill", *running], check=False)
        time.sleep(POLL_SECONDS)
    # Of several tasks with the same name, dvc removes one at a time.
    while known := sorted(set(names) & (queued().keys() | finished().keys())):
        subprocess.run(["dvc", "exp", "remove", "--quiet", *known], check=True)


def read(revision: str, path: str) -> str:
    """Read a file of an experiment that git tracks, such as metrics and histories."""
    shown = subprocess.run(
        ["git", "show", f"{revision}:{path}"], check=True, capture_output=True, encoding="utf-8"
    )
    return shown.stdout


def metrics(revision: str) -> dict[str, dict[str, Any]]:
    """Read all metrics of an experiment, by model."""
    table = pd.read_csv(io.StringIO(read(revision, "plots/evaluation/models.csv")))
    of_models: Any = table.set_index("model").to_dict("index")
    of_samples = json.loads(read(revision, "metrics/samples.json"))
    return {model: {**its, **of_samples.get(model, {})} for model, its in of_models.items()}
