"""run.py: what setup installs and when, what is refused before it, and what the commands run.

The commands of .venv are stubs that log how they are called, in a folder that has git and the files
that setup reads.
"""

import ast
import json
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import run
from tests.conftest import ROOT

FILES = (
    "Makefile",
    "charlm/__init__.py",
    "charlm/core/__init__.py",
    "charlm/core/errors.py",
    "charlm/core/pinning.py",
    "constraints.txt",
    "pipeline/vega.py",
    "requirements-dev.txt",
    "requirements-plots.txt",
    "requirements.txt",
    "run.py",
    "tests/chromium.py",
)
STUB = """#!/bin/sh
echo "$(basename "$0") $*" >> "$(dirname "$0")/../../ran"
case "$*" in *pipeline.vega*) touch .dvc/vega.js ;; esac
"""
PIPELINE = ["python -m ensurepip", "python -m pip install --requirement requirements.txt"]
PLOTS = [
    "python -m pip install --requirement requirements-plots.txt",
    "python -m pipeline.vega",
]
DEV = ["python -m pip install --requirement requirements-dev.txt"]
REPRO = ["python -m pipeline.side_by_side"]
EARLIER = 1_500_000_000
"""The modification time of the files, in seconds."""


class Checkout:
    """A folder with run.py, git, and a .venv of stubs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for name in FILES:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, path / name)
            os.utime(path / name, (EARLIER, EARLIER))
        (path / ".dvc").mkdir()
        subprocess.run(["git", "init", "--quiet", path], check=True)
        self.script("python", STUB)

    def script(self, name: str, text: str) -> None:
        file = self.path / ".venv/bin" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        file.chmod(stat.S_IRWXU)

    def set_up(self) -> None:
        """Create the stamp files that a complete setup leaves behind."""
        for name in (".venv/.installed", ".venv/.installed-dev", ".venv/.chromium", ".dvc/vega.js"):
            (self.path / name).touch()
            os.utime(self.path / name, (EARLIER + 1, EARLIER + 1))

    def start(self, *command: str, **env: str) -> "subprocess.Popen[str]":
        environment = {name: value for name, value in os.environ.items() if name != "MAKELEVEL"}
        return subprocess.Popen(
            command,
            cwd=self.path,
            env={**environment, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def called(self, *command: str, code: int = 0, **env: str) -> str:
        """Return what a command prints; fail the test if its exit code is not `code`."""
        with self.start(*command, **env) as process:
            text = process.communicate()[0]
        assert process.returncode == code, text
        return text

    def run(self, *arguments: str, code: int = 0, **env: str) -> str:
        return self.called(sys.executable, "run.py", *arguments, code=code, **env)

    def refused(self, *arguments: str, **env: str) -> str:
        """Return the line with which run.py ends before it has run anything."""
        text = self.run(*arguments, code=1, **env)
        assert re.fullmatch(r"error: .*\n", text), text
        assert self.ran() == []
        return text

    def ran(self) -> list[str]:
        """Return how the stubs were called since the last call."""
        log = self.path / "ran"
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "names")


def test_setup_installs_only_what_a_command_needs_and_only_once(checkout: Checkout) -> None:
    checkout.run()
    assert checkout.ran() == [*PIPELINE, *PLOTS, *REPRO]
    assert "is ready" in checkout.run("setup")
    assert checkout.ran() == []
    checkout.run("test")
    assert checkout.ran() == [
        *DEV,
        "python -m tests.chromium",
        "python -m pytest -n 2 --dist worksteal -m not slow",
    ]
    for command in ("verify", "test-slow", "hooks", "repro"):
        checkout.run(command)
        assert len(checkout.ran()) == 1


@pytest.mark.parametrize(
    ("changed", "command", "again"),
    [
        ("requirements.txt", "verify", PIPELINE),
        ("constraints.txt", "verify", PIPELINE),
        ("requirements-plots.txt", "repro", PLOTS),
        ("pipeline/vega.py", "repro", PLOTS),
        ("requirements-dev.txt", "hooks", DEV),
        ("requirements-plots.txt", "hooks", DEV),
        ("requirements.txt", "hooks", [*PIPELINE, *DEV]),
        ("requirements.txt", "repro", [*PIPELINE, *PLOTS]),
        ("requirements-dev.txt", "test", [*DEV, "python -m tests.chromium"]),
        ("tests/chromium.py", "test", ["python -m tests.chromium"]),
    ],
)
def test_setup_runs_again_if_a_file_that_it_reads_changes(
    changed: str, command: str, again: list[str], checkout: Checkout
) -> None:
    checkout.set_up()
    os.utime(checkout.path / changed)
    checkout.run(command)
    ran = checkout.ran()
    assert ran[:-1] == again
    checkout.run(command)
    assert checkout.ran() == ran[-1:], "it is up to date now"


def test_a_failed_setup_is_reported_in_one_line_and_tried_again(checkout: Checkout) -> None:
    checkout.script("python", STUB + "case $* in *pip*) echo pip: no network; exit 7;; esac\n")
    text = checkout.run("repro", code=1)
    assert text.splitlines()[-2:] == [
        "pip: no network",
        "error: setup failed (see above); fix the cause and run the same command again (if it "
        "still fails, delete .venv first)",
    ]
    assert not (checkout.path / ".venv/.installed").exists()
    assert checkout.ran() == PIPELINE[:1]
    checkout.script("python", STUB)
    checkout.run("repro")
    assert checkout.ran() == [*PIPELINE, *PLOTS, *REPRO]


def test_an_environment_without_its_python_is_recreated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commands = recorded(monkeypatch, tmp_path)
    (tmp_path / ".installed").touch()
    run.set_up("pipeline")
    assert commands[0] == [sys.executable, "-m", "venv", str(tmp_path)]
    (tmp_path / "pyvenv.cfg").touch()
    run.set_up("pipeline")
    assert commands[2] == [sys.executable, "-m", "venv", "--clear", str(tmp_path)]


def recorded(monkeypatch: pytest.MonkeyPatch, venv: Path) -> list[list[str]]:
    """Replace the environment; return a list that collects the commands instead of running them."""
    commands: list[list[str]] = []
    monkeypatch.setattr(run, "VENV", venv)
    monkeypatch.setattr(run, "PYTHON", venv / "bin/python")
    monkeypatch.setattr(run, "must", lambda *command: commands.append([*command]))
    return commands


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_the_cpu_build_is_the_pinned_version_from_the_index_of_pytorch(
    platform: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commands = recorded(monkeypatch, tmp_path)
    monkeypatch.setattr(run.sys, "platform", platform)
    monkeypatch.setattr(
        run.platform, "machine", lambda: "aarch64" if platform == "linux" else "arm64"
    )
    monkeypatch.setenv("TORCH", "cpu")
    run.install_pipeline()
    index = "https://download.pytorch.org/whl/cpu"
    cpu = f"--no-deps --index-url {index} torch=={pinned('torch')}".split()
    pip = [str(tmp_path / "bin/python"), "-m", "pip", "install"]
    everything = [*pip, "--requirement", "requirements.txt"]
    # For macOS and Windows, PyPI already has the CPU build.
    assert commands[1:] == ([[*pip, *cpu], everything] if platform == "linux" else [everything])


def pinned(package: str) -> str:
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    (version,) = re.findall(rf"^{package}==(\S+)", text, flags=re.MULTILINE)
    return str(version)


def test_a_build_of_pytorch_that_is_not_available_is_refused(checkout: Checkout) -> None:
    checkout.set_up()
    assert "TORCH=gpu" in checkout.refused("setup", TORCH="gpu")
    checkout.run("setup", TORCH="cpu")
    library = checkout.path / ".venv/lib/python3.11/site-packages/torch/lib/libtorch_cuda.so"
    library.parent.mkdir(parents=True)
    library.touch()
    assert "delete .venv for TORCH=cpu, or leave" in checkout.refused("setup", TORCH="cpu")
    checkout.run("setup")


def test_a_folder_that_is_no_environment_is_refused(checkout: Checkout) -> None:
    for name in ("Makefile", "charlm", ".", "..", "/"):
        said = f"error: {name} is not a virtual environment; name another folder"
        assert checkout.refused("setup", VENV=name).startswith(said)
    (checkout.path / "pyvenv.cfg").touch()  # with which `venv --clear` would empty it
    checkout.refused("setup", VENV=".")
    shutil.copytree(checkout.path / ".venv/bin", checkout.path / "new/bin")
    checkout.run("setup", VENV="new")


def test_hooks_of_another_folder_are_refused(checkout: Checkout) -> None:
    checkout.set_up()
    said = checkout.refused("hooks", VENV="env")
    assert said.startswith("error: the git hooks call .venv/bin/ruff and .venv/bin/dvc, and ")


def test_git_ignores_an_environment_of_any_name(checkout: Checkout) -> None:
    """DVC would copy it into every experiment."""
    (checkout.path / ".venv").rename(checkout.path / "elsewhere")
    checkout.run("setup", VENV="elsewhere")
    assert "elsewhere" not in checkout.called("git", "status", "--short")


def test_what_was_being_installed_at_an_interruption_is_installed_again(checkout: Checkout) -> None:
    """pip takes it for installed, although it lacks the command `dvc`."""
    packages = checkout.path / ".venv/lib/python3.11/site-packages"
    for name in ("dvc-3.67.1", "dvc_data-3.18.3", "pip-26.3"):
        (packages / f"{name}.dist-info").mkdir(parents=True)
        (packages / f"{name}.dist-info/METADATA").touch()
    (packages / "dvc_data-3.18.3.dist-info/INSTALLER").touch()
    checkout.run("setup")
    assert [path.name for path in packages.iterdir()] == ["dvc_data-3.18.3.dist-info"]
    assert checkout.ran() == [*PIPELINE, *PLOTS]


def test_setup_first_says_how_much_it_downloads_and_how_to_get_less(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = checkout.run("setup").splitlines()[0]
    large = sys.platform == "linux"
    assert first.startswith(f"Setting up .venv: up to {'3' if large else '0.4'} GB to download, ")
    assert "Setting up" not in checkout.run("setup")
    (checkout.path / ".venv/lib/python3.11/site-packages/torch").mkdir(parents=True)
    os.utime(checkout.path / "requirements.txt")
    assert "Setting up" not in checkout.run("setup"), "most of it is there"
    for by_make, command in ((True, "make setup TORCH=cpu"), (False, "TORCH=cpu py run.py setup")):
        monkeypatch.setattr(run, "BY_MAKE", by_make)
        monkeypatch.setattr(run, "COMMAND", "py run.py")
        assert run.announcement(without_cuda=False).endswith(command)
        assert "TORCH" not in run.announcement(without_cuda=True)
    monkeypatch.setattr(run.shutil, "which", lambda name: f"/bin/{name}")
    assert "No NVIDIA GPU" not in run.announcement(without_cuda=False)


def test_a_system_without_builds_of_pytorch_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commands = recorded(monkeypatch, tmp_path)
    monkeypatch.setattr(run.sys, "platform", "darwin")
    monkeypatch.setattr(run.platform, "machine", lambda: "x86_64")
    with pytest.raises(SystemExit, match=r"error: PyTorch has no builds for .*\(darwin x86_64\)"):
        run.install_pipeline()
    assert commands == []


AS_PYTHON = """
import platform, runpy, sys
sys.version_info, sys.argv = {version}, ["run.py", *sys.argv[1:]]
platform.python_version = lambda: "{version[0]}.{version[1]}.{version[2]}"
runpy.run_path("run.py", run_name="__main__")
"""


@pytest.mark.parametrize("version", [(3, 10, 13, "final", 0), (3, 15, 0, "final", 0)])
def test_an_older_or_newer_python_is_refused(
    version: tuple[int | str, ...], checkout: Checkout
) -> None:
    python = [sys.executable, "-c", AS_PYTHON.format(version=version)]
    said = f"error: Python 3.11 to 3.14 is needed, but this is 3.{version[1]}."
    text = checkout.called(*python, "setup", code=1)
    assert text.startswith(said)
    assert re.search(r"for example: python3\.1[1-4] run\.py\n$", text)
    text = checkout.called(*python, "setup", code=1, MAKELEVEL="1")
    assert re.search(r"for example: make PYTHON=python3\.1[1-4]\n$", text)
    assert checkout.ran() == []
    checkout.set_up()  # with a supported Python, which takes over
    checkout.called(*python, "repro", "--at-once", "1")
    assert checkout.ran() == ["python run.py repro --at-once 1"]


def test_an_old_python_can_parse_run_py() -> None:
    """Its syntax works in Python 3.6; the code before the version check also runs there."""
    tree = ast.parse((ROOT / "run.py").read_text(encoding="utf-8"), feature_version=(3, 6))
    (check,) = (
        node
        for node in tree.body
        if isinstance(node, ast.If) and "PYTHONS" in ast.unparse(node.test)
    )
    for node in tree.body[: tree.body.index(check)]:
        assert not isinstance(node, ast.AnnAssign)
        if isinstance(node, ast.FunctionDef):
            annotations = [
                node.returns,
                *(a.annotation for a in [*node.args.args, node.args.vararg] if a),
            ]
            assert all(isinstance(annotation, ast.Name) for annotation in annotations)


def test_the_supported_versions_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    minors = sorted(int(version.removeprefix("3.")) for version in run.PYTHONS)
    assert project["requires-python"] == f">=3.{minors[0]},<3.{minors[-1] + 1}"
    assert minors == [*range(minors[0], minors[-1] + 1)]


def test_the_container_is_set_up_by_the_same_command() -> None:
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text(encoding="utf-8"))
    image, _, version = container["image"].rpartition(":")
    assert image == "mcr.microsoft.com/devcontainers/python"
    assert version in run.PYTHONS
    assert container["updateContentCommand"] == "make setup"
    assert container["containerEnv"] == {"TORCH": "cpu"}
    recommended = json.loads((ROOT / ".vscode/extensions.json").read_text(encoding="utf-8"))
    extensions = container["customizations"]["vscode"]["extensions"]
    assert extensions == recommended["recommendations"]
    known = {"name", "image", "containerEnv", "updateContentCommand", "customizations"}
    assert container.keys() == known, "see containers.dev/implementors/json_reference"


WITHOUT_AVX2 = """
import platform, runpy, sys
from pathlib import Path
from charlm.core import pinning

