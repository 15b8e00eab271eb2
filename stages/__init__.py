"""The stages of the pipeline. Each is a script, run as `python -m stages.NAME`.

This module contains what they share: paths and error handling.
"""

import sys

from charlm.core.interrupts import defer_interrupts, interrupt, note, obey_interrupts

if sys.argv[0] == "-m":  # a stage is starting and has not imported anything else yet
    defer_interrupts()

import atexit
import errno
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from traceback import extract_tb
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

from charlm.core.errors import (
    ANOTHER_ENDED,
    CLOSED_STREAM,
    FileError,
    InputError,
    is_out_of_memory,
    no_module,
)
from charlm.core.pinning import pin_kernels
from charlm.core.terminal import discard_unprintable, escape_unprintable

if TYPE_CHECKING:  # sys.excepthook is set before pydantic is imported
    from charlm.core.params import Params

DATASET = Path("data/dataset.safetensors")
SPLIT = Path("data/split.safetensors")
ORDERS = Path("plots/orders.csv")
MISTAKES = Path("data/mistakes.csv")
SAMPLES = Path("data/samples")
COMPARISON = Path("plots/evaluation/models.csv")
CALIBRATION = Path("plots/evaluation/calibration.csv")
FIGURES = Path("plots/figures")
REPORT = Path("plots/report.html")

DVC_STAGE = os.environ.get("DVC_STAGE", "").rpartition(":")[2]
"""The name of the stage, if DVC runs it. DVC may put the path of dvc.yaml in front."""

CHECKOUT = Path(os.environ.get("DVC_ROOT", "."))
"""The user's checkout, even if DVC runs an experiment in a temporary copy of it."""

ERROR_FILE = os.environ.get("TORCHELASTIC_ERROR_FILE")
"""The file for the error message of this process, if several processes train together."""

OWN = ("charlm", "stages", "pipeline")
ROOT = Path(__file__).resolve().parent.parent
MODELS = Path("charlm/models")

PYTHON = Path(".venv/Scripts/python.exe" if sys.platform == "win32" else ".venv/bin/python")
"""The Python that setup installs."""

ENDING = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
"""Signals that end a program: a request, or a closed terminal or lost connection."""

REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free some space"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "change its permissions"),
}
if sys.platform == "win32":  # a file that another program has open cannot be replaced
    REMEDIES[errno.EACCES] = "close the program that has it open, or change its permissions"


def checkpoint_path(model: str) -> Path:
    return Path(f"data/checkpoints/{model}.safetensors")


def checkpoints(models: Iterable[str]) -> dict[str, Path]:
    """Return the checkpoint of each model.

    Raises InputError if the folder contains another checkpoint. Stages depend on the whole folder,
    so that file would change dvc.lock.
    """
    paths = {name: checkpoint_path(name) for name in models}
    for path in sorted(checkpoint_path("").parent.glob("*.safetensors")):
        if path not in paths.values():
            raise InputError(f"{path} belongs to no model in params.yaml; delete it")
    return paths


def history_path(model: str) -> Path:
    return Path(f"plots/history/{model}.csv")


def loss_by_path(column: str) -> Path:
    return Path(f"plots/evaluation/loss_by_{column}.csv")


def run(main: Callable[[], None]) -> None:
    """Run a stage. SIGTERM and a closed terminal count as Ctrl-C."""
    handle_signals(interrupt)
    obey_interrupts()
    escape_unprintable()
    atexit.register(discard_unprintable)
    main()
    if sys.stdout:
        sys.stdout.flush()  # Python would do this only after the error handling
    ignore_interrupts()  # everything is done, but Python can take a while to exit
    refuse_changed_inputs()
    if inputs:
        inputs.leave()


def read_params() -> "Params":
    """Read the parameters, and check that neither they nor the imported code have changed.

    Otherwise, an edit that is undone before the stage ends would go unnoticed.
    """
    from charlm.core.params import load_params

    params = load_params()
    refuse_changed_inputs()
    return params


def refuse_changed_inputs() -> None:
    """Raise InputError if DVC would record this stage with different inputs than it ran with."""
    if inputs:
        inputs.refuse_if_changed()


def refuse_other_code() -> None:
    """Raise InputError if this code is not from the current folder, whose code DVC records."""
    for name in ("charlm", "stages"):
        own, found = Path(name, "__init__.py"), Path(sys.modules[name].__file__ or "")
        if not own.exists() or not own.samefile(found):
            raise InputError(
                f"Python found {name} in {found.parent.parent}, but DVC would record the code in "
                f"{Path.cwd()}; unset the environment variables PYTHONPATH and PYTHONSAFEPATH"
            )


