"""Fixtures: a small copy of the project, run once with real `dvc` and copied for each test."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock
from playwright.sync_api import Browser
from ruamel.yaml import YAML

from charlm.core.params import load_params
from charlm.core.pinning import pin_kernels
from tests.browser import Pages, opened_pages
from tests.chromium import NoChromiumError, running
from tests.warm import write_shim

pin_kernels()  # before any test imports NumPy or torch

ROOT = Path(__file__).resolve().parent.parent

if sys.platform != "linux":
    # These start, watch and end processes in ways that only Linux supports. On other systems, the
    # workflow runs tests/unit and the pipeline at a small size.
    collect_ignore = ["benchmarks", "experiments", "pipeline", "project", "report"]

SMALL = {
    "names.path": "data/few.txt",
    "epochs": "2",
    "compact.epochs": "2",
    "compact.channels": "20",
    "hybrid.epochs": "2",
    "hybrid.channels": "20",
    "sample.count": "20",
}
FEW = 300

LONG = {"epochs": "120", "compact.epochs": "50", "hybrid.epochs": "50"}
"""Parameters that make a training of the small project last a few seconds."""

MODELS = load_params(ROOT / "params.yaml").models
TRAINED = load_params(ROOT / "params.yaml").trained_models

STAGES = list(YAML(typ="safe", pure=True).load(ROOT / "dvc.yaml")["stages"])

IN_TURN = [stage for stage in STAGES if stage != "train_compact"]
IN_TURN.insert(IN_TURN.index("train_hybrid") + 1, "train_compact")
"""The stages in the order in which they run: the compact net is distilled from the hybrid."""


@dataclass
class Ran:
    """The output and exit code of a command."""

    code: int
    text: str

    def _stages(self, pattern: str) -> list[str]:
        return re.findall(pattern, self.text, flags=re.MULTILINE)

    @property
    def stages(self) -> list[str]:
        """The stages that were run, in order."""
        return self._stages(r"^Running stage '(\w+)'")

    @property
    def cached(self) -> list[str]:
        """The stages whose outputs were taken from DVC's run cache."""
        return self._stages(r"^Stage '(\w+)' is cached - skipping run")

    @property
    def unchanged(self) -> list[str]:
        return self._stages(r"^Stage '(\w+)' didn't change, skipping")


