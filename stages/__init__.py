"""The stages of the pipeline: a script each, run as `python -m stages.NAME`.

What they share: where the files are, and how a stage ends that cannot go on.
"""

import errno
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from types import TracebackType

from charlm.core.errors import (
    ANOTHER_ENDED,
    FileError,
    InputError,
    is_interrupt,
    is_lack_of_memory,
    no_module,
)
from charlm.core.pinning import pin_kernels

DATASET = Path("data/dataset.safetensors")
SPLIT = Path("data/split.safetensors")
MISTAKES = Path("data/mistakes.csv")
SAMPLES = Path("data/samples")
COMPARISON = Path("plots/evaluation/models.csv")
CALIBRATION = Path("plots/evaluation/calibration.csv")
FIGURES = Path("plots/figures")
REPORT = Path("plots/report.html")

DVC_STAGE = os.environ.get("DVC_STAGE")
"""The name of the stage, where DVC runs it."""

ERROR_FILE = os.environ.get("TORCHELASTIC_ERROR_FILE")
"""Where a process tells why it ended, if it is one of several that train together."""

OWN = ("charlm", "stages")

WAY_OUT = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free some space"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "give yourself the right to it"),
}


def checkpoint_path(model: str) -> Path:
    return Path(f"data/checkpoints/{model}.safetensors")


def checkpoints(models: Iterable[str]) -> dict[str, Path]:
    """List the checkpoint of each model.

    Raises InputError if there is one of no model: the stages depend on the folder, so dvc.lock
    would be another than without it.
    """
    paths = {name: checkpoint_path(name) for name in models}
    for path in sorted(checkpoint_path("").parent.glob("*.safetensors")):
        if path not in paths.values():
            raise InputError(f"{path} is of no model that is trained here; delete it")
    return paths


def history_path(model: str) -> Path:
    return Path(f"plots/history/{model}.csv")


def loss_by_path(place: str) -> Path:
    return Path(f"plots/evaluation/loss_by_{place}.csv")


def run(main: Callable[[], None]) -> None:
    """Run a stage; a request to end it (SIGTERM) counts as Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # names may hold what a terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    main()
    ignore_interrupts()  # there is nothing left to interrupt, but Python may take a while to end


def ignore_interrupts() -> None:
    """From now on, a request to end changes nothing: what goes on is short, and has to be whole."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def end(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """End a program that cannot go on: with one line and code 1 if its user can mend it.

    DVC removes a stage's outputs before it runs the stage; they are put back.
    """
    ignore_interrupts()  # Ctrl-C once more, or from another process of this training, which ended
    explained = explain(error)
    if explained:
        message, code = explained
        if isinstance(error, FileError):
            message += _dropped()
        if ERROR_FILE:  # who started this process says it, once for all of them
            reason = {"message": message, "timestamp": int(time.time())}
            Path(ERROR_FILE).write_text(json.dumps(reason), encoding="utf-8")
        else:
            print(message, file=sys.stderr, flush=True)
    else:
        sys.__excepthook__(kind, error, traceback)
        code = 1
    if DVC_STAGE and not ERROR_FILE:
        from pipeline.put_back import refresh_git_index, put_back_outputs

        put_back_outputs(DVC_STAGE)
        refresh_git_index()
    sys.exit(code)


def _dropped() -> str:
    """What to add where the copies in DVC's cache are damaged too, and were dropped."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    from pipeline.put_back import drop_damaged_copies

    dropped: list[str] = []
    with suppress(DvcException, OSError), Repo() as repo:
        dropped = drop_damaged_copies(repo)
    return f" (DVC's copy of {', '.join(dropped)} was damaged and is dropped)" if dropped else ""


def explain(error: BaseException) -> tuple[str, int] | None:
    """The line that says what is wrong and what to do, and the exit code; None for a bug."""
    if is_interrupt(error):
        return "interrupted; the same command takes it up again", 130
    match error:
        case ModuleNotFoundError(name=str(module)) if module.split(".")[0] not in OWN:
            return f"error: {no_module(module)}", 1
        case FileError():
            return f"error: {error}; make it anew with: dvc repro", 1
        case InputError():
            return f"error: {error}", 1
        case OSError(errno=int(number), filename=str(path)):
            todo = WAY_OUT.get(number, "mend that")
            return f"error: {path}: {error.strerror}; {todo} and run the same command again", 1
        case OSError(errno=int(number)) if number in WAY_OUT:  # a library's, which names no file
            return f"error: {error.strerror}; {WAY_OUT[number]} and run the same command again", 1
    if ERROR_FILE and re.search("gloo|NCCL|onnection (closed|reset|refused)", str(error)):
        return f"error: {ANOTHER_ENDED}; the same command takes it up again", 1
    if is_lack_of_memory(error):
        return "error: not enough memory; lower batch_size, sample.count or a model's sizes", 1
    return None


sys.excepthook = end  # from the first import on: Ctrl-C may come while torch is being loaded
pin_kernels()  # before a stage imports NumPy or torch