def ignore_interrupts() -> None:
    """Ignore Ctrl-C and similar signals from now on. What follows is short and must complete."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    handle_signals(signal.SIG_IGN)


def handle_signals(handler: Callable[[int, FrameType | None], object] | signal.Handlers) -> None:
    """Set the handler of signals that end a program, unless they are ignored (by nohup)."""
    for number in ENDING:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def end(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Exit after an exception, with one line and code 1 if the user can fix it.

    This restores the outputs, which DVC removes before it runs a stage.
    """
    ignore_interrupts()  # from a second Ctrl-C, or from other processes of this training
    explained = explain(error)
    if explained:
        message, code = explained
        if isinstance(error, FileError):
            message += _dropped()
        if ERROR_FILE:  # the parent process prints a single error
            reason = {"message": message, "timestamp": int(time.time())}
            Path(ERROR_FILE).write_text(json.dumps(reason), encoding="utf-8")
        else:
            with suppress(OSError):  # the terminal can be closed
                print(message, file=sys.stderr, flush=True)
    else:
        sys.__excepthook__(kind, error, traceback)
        code = 1
    if DVC_STAGE and not ERROR_FILE:
        _put_back(DVC_STAGE)
    sys.exit(code)


def _put_back(stage: str) -> None:
    """Restore the outputs of a stage. Uses the Python in `.venv` if this one has no DVC."""
    try:
        from pipeline.put_back import main
    except ModuleNotFoundError:
        command = ["-m", "pipeline.put_back", stage]
        if PYTHON.exists():
            subprocess.run([PYTHON, *command], check=False)
        else:
            text = " ".join(["python", *command])
            print(f"DVC has removed the outputs; restore them with: {text}", file=sys.stderr)
    else:
        main(stage)


def _dropped() -> str:
    """Remove damaged copies from DVC's cache; return a note about them for the error message."""
    from dvc.repo import Repo

    from pipeline.cache import drop_damaged_copies, recorded_outputs
    from pipeline.put_back import DVC_ERRORS

    dropped: list[str] = []
    with suppress(*DVC_ERRORS), Repo() as repo:
        dropped = drop_damaged_copies(repo, recorded_outputs(repo))
    return f" (DVC's copy of {', '.join(dropped)} was damaged, too; removed it)" if dropped else ""


def explain(error: BaseException) -> tuple[str, int] | None:
    """Return the error message and the exit code; None for a bug."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; run the same command again to resume", 130
    match error:
        case ModuleNotFoundError(name=str(module)) if module.split(".")[0] not in OWN:
            return f"error: {no_module(module)}", 1
        case FileError():
            return f"error: {error}; recreate it with: dvc repro", 1
        case InputError():
            return f"error: {error}", 1
        case OSError(errno=int(number), filename=str(path)):
            todo = REMEDIES.get(number, "fix it")
            return f"error: {path}: {error.strerror}; {todo} and run the same command again", 1
        case OSError(errno=int(number)) if number in REMEDIES:  # without a file name
            return f"error: {error.strerror}; {REMEDIES[number]} and run the same command again", 1
        case OSError(errno=int(number), filename=None) if number in CLOSED_STREAM:
            return f"error: output cannot be printed ({error.strerror}); redirect it elsewhere", 1
    if ERROR_FILE and re.search("gloo|NCCL|onnection (closed|reset|refused)", str(error)):
        return f"error: {ANOTHER_ENDED}; run the same command again to resume", 1
    if is_out_of_memory(error):
        return (
            "error: not enough memory; lower batch_size, sample.count or the size of a model, or "
            "raise the limits of the shell (ulimit -a)",
            1,
        )
    if mistake := _mistake_in_model(error):
        return f"error: {mistake}; fix it", 1
    return None


def _mistake_in_model(error: BaseException) -> str:
    """Describe an error in a file in charlm/models or in a training script, with its line.

    Returns "" if the last line of this project in the traceback is in another file.
    """
    frames = [(frame.filename, frame.lineno) for frame in extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        frames.append((error.filename or "", error.lineno))
    own = [(Path(file), line) for file, line in frames if Path(file).is_relative_to(ROOT)]
    own = [(path.relative_to(ROOT), line) for path, line in own]
    own = [(path, line) for path, line in own if path.parts[0] in OWN]
    if not own or (own[-1][0].parent != MODELS and not own[-1][0].name.startswith("train_")):
        return ""
    path, line = own[-1]
    said = error.msg if isinstance(error, SyntaxError) else f"{type(error).__name__}: {error}"
    return f"{path}, line {line}: {said}"


sys.excepthook = end  # set before imports, because they can fail
pin_kernels()  # before a stage imports NumPy or torch

inputs = None
"""The inputs of the stage, if DVC runs it, before it imports or reads anything."""

if DVC_STAGE:
    handle_signals(note)
    from pipeline.inputs import Inputs
    from pipeline.parent import end_with_dvc

    end_with_dvc()
    refuse_other_code()
    inputs = Inputs(DVC_STAGE)
    if ROOT.is_relative_to((CHECKOUT / ".dvc/tmp/exps").resolve()):
        from pipeline.clone import refuse_incomplete

        refuse_incomplete(CHECKOUT)
