"""End a stage when the DVC that runs it is killed.

Otherwise it would train without being recorded, and overwrite the outputs of the next run.
"""

import os
import signal
import sys
import threading
import time
from contextlib import suppress

import psutil

INTERVAL = 0.2
"""Seconds between checks."""


def end_with_dvc() -> None:
    """Send SIGTERM to this process when the DVC that runs it has ended."""
    waiting = _waiting()

    def watch() -> None:
        while all(map(_runs, waiting)):
            time.sleep(INTERVAL)
        if sys.platform == "win32":  # there, os.kill would not call the handler
            signal.raise_signal(signal.SIGTERM)
        else:
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _waiting() -> list[psutil.Process]:
    """Return the processes that wait for this one, up to DVC.

    They can include a shell and, on Windows, the Python of the virtual environment, which runs the
    real Python as a child process.
    """
    process, found = psutil.Process(), []
    with suppress(psutil.Error):
        while parent := process.parent():
            found.append(parent)
            if "stages." not in " ".join(parent.cmdline()[2:]):
                break
            process = parent
    return found


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
