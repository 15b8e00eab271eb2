"""Set up .venv if needed, then run a command of the project: python run.py help

The Makefile calls this; Windows has no make. It needs Python and git only. The syntax is that of
Python 3.6, so that an old Python can read it and say that it is too old.
"""

import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent
NAME = os.environ.get("VENV") or ".venv"
VENV = ROOT / NAME
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")
BY_MAKE = "MAKELEVEL" in os.environ
PROGRAM = "python" if os.name == "nt" else Path(sys.executable).name
COMMAND = "make" if BY_MAKE else PROGRAM + " run.py"
"""What the user calls this by."""

PYTHONS = ("3.14", "3.13", "3.12", "3.11")
"""The versions that PyTorch and Numba have builds for."""


def fail(message: str) -> NoReturn:
    sys.exit(f"error: {message}")


def run(*command: str) -> int:
    """Run a command, wait until it has ended, and return its exit code; 130 after Ctrl-C.

    Ctrl-C reaches the command itself, and a request to end is passed on.
    """
    process: subprocess.Popen[bytes] | None = None
    received: list[int] = []

    def note(number: int, frame: object) -> None:
        received.append(number)
        if process and number == signal.SIGTERM:
            process.terminate()

    numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) != signal.SIG_IGN]
    before = [signal.signal(number, note) for number in numbers]
    process = subprocess.Popen(command)
    if received:  # before it was started
        process.terminate()
    code = process.wait()
    for number, handler in zip(numbers, before):  # noqa: B905  since Python 3.10
        signal.signal(number, handler)
    if signal.SIGINT in received:
        return 130
    return code if code >= 0 else 128 - code


def run_last(*command: str) -> NoReturn:
    """Run a command in place of this process; Windows has no such thing."""
    if os.name == "nt":
        sys.exit(run(*command))
    os.execv(command[0], command)


if "{}.{}".format(*sys.version_info) not in PYTHONS:
    set_up_before = (VENV / ".installed").exists() and PYTHON.exists()
    if set_up_before and Path(sys.prefix).resolve() != VENV.resolve():
        run_last(str(PYTHON), *sys.argv)
    found = [version for version in PYTHONS if shutil.which(f"python{version}")]
    other = f"python{found[0] if found else PYTHONS[1]}"
    command = f"make PYTHON={other}" if BY_MAKE else f"{other} run.py"
    fail(
        f"Python {PYTHONS[-1]} to {PYTHONS[0]} is needed, but this is {platform.python_version()}; "
        f"use another, for example: {f'py -{PYTHONS[1]} run.py' if os.name == 'nt' else command}"
    )

SYSTEMS = {("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"), ("win32", "amd64")}
"""The systems and processors that PyTorch and Numba have builds for."""

CPU_BUILDS = "https://download.pytorch.org/whl/cpu"
"""PyTorch's index of builds without CUDA; only those for Linux on PyPI have it."""

SMALL_SIZE, LARGE_SIZE = "0.4 GB to download, 2 GB on disk", "3 GB to download, 6 GB on disk"
"""What is installed without CUDA, and with it."""

