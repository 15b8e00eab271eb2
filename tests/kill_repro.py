"""Kill `make repro` at random moments, and check that it then continues to the same bytes.

    python -m tests.kill_repro --kills 1000

SIGKILL goes to all of its processes: make, DVC and the stages. The project is small (300 names,
trainings of a second or two), so that kills hit everything about equally often. Each round begins
either without outputs, or with those of other parameters, and ends when a start is not killed.
Then all outputs, including dvc.lock, are compared with those of a run that was never interrupted.
Prints each start that did not continue by itself, and the number of kills. Stages are forked from
a process that has imported torch already (tests/warm.py), which is three times as fast; --cold
turns this off.

With --one, only one process is killed or asked to end: make, DVC or a stage. The next start waits
until the others have ended, by themselves or along with it.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil

from tests.conftest import ROOT, Project, make_small
from tests.helpers import processes_in
from tests.warm import write_shim

LENGTH = {"epochs": "20", "compact.epochs": "10", "hybrid.epochs": "10"}
SEEDS = ("1", "2")
"""The rounds alternate between these values of the parameter `seed`."""
SHARE = 0.6
"""The latest moment of a kill, as a fraction of the time of a whole run."""
LINES = ("was damaged", "cleared it", "resuming after", "starts from scratch")
"""Messages that are counted in the output."""


@dataclass
class Result:
    """The result of the kills in one folder."""

    kills: int = 0
    rounds: int = 0
    failures: list[str] = field(default_factory=list)
    said: Counter[str] = field(default_factory=Counter)


@dataclass
class Make:
    """`make repro` with this Python and without setup.

    Attributes:
        venv: The virtual environment; None for one in the project that starts this Python.
        server: The process that stages are forked from, if any.
    """

    venv: Path | None = None
    server: psutil.Process | None = None

    def start(self, project: Project, log: Path) -> "subprocess.Popen[bytes]":
        venv = self.venv or project.path / ".venv"
        python = venv / "bin/python"
        if not python.exists():
            python.parent.mkdir(parents=True)
            python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
            python.chmod(0o755)
        for made in (venv / ".installed", project.path / ".dvc/vega.js"):
            made.touch()
        with log.open("wb") as file:
            return subprocess.Popen(
                ["make", "repro", f"VENV={venv}"],
                cwd=project.path,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self, project: Project, process: "subprocess.Popen[bytes]") -> None:
        """Kill the command and every process in the folder."""
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        calm = 0
        while calm < 3:  # a stage may be forking right now
            found = processes_in(project) + (self.server.children() if self.server else [])
            calm = 0 if found else calm + 1
            for its in found:
                with suppress(psutil.Error):
                    its.kill()
            psutil.wait_procs(found, timeout=5)
            time.sleep(0.005)

    def kill_one(
        self, project: Project, process: "subprocess.Popen[bytes]", chance: random.Random
    ) -> None:
        """Kill one process, or ask it to end, and wait until none is left in the folder."""
        with suppress(psutil.Error):
            victim = chance.choice([psutil.Process(process.pid), *processes_in(project)])
            victim.send_signal(chance.choice([signal.SIGKILL, signal.SIGTERM]))
        process.wait()
        while processes_in(project):
            time.sleep(0.05)


@contextmanager
def warm(folder: Path) -> Iterator[Make]:
    """Yield `make repro` whose stages are forked from a process that has imported torch."""
    folder.mkdir()
    address = folder / "socket"
    write_shim(folder / "bin", address)
    command = [sys.executable, "-m", "tests.warm", str(address), str(ROOT)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL) as server:
        while not address.exists():
            time.sleep(0.05)
        yield Make(folder, psutil.Process(server.pid))
        server.kill()


def contents(project: Project) -> dict[str, bytes]:
    files = {"dvc.lock": (project.path / "dvc.lock").read_bytes()}
    return files | {
        path: content for path, content in project.outputs().items() if ".gitignore" not in path
    }


def clear(project: Project, entirely: bool) -> None:
    """Remove DVC's run cache, so that all stages run; if `entirely`, all outputs and the cache."""
    shutil.rmtree(project.path / ".dvc/cache/runs", ignore_errors=True)
    if entirely:
        project.git("rm", "-r", "--quiet", "--cached", "--ignore-unmatch", "dvc.lock")
        for name in ("metrics", "plots", "dvc.lock", ".dvc/cache", ".dvc/tmp"):
            path = project.path / name
            path.unlink() if path.is_file() else shutil.rmtree(path, ignore_errors=True)
        for line in (project.path / "data/.gitignore").read_text().split():
            path = project.path / f"data{line}"
            path.unlink() if path.is_file() else shutil.rmtree(path, ignore_errors=True)