def without():
    raise AttributeError

sys.platform, platform.machine = "linux", lambda: "x86_64"
pinning._instructions_by_glibc, pinning.FLAGS = without, Path("cpuinfo")
sys.argv = ["run.py"]
runpy.run_path("run.py", run_name="__main__")
"""


def test_an_old_processor_is_refused(checkout: Checkout) -> None:
    (checkout.path / "cpuinfo").write_text("model name : Old\nflags : fpu sse4_2 avx fma\n")
    text = checkout.called(sys.executable, "-c", WITHOUT_AVX2, code=1)
    assert text.startswith("error: this processor lacks AVX2, which ")
    assert text.count("\n") == 1
    assert checkout.ran() == []


def test_a_folder_without_git_is_refused(checkout: Checkout, tmp_path: Path) -> None:
    shutil.rmtree(checkout.path / ".git")
    for command in (["setup"], ["repro"], ["smoke"]):
        text = checkout.refused(*command, GIT_CEILING_DIRECTORIES=str(tmp_path))
        assert "this folder is not one (a zip download never is)" in text
    remedy = text.rstrip().rpartition("here: ")[2]
    (checkout.path / ".gitignore").write_text("/.venv\n")
    for part in remedy.split("; "):
        author = {
            f"GIT_{role}_{key}": "x"
            for role in ("AUTHOR", "COMMITTER")
            for key in ("NAME", "EMAIL")
        }
        checkout.called(*shlex.split(part), **author)
    checkout.run("setup")


def test_a_folder_of_another_user_is_refused(checkout: Checkout) -> None:
    text = checkout.refused("repro", GIT_TEST_ASSUME_DIFFERENT_OWNER="1")
    assert "this folder belongs to another user" in text
    command = text.rstrip().rpartition("run: ")[2]
    assert command == f"git config --global --add safe.directory {checkout.path}"


def test_without_git_nothing_is_installed(checkout: Checkout, tmp_path: Path) -> None:
    assert "git is not installed" in checkout.refused("repro", PATH=str(tmp_path))


def test_other_errors_of_git_are_passed_on(checkout: Checkout) -> None:
    (checkout.path / ".git/HEAD").unlink()
    assert "git does not work in this folder: fatal: " in checkout.refused("repro")


def test_further_arguments_reach_the_command_or_are_refused(checkout: Checkout) -> None:
    checkout.set_up()
    for line, last in (
        ("repro --at-once 1", "python -m pipeline.side_by_side --at-once 1"),
        ("test-slow tests/unit -k 'a or b'", "python -m pytest -m slow tests/unit -k a or b"),
        ("report", f"python .github/report.py {run.SMALL} main"),
        ("report HEAD~1 --out x", f"python .github/report.py {run.SMALL} HEAD~1 --out x"),
        ("seeds -S wavenet.epochs=40", "python -m experiments.seeds -S wavenet.epochs=40"),
    ):
        checkout.run(*shlex.split(line))
        assert checkout.ran() == [last]
    assert "smoke takes no arguments, but got: --force" in checkout.refused("smoke", "--force")
    assert "there is no command 'smok'" in checkout.refused("smok")


def test_no_step_follows_one_that_fails(checkout: Checkout) -> None:
    checkout.set_up()
    checkout.run("smoke")
    steps = checkout.ran()
    assert steps == [
        "python -m pipeline.clone",
        f"python -m dvc exp run --temp --name smoke --force {run.SMALL}",
        "python -m dvc exp show --no-pager --only-changed",
        "python -m dvc exp remove smoke",
    ]
    checkout.script("python", STUB + "case $* in *dvc*) exit 3;; esac\n")
    checkout.run("smoke", code=3)
    assert checkout.ran() == steps[:2]


def test_experiments_need_no_git_author(checkout: Checkout, tmp_path: Path) -> None:
    checkout.set_up()
    checkout.script("python", "#!/bin/sh\necho $GIT_AUTHOR_NAME, $GIT_COMMITTER_EMAIL\n")
    nobody = {"HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1"}
    assert set(checkout.run("smoke", **nobody).splitlines()) == {"charlm, charlm@localhost"}
    checkout.called("git", "config", "user.name", "Ada")
    assert set(checkout.run("smoke", **nobody).splitlines()) == {"Ada, charlm@localhost"}


def test_the_installation_page_is_right() -> None:
    page = (ROOT / "docs/install.md").read_text(encoding="utf-8")
    called = r"(?:^|`)(?:TORCH=cpu )?(?:make|python3 run\.py) ([a-z-]+)"
    named = {*re.findall(called, page, flags=re.MULTILINE)}
    assert {"setup", "repro", "test", "help"} <= named <= {*run.COMMANDS, "help"}
    for file in re.findall(r"`([\w./-]+\.(?:txt|lock|py|js))`", page):
        assert file == ".dvc/vega.js" or (ROOT / file).is_file(), file
    assert f"Python {run.PYTHONS[-1]} to {run.PYTHONS[0]}" in page
    for size in (run.SMALL_SIZE, run.LARGE_SIZE):
        download, disk = re.findall(r"[\d.]+ GB", size)
        assert f"| {download} | {disk} |\n" in page
    systems = {line.split(" | ")[0].strip("| ") for line in page.splitlines() if line[:2] == "| "}
    names = {"linux": "Linux", "darwin": "macOS", "win32": "Windows"}
    processors = {
        "aarch64": "ARM64",
        "arm64": "Apple silicon",
        "x86_64": "x86-64",
        "amd64": "x86-64",
    }
    assert {f"{names[its]}, {processors[on]}" for its, on in run.SYSTEMS} <= systems


@pytest.mark.parametrize("command", ["help", "setup"])
def test_output_that_cannot_be_printed_is_no_traceback(command: str, checkout: Checkout) -> None:
    checkout.set_up()
    python = [sys.executable, "run.py", command]
    closed = f"{{ sleep 0.3; {shlex.join(python)}; echo $? >&2; }} | true"
    said = "error: output cannot be printed (Broken pipe); redirect it elsewhere\n1\n"
    assert checkout.called("sh", "-c", closed) == ("0\n" if command == "help" else said)
    full = checkout.called("sh", "-c", f"{shlex.join(python)} > /dev/full", code=1)
    assert re.fullmatch("error: No space left on device; fix it .*\n", full)
    assert checkout.called("sh", "-c", f"{shlex.join(python)} >&-") == ""


def test_a_file_that_cannot_be_written_is_named(checkout: Checkout) -> None:
    (checkout.path / ".venv/.gitignore").mkdir()
    text = checkout.run("setup", code=1)
    assert re.fullmatch(r"error: \S+/\.gitignore: Is a directory; fix it .*", text.splitlines()[-1])


def test_help_lists_every_command(checkout: Checkout) -> None:
    for option in ("help", "--help", "-h"):
        lines = checkout.run(option).splitlines()
        assert [line.split()[2] for line in lines] == [*run.COMMANDS]
    lines = checkout.called("make", "help").splitlines()
    assert [line.split()[:2] for line in lines] == [["make", name] for name in run.COMMANDS]
    assert checkout.ran() == []


SLEEP = """#!/bin/sh
trap 'sleep 0.5; echo ended >> sleeps; exit 1' INT TERM
echo $$ > sleeps.part && mv sleeps.part sleeps
sleep 60 > /dev/null 2>&1 & wait
"""


@pytest.fixture
def sleeping(checkout: Checkout) -> Checkout:
    """A checkout whose `python` takes half a second to end."""
    checkout.script("python", SLEEP)
    return checkout


@contextmanager
def asleep(checkout: Checkout, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """Start run.py, and yield its process once its command sleeps."""
    with checkout.start(sys.executable, "run.py", *arguments) as process:
        try:
            deadline = time.monotonic() + 60
            while not (checkout.path / "sleeps").exists():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the `sleep` of the shell


def test_the_pipeline_replaces_the_process_of_run_py(sleeping: Checkout) -> None:
    """Ctrl-C and signals then reach it alone, as with `exec` in a shell."""
    sleeping.set_up()
    with asleep(sleeping) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 1
        assert (sleeping.path / "sleeps").read_text().split() == [str(process.pid), "ended"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_setup_may_finish_its_cleanup(
    number: signal.Signals, sleeping: Checkout
) -> None:
    with asleep(sleeping, "setup") as process:
        if number == signal.SIGINT:  # to the whole group, as a terminal does
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        assert process.wait() == (130 if number == signal.SIGINT else 1)
        assert (sleeping.path / "sleeps").read_text().split()[-1] == "ended"
        last = process.communicate()[0].splitlines()[-1]
    assert last.startswith("interrupted;" if number == signal.SIGINT else "error: setup failed")
    assert not (sleeping.path / ".venv/.installed").exists()