UNSET = (
    *("PYTHONHOME", "PYTHONINSPECT", "PYTHONOPTIMIZE", "PYTHONPATH", "PYTHONSAFEPATH"),
    *("PYTHONWARNINGS", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"),
)
"""With these variables, Python would find other modules than those here and in .venv, or not end
well; and what runs would think that it is a part of make."""

SMALL = "-S epochs=1 -S compact.epochs=1 -S hybrid.epochs=1 -S sample.count=100"
"""Settings of a small run."""

COMMANDS: dict[str, tuple[str, str, list[str]]] = {
    "setup": ("set up .venv for the pipeline, and run nothing", "plots", []),
    "repro": (
        "run the pipeline: dvc repro, training several models in parallel",
        "plots",
        ["python -m pipeline.side_by_side ..."],
    ),
    "verify": (
        "run the committed pipeline from scratch in a temporary clone and compare every byte",
        "pipeline",
        ["python -m pipeline.verify"],
    ),
    "test": (
        "run the tests",
        "tests",
        ["python -m pytest -n 2 --dist worksteal -m 'not slow' ..."],
    ),
    "test-slow": (
        "run the slow tests, which also run the commands in the documentation",
        "tests",
        ["python -m pytest -m slow ..."],
    ),
    "smoke": (
        "run a small version of the whole pipeline in a temporary copy",
        "pipeline",
        [
            "python -m pipeline.clone",
            f"python -m dvc exp run --temp --name smoke --force {SMALL}",
            "python -m dvc exp show --no-pager --only-changed",
            "python -m dvc exp remove smoke",
        ],
    ),
    "report": (
        "compare the results of HEAD with those of another commit (default: main); writes report/",
        "pipeline",
        [f"python .github/report.py {SMALL} ..."],
    ),
    "hooks": ("install git hooks that run ruff and DVC", "dev", ["python -m pre_commit install"]),
    "seeds": (
        "mean and standard error of each metric over ten seeds, for docs/results.md (ten runs)",
        "pipeline",
        ["python -m experiments.seeds ..."],
    ),
    "sweep": (
        "effect of each setting on the losses, for EXPERIMENTS.md (81 runs: an hour on two cores)",
        "pipeline",
        ["python -m experiments.sweep ...", "python -m pipeline.readme"],
    ),
    "bench": (
        "speed compared with a plain notebook loop, for docs/performance.md (an hour)",
        "pipeline",
        [
            "python -m benchmarks.run ...",
            "python -m benchmarks.time_to_loss",
            "python -m pipeline.readme",
        ],
    ),
    "grow": (
        "time and memory for lists of up to 30 million names, for docs/performance.md "
        "(15 minutes or more)",
        "pipeline",
        ["python -m benchmarks.grow ...", "python -m pipeline.readme"],
    ),
}
"""What each command does, which setup it needs, and what it runs. Dots stand for the user's
further arguments. All run in Python: scripts such as .venv/bin/dvc do not start if the folder has
been renamed, or if its name has a quote."""

EXPERIMENTS = {"smoke", "seeds", "sweep"}
"""The commands that run experiments, which DVC commits."""


def main() -> None:
    command, *arguments = sys.argv[1:] or ["repro"]
    if command in {"help", "--help", "-h"}:
        try:
            print(usage(), flush=True)
        except BrokenPipeError:  # help | head
            discard_output()
        return
    if command not in COMMANDS:
        fail(f"there is no command {command!r}; for a list, run: python run.py help")
    _, needs, steps = COMMANDS[command]
    if arguments and not any("..." in step for step in steps):
        fail(f"{command} takes no arguments, but got: {shlex.join(arguments)}")
    os.chdir(ROOT)
    os.environ["PATH"] = os.pathsep.join(filter(None, [str(BIN), os.environ.get("PATH")]))
    if os.name == "nt":
        os.environ.setdefault("PYTHONUTF8", "1")  # or DVC's tables cannot be printed into a pipe
    for name in UNSET:
        os.environ.pop(name, None)
    check_git()
    check_processor()
    check_choices(command)
    set_up(needs)
    if not steps:
        print(what_next(), flush=True)
        return
    if command == "report":
        arguments = arguments or ["main"]
    if command in EXPERIMENTS:
        stand_in_author()
    *first, last = (fill_in(step, arguments) for step in steps)
    for step in first:
        code = run(*step)
        if code:
            sys.exit(code)
    run_last(*last)


def fill_in(step: str, arguments: list[str]) -> list[str]:
    """Return a command for Python of .venv, with the user's arguments in place of the dots."""
    _, *words = shlex.split(step)
    filled = (arguments if word == "..." else [word] for word in words)
    return [str(PYTHON), *(word for some in filled for word in some)]


def check_git() -> None:
    """Exit if DVC could not work with the repository here."""
    if not shutil.which("git"):
        fail("git is not installed, and DVC needs it; get it from https://git-scm.com/downloads")
    code, said = git("rev-parse", "--git-dir")
    if code == 0:
        return
    remedy = [line.strip() for line in said.splitlines() if "safe.directory" in line]
    if remedy:
        fail(
            "this folder belongs to another user, so git and DVC refuse to work in it; if you "
            f"trust it, run: {remedy[-1]}"
        )
    if (ROOT / ".git").exists():
        fail(f"git does not work in this folder: {said.strip().splitlines()[-1]}")
    fail(
        "DVC needs a git repository, and this folder is not one (a zip download never is); clone "
        "the project with git, or make a repository here: git init; git add --all; "
        "git commit -m Import"
    )


def git(*arguments: str) -> tuple[int, str]:
    """Return git's exit code, and what it prints."""
    done = subprocess.run(
        ["git", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    return done.returncode, done.stdout


def check_processor() -> None:
    """Exit if the processor lacks what the pipeline needs."""
    sys.path.insert(0, str(ROOT))
    from charlm.core.errors import InputError
    from charlm.core.pinning import refuse_old_processor

    try:
        refuse_old_processor()
    except InputError as error:
        fail(str(error))


def check_choices(command: str) -> None:
    """Exit if VENV or TORCH is invalid, or if the git hooks cannot work with this VENV."""
    known = any((VENV / name).exists() for name in ("pyvenv.cfg", ".installed")) or PYTHON.exists()
    empty = not VENV.exists() or (VENV.is_dir() and not any(VENV.iterdir()))
    holds_project = VENV.resolve() in {ROOT, *ROOT.parents}
    if holds_project or not (known or empty):
        fail(f"{NAME} is not a virtual environment; name another folder, for example: VENV=env")
    build = os.environ.get("TORCH", "")
    if build not in {"", "cpu"}:
        fail(f"TORCH={build} is not available; use TORCH=cpu or leave it out")
    if build == "cpu" and packages("torch/lib/libtorch_cuda.so"):
        fail(f"{NAME} has PyTorch with CUDA; delete {NAME} for TORCH=cpu, or leave TORCH out")
    if command == "hooks" and BIN != ROOT / ".venv/bin":
        fail(
            f"the git hooks call .venv/bin/ruff and .venv/bin/dvc, and yours are in {BIN}; change "
            "their paths in .pre-commit-config.yaml, and run: pre-commit install"
        )


def stand_in_author() -> None:
    """Set an author for the commits of experiments if git has none, since DVC needs one."""
    for key, stand_in in (("name", "charlm"), ("email", "charlm@localhost")):
        code, known = git("config", f"user.{key}")
        value = (known.strip() if code == 0 else "") or stand_in
        for role in ("AUTHOR", "COMMITTER"):
            os.environ.setdefault(f"GIT_{role}_{key.upper()}", value)


def set_up(needs: str) -> None:
    """Bring .venv up to date: the packages of the pipeline, and those of tests or plots."""
    installed, dev, chromium = VENV / ".installed", VENV / ".installed-dev", VENV / ".chromium"
    if not PYTHON.exists() or outdated(installed, "requirements.txt", "constraints.txt"):
        install_pipeline()
        installed.touch()
    vega = ROOT / ".dvc/vega.js"
    if needs == "plots" and outdated(vega, installed, "requirements-plots.txt", "pipeline/vega.py"):
        pip("--requirement", "requirements-plots.txt")
        must(str(PYTHON), "-m", "pipeline.vega")
    sources = (installed, "requirements-dev.txt", "requirements-plots.txt")
    if needs in {"dev", "tests"} and outdated(dev, *sources):
        pip("--requirement", "requirements-dev.txt")
        dev.touch()
    if needs == "tests" and outdated(chromium, dev, "tests/chromium.py"):
        must(str(PYTHON), "-m", "tests.chromium")
        chromium.touch()


def outdated(made: Path, *sources: str | Path) -> bool:
    """Return whether a file is missing or older than what it was made from, as make does."""
    if not made.exists():
        return True
    time = made.stat().st_mtime_ns
    return any((ROOT / source).stat().st_mtime_ns > time for source in sources)


def install_pipeline() -> None:
    """Make .venv, and install the pinned packages of the pipeline."""
    system = sys.platform, platform.machine().lower()
    if system not in SYSTEMS:
        fail(
            f"PyTorch has no builds for this system ({' '.join(system)}); use Linux on x86-64 or "
            "ARM64, macOS on Apple silicon, or Windows on x86-64 (with an x86-64 Python)"
        )
    cpu = os.environ.get("TORCH") == "cpu"
    without_cuda = sys.platform != "linux" or cpu
    if not packages("torch"):
        print(announcement(without_cuda), flush=True)
    made = PYTHON.exists()
    if not made:
        gone = ["--clear"] if (VENV / "pyvenv.cfg").exists() else []  # the Python that it links to
        must(sys.executable, "-m", "venv", *gone, str(VENV))
    # As venv does since Python 3.13: DVC copies into experiments what git does not ignore.
    (VENV / ".gitignore").write_text("*\n", encoding="utf-8")
    forget_half_installed()
    if made and not packages("pip-*.dist-info"):  # by uv, or interrupted
        must(str(PYTHON), "-m", "ensurepip")
    if sys.platform == "linux" and cpu:
        lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
        (torch,) = (line.split()[0] for line in lines if line.startswith("torch=="))
        pip("--no-deps", "--index-url", CPU_BUILDS, torch)
    pip("--requirement", "requirements.txt")


def packages(pattern: str) -> list[Path]:
    """Return what is installed in .venv by that name."""
    folders = "lib/python*/site-packages", "Lib/site-packages"
    return [found for folder in folders for found in VENV.glob(f"{folder}/{pattern}")]


def forget_half_installed() -> None:
    """Let pip install again what it was installing when it was interrupted.

    pip takes a package for installed once it has unpacked it. Only then, it compiles the package,
    writes its commands, such as `dvc`, and at last INSTALLER.
    """
    for metadata in packages("*.dist-info"):
        if not (metadata / "INSTALLER").exists():
            shutil.rmtree(metadata)


def announcement(without_cuda: bool) -> str:
    """Return how much setup downloads, and how to get less of it."""
    said = f"Setting up {NAME}: up to {SMALL_SIZE if without_cuda else LARGE_SIZE}."
    if without_cuda:
        return said
    has_gpu = shutil.which("nvidia-smi") or Path("/proc/driver/nvidia").exists()
    found = "Most of it is for NVIDIA GPUs" if has_gpu else "No NVIDIA GPU was found here"
    instead = "make setup TORCH=cpu" if BY_MAKE else f"TORCH=cpu {COMMAND} setup"
    return (
        f"{said}\n{found}. PyTorch's CPU build is smaller: {SMALL_SIZE}.\n"
        f"To install it instead, press Ctrl-C and run: {instead}"
    )


def pip(*arguments: str) -> None:
    forget_half_installed()
    must(str(PYTHON), "-m", "pip", "install", *arguments)


def must(*command: str) -> None:
    """Run a command of setup; exit if it fails."""
    code = run(*command)
    if code == 130:
        raise KeyboardInterrupt
    if code:
        fail(
            "setup failed (see above); fix the cause and run the same command again (if it still "
            f"fails, delete {NAME} first)"
        )


def what_next() -> str:
    scripts = f"{NAME}\\Scripts\\activate" if os.name == "nt" else f"source {NAME}/bin/activate"
    return (
        f"{NAME} is ready. To train the models, run: {COMMAND} repro\n"
        f"To use dvc and python yourself, first run: {scripts}"
    )


def discard_output() -> None:
    """Discard what cannot be printed; Python would try again when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def usage() -> str:
    lines = {name: f"{COMMAND} {name:9}  {does}" for name, (does, _, _) in COMMANDS.items()}
    if not BY_MAKE:
        lines["repro"] += " (the default)"
    return "\n".join(lines.values())


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted; run the same command again", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        if not error.filename:
            discard_output()
        if isinstance(error, BrokenPipeError):
            fail(f"output cannot be printed ({error.strerror}); redirect it elsewhere")
        where = f"{error.filename}: " if error.filename else ""
        fail(f"{where}{error.strerror}; fix it and run the same command again")