@dataclass
class Project:
    """A checkout of the project in a folder of its own."""

    path: Path

    def run(self, *command: str, code: int | None = 0, **env: str) -> Ran:
        """Run a command in the checkout; fail the test if its exit code is not `code`."""
        folders = [*WARM, str(Path(sys.executable).parent), os.environ["PATH"]]
        path = os.pathsep.join(folders)
        environment = {**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1", **env}
        program = shutil.which(command[0], path=environment["PATH"]) or command[0]  # for Windows
        done = subprocess.run(
            [program, *command[1:]],
            cwd=self.path,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert code is None or done.returncode == code, done.stdout
        return Ran(done.returncode, done.stdout)

    def dvc(self, *arguments: str, code: int | None = 0, **env: str) -> Ran:
        return self.run("dvc", *arguments, code=code, **env)

    def git(self, *arguments: str) -> str:
        return self.run("git", *arguments).text

    def stage(self, name: str, code: int = 0) -> Ran:
        return self.run("python", "-m", f"stages.{name}", code=code)

    def set(self, **parameters: str) -> None:
        """Set parameters, `__` standing for the dot: `set(lr="0.1", fcn__lr="")`."""
        set_params(self.path, {key.replace("__", "."): value for key, value in parameters.items()})

    def commit(self, message: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)

    def outputs(self) -> dict[str, bytes]:
        """Return everything that the pipeline writes, by path."""
        folders = ("data", "metrics", "plots")
        files = [file for folder in folders for file in (self.path / folder).rglob("*")]
        return {str(f.relative_to(self.path)): f.read_bytes() for f in files if f.is_file()}

    def clone(self, path: Path) -> "Project":
        self.git("clone", "--quiet", ".", str(path))
        clone = Project(path)
        clone.sign()
        return clone

    def sign(self) -> None:
        self.git("config", "user.name", "Tester")
        self.git("config", "user.email", "tester@example.com")


def start(project: Project, *command: str) -> "subprocess.Popen[str]":
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.Popen(
        command,
        cwd=project.path,
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # A shell makes its background processes ignore Ctrl-C, and we would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )


def wait_for_state(project: Project, process: "subprocess.Popen[str] | None" = None) -> None:
    """Wait until the training has saved its first state."""
    deadline = time.monotonic() + 120
    while not list((project.path / ".resume").glob("*.pt")):
        assert process is None or process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def run_queue(project: Project, count: int) -> None:
    """Run queued experiments, two at a time, until that many have succeeded."""
    start(project, "dvc", "queue", "start", "-j", "2")  # its workers keep the pipe open
    try:
        wait_for_queue(project, count)
    finally:  # a worker may miss that it should end
        project.dvc("queue", "stop", "--kill", code=None)


def wait_for_queue(project: Project, count: int) -> None:
    """Wait until that many queued experiments have succeeded."""
    deadline = time.monotonic() + 300
    status = ""
    while status.count("Success") < count:
        failed = re.findall(r"(\S+) .*Failed", status)
        logs = [project.dvc("queue", "logs", task, code=None).text for task in failed]
        assert "Failed" not in status, "\n".join(logs)
        assert time.monotonic() < deadline, status
        time.sleep(0.5)
        status = project.dvc("queue", "status").text


def set_params(folder: Path, parameters: dict[str, str]) -> None:
    """Set values in params.yaml without checking them, and keep its comments."""
    file = folder / "params.yaml"
    text = file.read_text(encoding="utf-8")
    for name, value in parameters.items():
        section, _, key = name.rpartition(".")
        inside = rf"^{section}:.*\n(?:[ #].*\n)*?  " if section else "^"
        line = re.compile(rf"({inside}{key}:)[^#\n]*", flags=re.MULTILINE)
        assert line.search(text), name
        text = line.sub(lambda found, value=value: f"{found[1]} {value} ", text, count=1)
    file.write_text(text, encoding="utf-8")


def copy_checkout(target: Path) -> Project:
    """Copy the working tree, as git would commit it now, into a new repository."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    for kernel in ROOT.glob("charlm/*/__pycache__/*.nbc"):  # compiled kernels, if any
        (target / kernel.relative_to(ROOT)).parent.mkdir(exist_ok=True)
        shutil.copy2(kernel, target / kernel.relative_to(ROOT))
    project = Project(target)
    project.git("init", "--quiet", "--initial-branch", "main")
    project.sign()
    return project


def make_small(target: Path) -> Project:
    """Create the project with few names and small models, run it once and commit it."""
    project = copy_checkout(target)
    names = (target / "data/prenoms.txt").read_text(encoding="utf-8").split("\n")[:FEW]
    (target / "data/few.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    set_params(target, SMALL)
    (target / "dvc.lock").unlink()  # it lists a model added later at its end
    project.commit("A small project")
    ran = project.dvc("repro")
    (target / ".git" / "first-repro.txt").write_text(ran.text, encoding="utf-8")
    project.commit("Its first run")
    return project


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the files that use the small project, so that one worker makes it.

    The other workers start in the middle, and the last to finish take over what is left.
    """
    users = {item.path for item in items if "template" in getattr(item, "fixturenames", ())}
    items.sort(key=lambda item: item.path not in users)


WARM: list[str] = []
"""A folder for PATH whose `python` starts stages at once (tests/warm.py), while it runs."""


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    if sys.platform != "linux":  # a process with so many imports cannot fork on macOS
        yield
        return
    folder = tmp_path_factory.mktemp("warm")
    address = folder / "socket"
    log = (folder / "log").open("wb")
    command = [sys.executable, "-m", "tests.warm", str(address), str(ROOT)]
    server = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
    )
    write_shim(folder / "bin", address)
    while not address.exists():
        assert server.poll() is None, (folder / "log").read_text()
        time.sleep(0.05)
    WARM.append(str(folder / "bin"))
    yield
    WARM.clear()
    server.kill()
    server.wait()
    log.close()


def made_once(target: Path, make: Callable[[Path], object]) -> Project:
    """Return a project that is made once, by the first worker whose tests need it."""
    done = target.with_suffix(".made")
    with FileLock(target.with_suffix(".lock")):
        if not done.exists():
            shutil.rmtree(target, ignore_errors=True)
            make(target)
            done.touch()
    return Project(target)


@pytest.fixture(scope="session")
def template(warm: None, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Project:
    """The small project, made by the first worker that needs it. Tests must not change it."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    return made_once(shared / "template", make_small)


def made_longer(begun: Project, name: str, stages: Iterable[str]) -> Project:
    """Copy the small project, make its trainings longer, and run some more stages."""

    def make(target: Path) -> None:
        shutil.copytree(begun.path, target, symlinks=True)
        project = Project(target)
        project.set(**LONG)
        for stage in stages:
            project.stage(stage)

    return made_once(begun.path.parent / name, make)


@pytest.fixture(scope="session")
def uninterrupted(template: Project) -> Project:
    """The small project with a longer, uninterrupted training of the WaveNet."""
    return made_longer(template, "uninterrupted", ["train_wavenet"])


@pytest.fixture(scope="session")
def all_uninterrupted(uninterrupted: Project) -> Project:
    """The small project with longer, uninterrupted trainings of all models, and an evaluation."""
    others = [it for it in IN_TURN if it.startswith("train_") and it != "train_wavenet"]
    return made_longer(uninterrupted, "all_uninterrupted", [*others, "evaluate"])


@pytest.fixture
def project(template: Project, tmp_path: Path) -> Iterator[Project]:
    """A copy of the small project, already run and committed, for one test to change."""
    target = tmp_path / "project"
    shutil.copytree(template.path, target, symlinks=True)
    yield Project(target)
    shutil.rmtree(target, ignore_errors=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium for one module, because Playwright keeps an event loop running."""
    with ExitStack() as stack:
        try:
            started = stack.enter_context(running())
        except NoChromiumError as error:
            raise pytest.fail.Exception(str(error), pytrace=False) from None
        yield started


@pytest.fixture
def pages(browser: Browser) -> Iterator[Pages]:
    """Opens pages from disk; fails if a page logged an error or made a network request."""
    with opened_pages(browser) as opened:
        yield opened
