"""Runs of the whole pipeline, a configuration over several seeds, through DVC's queue.

A configuration over seeds is one command, `dvc exp run --queue --name NAME -S seed=1,2,3
-S KEY=VALUE ...`, whose experiments DVC calls NAME-1, NAME-2, NAME-3. Each runs in a folder of
its own, so the workspace stays as it is.
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
"""How long a queue may stand still, as while its workers start."""


def command(name: str, assignments: Iterable[str], seeds: Sequence[int]) -> list[str]:
    """What queues a configuration once for each seed."""
    values = [f"seed={','.join(map(str, seeds))}", *assignments]
    options = [word for value in values for word in ("-S", value)]
    return ["dvc", "exp", "run", "--queue", "--name", name, *options]


def experiments(name: str, seeds: Sequence[int]) -> dict[int, str]:
    """The names of the experiments that it queues, by seed."""
    if len(seeds) == 1:
        return {seeds[0]: name}
    return {seed: f"{name}-{number}" for number, seed in enumerate(seeds, start=1)}


def finished() -> dict[str, str]:
    """The revisions of this commit's experiments by name."""
    with Repo() as repo:
        listed = repo.experiments.ls().values()
    return {name: revision for experiments in listed for name, revision in experiments}


def queued() -> dict[str, str]:
    """Queued, Running, Success or Failed: each name that the queue knows, as it ended last."""
    with Repo() as repo:
        tasks = repo.experiments.celery_queue.status()
    tasks.sort(key=lambda task: task["timestamp"])
    return {str(task["name"]): str(task["status"]) for task in tasks}


def refuse_others(names: Collection[str]) -> None:
    """End the program where the queue holds others than `names`, as it would run them too."""
    waiting = [name for name, state in queued().items() if state in WAITING]
    if others := sorted(set(waiting) - set(names)):
        first = f"{others[0]} and {len(others) - 1} more are" if others[1:] else f"{others[0]} is"
        sys.exit(
            f"error: {first} in the queue, which runs all that it holds; run them first: dvc queue "
            "start; or remove them: dvc exp remove --queue"
        )


def enqueue(name: str, assignments: Sequence[str], seeds: Sequence[int]) -> list[str]:
    """Queue what this commit has not run, nor the queue holds; the names of all not run yet.

    Raises CalledProcessError where dvc refuses, which says why.
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
    """Run what is queued, `jobs` at a time, until all of `names` have ended.

    Ends the program where one of them failed, or where nothing in the queue runs.
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
        # A worker that had nothing to do may have been about to end when it was counted on.
        if now - started > RESTART_SECONDS and "Queued" in map(states.get, waiting):
            subprocess.run([*start, "--quiet"], check=True)
            started = now
    if failed:
        sys.exit(f"error: no result of {', '.join(failed)}; see: dvc queue logs {failed[0]}")


def forget(names: Collection[str]) -> None:
    """Remove experiments of these names, from the queue too, whatever their state."""
    while running := [n for n, state in queued().items() if n in names and state == "Running"]:
        subprocess.run(["dvc", "queue", "kill", *running], check=False)
        time.sleep(POLL_SECONDS)
    # Of several tasks with one name it removes one.
    while known := sorted(set(names) & (queued().keys() | finished().keys())):
        subprocess.run(["dvc", "exp", "remove", "--quiet", *known], check=True)


def read(revision: str, path: str) -> str:
    """A file of an experiment: of those in git, where metrics and histories are."""
    shown = subprocess.run(
        ["git", "show", f"{revision}:{path}"], check=True, capture_output=True, text=True
    )
    return shown.stdout


def metrics(revision: str) -> dict[str, dict[str, Any]]:
    """Read all that was measured of an experiment's models and n-gram models, by model."""
    table = pd.read_csv(io.StringIO(read(revision, "plots/evaluation/models.csv")))
    of_models: dict[str, dict[str, Any]] = table.set_index("model").to_dict("index")
    of_samples = json.loads(read(revision, "metrics/samples.json"))
    return {model: {**its, **of_samples.get(model, {})} for model, its in of_models.items()}