def work(project: Project, make: Make, seed: int, kills: int, one: bool) -> Result:
    """Kill and restart in one folder, for that many kills and until the last round has ended."""
    chance, result, log = random.Random(seed), Result(), project.path.with_suffix(".log")
    expected, whole = {}, 0.0
    for setting in SEEDS:
        project.set(seed=setting)
        clear(project, entirely=True)
        began = time.monotonic()
        assert make.start(project, log).wait() == 0, log.read_text()
        whole = time.monotonic() - began
        expected[setting] = contents(project)
    while result.kills < kills:
        result.rounds += 1
        setting = SEEDS[result.rounds % len(SEEDS)]
        clear(project, entirely=chance.random() < 0.5)
        project.set(seed=setting)
        while True:
            process = make.start(project, log)
            with suppress(subprocess.TimeoutExpired):
                process.wait(chance.uniform(0, SHARE * whole) if result.kills < kills else None)
            if ended := process.poll() is not None:
                make.kill(project, process)  # processes that it may have left running
            else:
                make.kill_one(project, process, chance) if one else make.kill(project, process)
                result.kills += 1
            text = log.read_text(errors="replace")
            result.said.update(line for line in LINES for _ in range(text.count(line)))
            if ended:
                break
        now, wanted = contents(project), expected[setting]
        others = [path for path in sorted({*now, *wanted}) if now.get(path) != wanted.get(path)]
        states = [path.name for path in (project.path / ".resume").glob("*.pt")]
        if process.returncode or others or states or "Traceback" in text:
            told = f"code {process.returncode}, other bytes {others}, states {states}\n{text}"
            result.failures.append(told)
            print(f"FAILURE after {result.kills} kills: {told}", flush=True)
            clear(project, entirely=True)
        if result.rounds % 10 == 0:
            print(f"{project.path.name}: {result.kills} kills, {dict(result.said)}", flush=True)
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=1, help="folders in which kills take place")
    parser.add_argument("--seed", type=int, default=1, help="of the moments")
    parser.add_argument("--cold", action="store_true", help="start each stage as a user would")
    parser.add_argument("--one", action="store_true", help="a single process; implies --cold")
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        folder = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="kills-", ignore_cleanup_errors=True)
        )
        template = make_small(Path(folder) / "template")
        template.set(**{name.replace(".", "__"): value for name, value in LENGTH.items()})
        projects, makes, cold = [], [], options.cold or options.one
        for number in range(options.jobs):
            target = Path(folder) / f"project-{number + 1}"
            shutil.copytree(template.path, target, symlinks=True)
            projects.append(Project(target))
            aside = Path(folder) / f"venv-{number + 1}"
            makes.append(Make() if cold else stack.enter_context(warm(aside)))
        each = -(-options.kills // options.jobs)
        with ThreadPoolExecutor(options.jobs) as pool:
            seeds = range(options.seed, options.seed + options.jobs)
            run = partial(work, kills=each, one=options.one)
            results = list(pool.map(run, projects, makes, seeds))
    kills, rounds = sum(its.kills for its in results), sum(its.rounds for its in results)
    failures = [failure for its in results for failure in its.failures]
    said = sum((its.said for its in results), Counter())
    print(f"{kills} kills in {rounds} rounds, {len(failures)} failures; said: {dict(said)}")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
